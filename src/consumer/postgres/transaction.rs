//! Writes one batch: offsets, rows and rejects in one transaction, up to the point of the commit.
//!
//! The statement that moves the offsets comes first. It locks their rows, so two transactions that are to write the
//! same offsets come one after the other, and the second one finds that they have moved.

use crate::consumer::postgres::batch::{Batch, Reject, reject_rows};
use crate::consumer::postgres::copy::{EventType, HEADER, TRAILER};
use crate::consumer::postgres::error::{Kind, PgError, SqlError};
use crate::consumer::postgres::refusal::REFUSED;
use crate::consumer::postgres::session::Session;
use crate::tables::named;

/// What a transaction needs.
pub struct Plan<'a> {
    /// The tables' schema.
    pub schema: &'a str,
    /// Moves the offsets on; changes so many rows if they are still ours.
    pub advance: (String, usize),
    /// What is added.
    pub batch: &'a Batch,
    /// How repeated events are dropped, if they are.
    pub ids: Option<Ids>,
    /// Type of the column with the event.
    pub event: EventType,
    /// Most rows in one statement, if an earlier attempt failed.
    pub rows_max: Option<usize>,
}

/// How repeated events are dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ids {
    /// By a unique index of the whole table.
    Table,
    /// By a unique index of each partition.
    Partition,
}

/// What a transaction has added.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Rows of `events`.
    pub events: u64,
    /// Events that were dropped, because they or others with their id were there.
    pub repeated: u64,
    /// Those of them that are not the event in the table.
    pub differing: u64,
    /// Rows that the database did not accept.
    pub refused: Vec<Reject>,
}

/// Why a transaction was not made ready for its commit.
#[derive(Debug)]
pub enum Failed {
    /// A call failed.
    Call(PgError),
    /// The offsets are not as we left them.
    NotOurs,
    /// One statement with so many rows took too long.
    Slow(usize, SqlError),
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
    Transaction { session, plan, written: Written::default() }.write()
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

/// Undoes one of several statements. Releasing it keeps savepoints from piling up.
const UNDO_PART: &str = "ROLLBACK TO SAVEPOINT part; RELEASE SAVEPOINT part";

struct Transaction<'a> {
    session: &'a mut Session,
    plan: &'a Plan<'a>,
    written: Written,
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
        self.check(answer.affected("UPDATE"))
    }

    /// Begins and adds all rows at once. If the database does not accept one of them, begins without rows, and returns
    /// how many may come before it.
    fn begin_with(&mut self, rows: usize) -> Result<Option<usize>, Failed> {
        let begin =
            format!("{BEGIN}; {}; {}{}", self.plan.advance.0, self.make_room(), self.copy_statement());
        let batch = self.plan.batch.rows(0..rows);
        let copied =
            self.session.copy(&begin, &[HEADER, batch, TRAILER]).map_err(Failed::Call).and_then(|answer| {
                self.check(answer.affected("UPDATE"))?;
                self.merge(rows, answer.affected("COPY"))
            });
        let Err(failed) = copied else { return Ok(None) };
        let at = self.refused_at(failed, rows)?;
        self.session.run("ROLLBACK")?;
        self.written = Written::default();
        self.begin()?;
        Ok(Some(at))
    }

    fn check(&self, changed: u64) -> Result<(), Failed> {
        if changed == self.plan.advance.1 as u64 { Ok(()) } else { Err(Failed::NotOurs) }
    }

    /// How many of `rows` may come before the one that the database did not accept.
    fn refused_at(&self, failed: Failed, rows: usize) -> Result<usize, Failed> {
        let Failed::Call(PgError::Sql(error)) = failed else { return Err(failed) };
        match error.kind() {
            Kind::Row => Ok(error.line.map_or(rows / 2, |line| line.saturating_sub(1).min(rows - 1))),
            Kind::Timeout => Err(Failed::Slow(rows, error)),
            _ => Err(PgError::Sql(error).into()),
        }
    }

    /// Adds the rows in several statements of which each can fail alone, the first one with at most `most` rows.
    fn copy_parts(&mut self, mut most: usize) -> Result<(), Failed> {
        let (mut at, rows, limit) = (0, self.plan.batch.len(), self.plan.rows_max.unwrap_or(usize::MAX));
        while at < rows {
            let end = rows.min(at + most.max(1));
            match self.copy_part(at, end) {
                Ok(()) => {
                    at = end;
                    most = most.max(1).saturating_mul(2).min(limit);
                }
                Err(Failed::Call(PgError::Sql(error))) if end - at == 1 && error.kind() == Kind::Row => {
                    self.session.run(UNDO_PART)?;
                    self.written.refused.push(self.plan.batch.refused(at, REFUSED, &error.to_string()));
                    at = end;
                    most = 2;
                }
                Err(failed) => {
                    most = self.refused_at(failed, end - at)?;
                    self.session.run(UNDO_PART)?;
                }
            }
        }
        Ok(())
    }

    fn copy_part(&mut self, at: usize, end: usize) -> Result<(), Failed> {
        let sql = format!("SAVEPOINT part; {}{}", self.make_room(), self.copy_statement());
        let answer = self.session.copy(&sql, &[HEADER, self.plan.batch.rows(at..end), TRAILER])?;
        self.merge(end - at, answer.affected("COPY"))?;
        self.session.run("RELEASE SAVEPOINT part")?;
        Ok(())
    }

    /// Prepares the temporary table through which events with ids go.
    fn make_room(&self) -> String {
        if self.plan.ids.is_none() {
            return String::new();
        }
        let events = named(self.plan.schema, "events");
        format!(
            "CREATE TEMPORARY TABLE IF NOT EXISTS event_batch (LIKE {events}) ON COMMIT DELETE ROWS; \
             DELETE FROM pg_temp.event_batch; "
        )
    }

    fn copy_statement(&self) -> String {
        let events = named(self.plan.schema, "events");
        let (table, ids) = if self.plan.ids.is_some() {
            ("pg_temp.event_batch", ", event_id")
        } else {
            (events.as_str(), "")
        };
        format!(
            "COPY {table} (topic_id, partition, \"offset\", logged_at, event{ids}) FROM STDIN (FORMAT binary)"
        )
    }

    /// Adds the rows of the temporary table whose ids are new, and counts what was added; `copied` are the rows that a
    /// trigger of the operator's has not left out.
    fn merge(&mut self, rows: usize, copied: u64) -> Result<(), Failed> {
        let Some(ids) = self.plan.ids else {
            self.written.events += copied;
            return Ok(());
        };
        let target = if ids == Ids::Table { "(event_id) " } else { "" };
        let events = named(self.plan.schema, "events");
        let columns = "topic_id, partition, \"offset\", logged_at, event, event_id";
        let answer = self.session.run(&format!(
            "INSERT INTO {events} ({columns}) SELECT {columns} FROM pg_temp.event_batch ON CONFLICT {target}DO NOTHING"
        ))?;
        let added = answer.affected("INSERT");
        self.written.events += added;
        let dropped = (rows as u64).saturating_sub(added);
        if dropped > 0 {
            let differing = self.count_differing(&events)?.min(dropped);
            self.written.differing += differing;
            self.written.repeated += dropped - differing;
        }
        Ok(())
    }

    /// Number of dropped events that are not the one in the table, apart from `timestamp`.
    fn count_differing(&mut self, events: &str) -> Result<u64, PgError> {
        if self.plan.event == EventType::Text {
            return Ok(0);
        }
        let answer = self.session.run(&format!(
            "SELECT count(*) FROM pg_temp.event_batch b JOIN {events} e ON e.event_id = b.event_id WHERE (e.topic_id, \
             e.partition, e.\"offset\") <> (b.topic_id, b.partition, b.\"offset\") AND e.event - 'timestamp' <> b.event - \
             'timestamp'"
        ))?;
        let count = answer.rows.first().and_then(|row| row.first()?.as_ref()?.parse().ok());
        Ok(count.unwrap_or_default())
    }

    fn copy_rejects(&mut self) -> Result<(), Failed> {
        let Self { plan, written, .. } = self;
        if plan.batch.rejects.is_empty() && written.refused.is_empty() {
            return Ok(());
        }
        let sql = format!(
            "COPY {} (topic_id, partition, \"offset\", logged_at, reason, message, value) FROM STDIN (FORMAT binary)",
            named(plan.schema, "event_rejects")
        );
        let (known, refused) = (reject_rows(&plan.batch.rejects), reject_rows(&written.refused));
        self.session.copy(&sql, &[HEADER, &known, &refused, TRAILER])?;
        Ok(())
    }
}
