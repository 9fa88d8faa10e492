//! Writes one batch: offsets, rows and rejects in one transaction, up to the point of the commit.
//!
//! The statement that moves the offsets comes first. It locks their rows, so two transactions that are to write the
//! same offsets come one after the other, and the second one finds that they have moved.

use crate::consumer::postgres::batch::reject_rows;
use crate::consumer::postgres::copy::{HEADER, TRAILER};
use crate::consumer::postgres::error::{Kind, PgError, SqlError};
use crate::consumer::postgres::probe::{self, BEGIN_PART, UNDO_PART};
use crate::consumer::postgres::refusal::REFUSED;
use crate::consumer::postgres::rows::{self, Plan, Written};
use crate::consumer::postgres::session::Session;
use crate::tables::named;

/// Why a transaction was not made ready for its commit.
#[derive(Debug)]
pub enum Failed {
    /// A call failed.
    Call(PgError),
    /// The offsets are not as we left them.
    NotOurs,
    /// One of our tables has a row at an offset that was not written yet.
    Exists(SqlError),
    /// One statement with so many rows took too long.
    Slow(usize, String),
}

impl From<PgError> for Failed {
    fn from(error: PgError) -> Self {
        Self::Call(error)
    }
}

/// Makes the transaction ready for its commit. After an error, it is still under way.
///
/// # Errors
/// See [`Failed`].
pub fn write(session: &mut Session, plan: &Plan<'_>) -> Result<Written, Failed> {
    Transaction { session, plan, written: Written::default(), accepts_rows: false }.write()
}

/// Commits it.
///
/// # Errors
/// If the connection was lost, it may have been committed.
pub fn commit(session: &mut Session) -> Result<(), PgError> {
    let answer = session.run("COMMIT")?;
    if answer.tags.first().map(String::as_str) == Some("COMMIT") {
        return Ok(());
    }
    let message = "the transaction was rolled back instead of committed".to_owned();
    Err(PgError::Sql(SqlError { message, ..SqlError::default() }))
}

/// Constraints that are checked at the commit would refuse all rows together.
const BEGIN: &str = "BEGIN; SET CONSTRAINTS ALL IMMEDIATE";

struct Transaction<'a> {
    session: &'a mut Session,
    plan: &'a Plan<'a>,
    written: Written,
    /// The table has accepted a row, so one that fails alone is to blame. The rules of the table cannot change while this
    /// transaction writes to it.
    accepts_rows: bool,
}

impl Transaction<'_> {
    fn write(mut self) -> Result<Written, Failed> {
        let rows = self.plan.batch.len();
        let refused = match self.plan.rows_max {
            None if rows > 0 => self.begin_with(rows)?,
            _ => {
                self.begin()?;
                self.plan.rows_max
            }
        };
        if let Some(rows_max) = refused.filter(|_| rows > 0) {
            self.copy_parts(rows_max)?;
        }
        self.copy_rejects()?;
        Ok(self.written)
    }

    fn begin(&mut self) -> Result<(), Failed> {
        let answer = self.session.run(&format!("{BEGIN}; {}", self.plan.advance.0))?;
        check_advance(self.plan, answer.affected("UPDATE"))
    }

    /// Begins and adds all rows at once. If the database does not accept one of them, begins without rows, and returns
    /// how many may come before it.
    fn begin_with(&mut self, rows: usize) -> Result<Option<usize>, Failed> {
        let before = format!("{BEGIN}; {}", self.plan.advance.0);
        let bytes = self.plan.batch.rows(0..rows);
        let plan = self.plan;
        let added =
            rows::add(self.session, plan, &before, (bytes, rows), |changed| check_advance(plan, changed));
        let failed = match added {
            Ok(written) => {
                self.written = written;
                return Ok(None);
            }
            Err(failed) => failed,
        };
        let (most, error) = self.suspect(failed, rows)?;
        self.session.run("ROLLBACK")?;
        self.begin()?;
        self.blame(most, error)?;
        Ok(Some(most))
    }

    /// The error if one of `rows` may be to blame for it, and how many of them may come before that one.
    fn suspect(&self, failed: Failed, rows: usize) -> Result<(usize, SqlError), Failed> {
        let error = match failed {
            Failed::Call(PgError::Sql(error)) => error,
            // A slow network: fewer rows need less time.
            Failed::Call(PgError::TimedOut(why)) => return Err(Failed::Slow(rows, why)),
            failed => return Err(failed),
        };
        let may_be_a_row = match error.kind() {
            Kind::Row | Kind::Exists => true,
            Kind::Exhausted => !self.plan.is_patient,
            Kind::Timeout => return Err(Failed::Slow(rows, error.to_string())),
            Kind::Settings | Kind::Passing => false,
        };
        if !may_be_a_row {
            return Err(PgError::Sql(error).into());
        }
        Ok((error.line.map_or(rows / 2, |line| line.saturating_sub(1).min(rows - 1)), error))
    }

    /// Makes sure that `error` is about a row, near row `at`, and not about the tables.
    fn blame(&mut self, at: usize, error: SqlError) -> Result<(), Failed> {
        if let (Kind::Exists, Some(table)) = (error.kind(), &error.table)
            && rows::is_of_events(self.session, self.plan, table)?
        {
            return Err(Failed::Exists(error));
        }
        self.accepts_rows = self.accepts_rows || probe::accepts_another(self.session, self.plan, at)?;
        if self.accepts_rows {
            return Ok(());
        }
        let message = format!("{}; other rows are not accepted either", error.message);
        Err(PgError::Sql(SqlError { message, ..error }).into())
    }

    /// Adds the rows in several statements of which each can fail alone, the first one with at most `most` rows.
    fn copy_parts(&mut self, mut most: usize) -> Result<(), Failed> {
        let (mut at, rows, limit) = (0, self.plan.batch.len(), self.plan.rows_max.unwrap_or(usize::MAX));
        while at < rows {
            let end = rows.min(at + most.max(1));
            let Err(failed) = self.copy_part(at, end) else {
                at = end;
                most = most.max(1).saturating_mul(2).min(limit);
                continue;
            };
            let (before, error) = self.suspect(failed, end - at)?;
            self.session.run(UNDO_PART)?;
            let (accepts_rows, message) = (self.accepts_rows, error.to_string());
            self.blame(at + before, error)?;
            if end - at == 1 && accepts_rows {
                self.written.refused.push(self.plan.batch.refused(at, REFUSED, &message));
                at = end;
                most = 2;
            } else {
                // One that fails before it is known whether another row is accepted is tried once more.
                most = before;
            }
        }
        Ok(())
    }

    fn copy_part(&mut self, at: usize, end: usize) -> Result<(), Failed> {
        let part = (self.plan.batch.rows(at..end), end - at);
        let written = rows::add(self.session, self.plan, BEGIN_PART, part, |_| Ok::<(), PgError>(()))?;
        self.session.run("RELEASE SAVEPOINT part")?;
        self.written.add(written);
        Ok(())
    }

    fn copy_rejects(&mut self) -> Result<(), Failed> {
        let Self { plan, written, .. } = self;
        if plan.batch.rejects.is_empty() && written.refused.is_empty() {
            return Ok(());
        }
        let table = named(plan.schema, "event_rejects");
        let sql = format!(
            "COPY {table} (topic_id, partition, \"offset\", logged_at, reason, message, value) FROM STDIN (FORMAT binary)"
        );
        let (known, refused) = (reject_rows(&plan.batch.rejects), reject_rows(&written.refused));
        match self.session.copy(&sql, &[HEADER, &known, &refused, TRAILER]) {
            Ok(_) => Ok(()),
            Err(PgError::Sql(error))
                if error.kind() == Kind::Exists && error.table.as_deref() == Some(&*table) =>
            {
                Err(Failed::Exists(error))
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// Checks that the offsets of all partitions have moved.
fn check_advance(plan: &Plan<'_>, changed: u64) -> Result<(), Failed> {
    if changed == plan.advance.1 as u64 { Ok(()) } else { Err(Failed::NotOurs) }
}
