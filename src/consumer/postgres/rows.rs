//! Adds rows to the table of events by COPY. Events with ids go through a temporary table, where repeated ones stay behind.

use std::time::Instant;

use crate::consumer::postgres::batch::{Batch, Columns, Reject};
use crate::consumer::postgres::copy::{EventType, HEADER, TRAILER};
use crate::consumer::postgres::error::PgError;
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
    /// A server that runs out of memory may still recover: no row is blamed for it yet.
    pub is_patient: bool,
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

impl Written {
    /// Adds what a statement has added.
    pub fn add(&mut self, part: Self) {
        self.events += part.events;
        self.repeated += part.repeated;
        self.differing += part.differing;
        self.refused.extend(part.refused);
    }
}

impl Plan<'_> {
    /// A row at the place of row `at`, with another event and without an id.
    pub fn row_like(&self, at: usize, event: &[u8]) -> Vec<u8> {
        self.batch.row_like(at, event, self.event, self.ids.is_some())
    }

    /// The table, quoted.
    pub fn events(&self) -> String {
        named(self.schema, "events")
    }
}

/// Adds `count` rows after the statements `before`; `check` gets the number of rows that those have updated.
///
/// # Errors
/// As for [`Session::copy`], and those of `check`.
pub fn add<E: From<PgError>>(
    session: &mut Session,
    plan: &Plan<'_>,
    before: &str,
    (rows, count): (&[u8], usize),
    check: impl FnOnce(u64) -> Result<(), E>,
) -> Result<Written, E> {
    let sql = format!("{before}; {}{}", make_room(session, plan), copy_statement(plan));
    let answer = session.copy(&sql, &[HEADER, rows, TRAILER])?;
    check(answer.affected("UPDATE"))?;
    Ok(merge(session, plan, count, answer.affected("COPY"))?)
}

/// Prepares the temporary table through which events with ids go. It has our columns alone: one of the operator's that must
/// not be null gets its default in `events`.
fn make_room(session: &mut Session, plan: &Plan<'_>) -> String {
    if plan.ids.is_none() {
        return String::new();
    }
    let drop =
        if session.renews_table(Instant::now()) { "DROP TABLE IF EXISTS pg_temp.event_batch; " } else { "" };
    format!(
        "{drop}CREATE TEMPORARY TABLE IF NOT EXISTS event_batch ON COMMIT DELETE ROWS AS SELECT {} FROM {} WITH NO DATA; \
         DELETE FROM pg_temp.event_batch; ",
        Columns::names(true),
        plan.events()
    )
}

fn copy_statement(plan: &Plan<'_>) -> String {
    let ids = plan.ids.is_some();
    let table = if ids { "pg_temp.event_batch".to_owned() } else { plan.events() };
    format!("COPY {table} ({}) FROM STDIN (FORMAT binary)", Columns::names(ids))
}

/// Adds the rows of the temporary table whose ids are new, and counts what was added; `copied` are the rows that a
/// trigger of the operator's has not left out.
fn merge(session: &mut Session, plan: &Plan<'_>, rows: usize, copied: u64) -> Result<Written, PgError> {
    let Some(ids) = plan.ids else {
        return Ok(Written { events: copied, ..Written::default() });
    };
    // An index that spans the partitions cannot be on the id alone, so none can be named.
    let target = if ids == Ids::Table { "(event_id) " } else { "" };
    let (events, columns) = (plan.events(), Columns::names(true));
    let answer = session.run(&format!(
        "INSERT INTO {events} ({columns}) SELECT {columns} FROM pg_temp.event_batch ON CONFLICT {target}DO NOTHING"
    ))?;
    let added = answer.affected("INSERT");
    let dropped = (rows as u64).saturating_sub(added);
    let differing = if dropped > 0 { count_differing(session, plan)?.min(dropped) } else { 0 };
    Ok(Written { events: added, repeated: dropped - differing, differing, refused: Vec::new() })
}

/// Number of dropped events that are not the one in the table, apart from `timestamp`.
fn count_differing(session: &mut Session, plan: &Plan<'_>) -> Result<u64, PgError> {
    if plan.event == EventType::Text {
        return Ok(0);
    }
    let answer = session.run(&format!(
        "SELECT count(*) FROM pg_temp.event_batch b JOIN {} e ON e.event_id = b.event_id WHERE (e.topic_id, e.partition, \
         e.\"offset\") <> (b.topic_id, b.partition, b.\"offset\") AND e.event - 'timestamp' <> b.event - 'timestamp'",
        plan.events()
    ))?;
    let count = answer.rows.first().and_then(|row| row.first()?.as_ref()?.parse().ok());
    Ok(count.unwrap_or_default())
}

/// True if `table`, quoted, is the table of events or one of its partitions.
///
/// # Errors
/// As for [`Session::run`].
pub fn is_of_events(session: &mut Session, plan: &Plan<'_>, table: &str) -> Result<bool, PgError> {
    let regclass = |name: &str| format!("to_regclass({})", postgres_protocol::escape::escape_literal(name));
    let (events, found) = (regclass(&plan.events()), regclass(table));
    let answer =
        session.run(&format!("SELECT {found} = {events} OR pg_partition_root({found}) = {events}"))?;
    Ok(answer.rows.first().and_then(|row| row.first()?.as_deref()) == Some("t"))
}
