//! Finds out whether the table accepts another row at the moment. Only then a row that fails alone is to blame: if none is
//! accepted, something is wrong with the table, and no event is set aside for it.

use postgres_protocol::escape::escape_literal;

use crate::consumer::postgres::error::{PgError, SqlError};
use crate::consumer::postgres::rows::{self, Plan};
use crate::consumer::postgres::session::Session;

/// What a part of a transaction begins with that can be undone alone.
pub const BEGIN_PART: &str = "SAVEPOINT part";
/// Undoes it. Releasing the savepoint keeps savepoints from piling up.
pub const UNDO_PART: &str = "ROLLBACK TO SAVEPOINT part; RELEASE SAVEPOINT part";

/// Most events of the batch that are tried.
const OTHERS_MAX: usize = 16;
/// Longest event of the table that is tried again, in bytes.
const LAST_MAX_BYTES: usize = 1 << 20;

/// Tries other events in the place of row `at`, which failed, and leaves nothing of them: some of the batch, the one that
/// the table accepted last, and if that says nothing, an empty one.
///
/// # Errors
/// The session cannot be used any more.
pub fn accepts_another(session: &mut Session, plan: &Plan<'_>, at: usize) -> Result<bool, PgError> {
    for other in others(at, plan.batch.len()) {
        if attempt(session, plan, at, plan.batch.event(other))?.is_none() {
            return Ok(true);
        }
    }
    if let Some(last) = last_event(session, plan, at)? {
        match attempt(session, plan, at, last.as_bytes())? {
            None => return Ok(true),
            // An index of the operator's own does not accept it a second time.
            Some(error) if error.code == "23505" => {}
            Some(_) => return Ok(false),
        }
    }
    Ok(attempt(session, plan, at, b"{}")?.is_none())
}

/// The row after row `at` of so many, and some from all over the batch.
fn others(at: usize, rows: usize) -> impl Iterator<Item = usize> {
    (1..rows).step_by((rows / OTHERS_MAX).max(1)).take(OTHERS_MAX).map(move |ahead| (at + ahead) % rows)
}

/// Why the database does not accept `event`; `None` if it does.
fn attempt(
    session: &mut Session,
    plan: &Plan<'_>,
    at: usize,
    event: &[u8],
) -> Result<Option<SqlError>, PgError> {
    let row = plan.row_like(at, event);
    let refused = match rows::add(session, plan, BEGIN_PART, (&row, 1), |_| Ok::<(), PgError>(())) {
        Ok(_) => None,
        Err(PgError::Sql(error)) if !error.is_fatal => Some(error),
        Err(error) => return Err(error),
    };
    session.run(UNDO_PART)?;
    Ok(refused)
}

/// The last event of the partition of row `at` that is in the table.
fn last_event(session: &mut Session, plan: &Plan<'_>, at: usize) -> Result<Option<String>, PgError> {
    let (key, partition) = plan.batch.key(at);
    let answer = session.run(&format!(
        "SELECT event FROM (SELECT event::text AS event FROM {} WHERE topic_id ={} AND partition = {partition} ORDER BY \
         \"offset\" DESC LIMIT 1) AS last WHERE octet_length(event) <= {LAST_MAX_BYTES}",
        plan.events(),
        escape_literal(&key)
    ))?;
    Ok(answer.rows.into_iter().next().and_then(|row| row.into_iter().next()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_are_from_all_over_the_batch() {
        let all = |at, rows| others(at, rows).collect::<Vec<_>>();
        assert_eq!((all(0, 1), all(0, 2), all(2, 4)), (vec![], vec![1], vec![3, 0, 1]));
        let many = all(900, 1000);
        assert!(many.len() == OTHERS_MAX && many[0] == 901 && !many.contains(&900));
        assert!(many.iter().max() > Some(&900) && many.iter().min() < Some(&100), "{many:?}");
    }
}
