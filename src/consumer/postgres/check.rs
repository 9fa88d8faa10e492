//! Checks at a start that the tables are there, have the right columns, and may be used; creates them if wanted.

use crate::config::DestinationConfig;
use crate::consumer::destination::DestinationError;
use crate::consumer::postgres::connection::Row;
use crate::consumer::postgres::copy::EventType;
use crate::consumer::postgres::error::{Kind, PgError};
use crate::consumer::postgres::rows::Ids;
use crate::consumer::postgres::session::{Session, lock_class};
use crate::consumer::state::now_millis;
use crate::tables::{MonthOf, create_schema, create_tables, grant_temporary, grants, named, unique_ids};

use postgres_protocol::escape::escape_literal;

/// What the tables are like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Type of the column with the event.
    pub event: EventType,
    /// How repeated events are dropped, if they are.
    pub ids: Option<Ids>,
    /// Its partitions are one per month, and we create them.
    pub monthly: bool,
}

const TIME: &str = "timestamp with time zone";

/// Columns that rows are sent to, in binary form, with their types.
const EVENTS: [(&str, &str); 6] = [
    ("topic_id", "text"),
    ("partition", "integer"),
    ("offset", "bigint"),
    ("logged_at", TIME),
    ("event", "jsonb, json or text"),
    ("event_id", "text"),
];
const REJECTS: [(&str, &str); 7] = [
    ("topic_id", "text"),
    ("partition", "integer"),
    ("offset", "bigint"),
    ("logged_at", TIME),
    ("reason", "text"),
    ("message", "text"),
    ("value", "bytea"),
];
const OFFSETS: [(&str, &str); 3] = [("topic", "text"), ("partition", "integer"), ("next_offset", "bigint")];

/// Creates what is missing.
///
/// # Errors
/// See [`PgError`].
pub fn create(session: &mut Session, schema: &str, monthly: bool, ids: bool) -> Result<(), PgError> {
    let exists = format!("SELECT 1 FROM pg_namespace WHERE nspname = {}", escape_literal(schema));
    if session.run(&exists)?.rows.is_empty() {
        session.run(&create_schema(schema))?;
    }
    // An index on a table with events takes long and blocks its writers, so an operator chooses when.
    let events = escape_literal(&named(schema, "events"));
    let is_new = session.run(&format!("SELECT 1 WHERE to_regclass({events}) IS NULL"))?.rows.len() == 1;
    run_alone(session, schema, create_tables(schema, monthly, ids && is_new))
}

/// Runs the statements in one transaction, after those of other consumers that do the same.
fn run_alone(session: &mut Session, schema: &str, statements: Vec<String>) -> Result<(), PgError> {
    let lock = format!("SELECT pg_advisory_xact_lock({}, -2)", lock_class(schema, ""));
    let all = [vec!["BEGIN".into(), lock], statements, vec!["COMMIT".into()]].concat();
    session.run(&all.join("; ")).map(drop)
}

/// Checks the tables.
///
/// # Errors
/// Unusable, with the statements that help. Retryable if the server cannot be asked.
pub fn tables(
    session: &mut Session,
    settings: &DestinationConfig,
    user: &str,
    ids: bool,
) -> Result<Found, DestinationError> {
    let schema = &settings.schema;
    let failed = |error: PgError| match error {
        PgError::Sql(error) if error.kind() == Kind::Settings => DestinationError::Unusable(format!(
            "{error}; let the user use the tables: {}",
            grants(schema, user)
        )),
        error => error.at_start(),
    };
    let mut event = EventType::Jsonb;
    let mut is_partitioned = false;
    for (table, expected, rights) in [
        ("events", &EVENTS[..], "SELECT INSERT"),
        ("event_rejects", &REJECTS[..], "SELECT INSERT"),
        ("event_offsets", &OFFSETS[..], "SELECT INSERT UPDATE"),
    ] {
        let name = named(schema, table);
        let columns = session.run(&columns_of(&name)).map_err(failed)?.rows;
        check_columns(&name, &columns, expected, settings)?;
        if table == "events" {
            let is = |row: &Row, at: usize, name: &str| row.get(at).and_then(Option::as_deref) == Some(name);
            let column = columns.iter().find(|row| is(row, 0, "event"));
            let is_jsonb = column.is_some_and(|row| is(row, 1, "jsonb"));
            event = if is_jsonb { EventType::Jsonb } else { EventType::Text };
            is_partitioned = column.is_some_and(|row| is(row, 2, "p"));
        }
        for right in rights.split(' ') {
            let sql = format!("SELECT has_table_privilege({}, '{right}')", escape_literal(&name));
            let answer = session.run(&sql).map_err(failed)?;
            if answer.rows.first().and_then(|row| row.first()?.as_deref()) != Some("t") {
                return Err(DestinationError::Unusable(format!(
                    "user {user} has no right to {right} on {name}: {}",
                    grants(schema, user)
                )));
            }
        }
    }
    let monthly = is_partitioned && settings.monthly_partitions;
    let ids = match (ids, is_partitioned) {
        (false, _) => None,
        (true, true) => Some(Ids::Partition),
        (true, false) => Some(Ids::Table),
    };
    if ids.is_some() {
        check_ids(session, schema, user, monthly)?;
    }
    if ids == Some(Ids::Partition) {
        log::warn!(
            "{} is partitioned, so an event is dropped as a repeated one only if its id is in the same partition",
            named(schema, "events")
        );
    }
    Ok(Found { event, ids, monthly })
}

/// Checks what repeated events are found with: unique indexes, and a temporary table.
fn check_ids(session: &mut Session, schema: &str, user: &str, monthly: bool) -> Result<(), DestinationError> {
    let missing = session.run(&without_unique_ids(schema, monthly)).map_err(PgError::at_start)?.rows;
    let text = |row: &Row, at: usize| row.get(at).cloned().flatten().unwrap_or_default();
    let (names, statements): (Vec<String>, Vec<String>) = (missing.iter())
        .map(|row| (named(&text(row, 0), &text(row, 1)), text(row, 1)))
        .map(|(name, table)| (name.clone(), unique_ids("CONCURRENTLY", &table, &name)))
        .unzip();
    if !statements.is_empty() {
        return Err(DestinationError::Unusable(format!(
            "EVENT_ID_FIELD is set, but there is no unique index on event_id in {}: {}",
            names.join(", "),
            statements.join("; ")
        )));
    }
    let sql = "SELECT has_database_privilege(current_database(), 'TEMPORARY'), current_database()";
    let answer = session.run(sql).map_err(PgError::at_start)?;
    match answer.rows.first() {
        Some(row) if text(row, 0) == "t" => Ok(()),
        row => Err(DestinationError::Unusable(format!(
            "EVENT_ID_FIELD is set, but user {user} has no right to make temporary tables, through which events with ids \
             go: {}",
            grant_temporary(&row.map(|row| text(row, 1)).unwrap_or_default(), user)
        ))),
    }
}

fn columns_of(name: &str) -> String {
    format!(
        "SELECT a.attname, format_type(a.atttypid, -1), c.relkind FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid \
         WHERE c.oid = to_regclass({}) AND a.attnum > 0 AND NOT a.attisdropped",
        escape_literal(name)
    )
}

fn check_columns(
    name: &str,
    columns: &[Row],
    expected: &[(&str, &str)],
    settings: &DestinationConfig,
) -> Result<(), DestinationError> {
    if columns.is_empty() {
        let monthly = if settings.monthly_partitions { " MONTHLY_PARTITIONS=true" } else { "" };
        return Err(DestinationError::Unusable(format!(
            "there is no table {name}; set CREATE_TABLES=run to create the tables at the start, or CREATE_TABLES=print{monthly} \
             to see the statements"
        )));
    }
    for (column, types) in expected {
        let found = columns.iter().find(|row| row.first().and_then(Option::as_deref) == Some(*column));
        let found = found.and_then(|row| row.get(1)?.as_deref()).unwrap_or("missing");
        if !types.split([',', ' ']).any(|one| one == found) && *types != found {
            return Err(DestinationError::Unusable(format!(
                "column \"{column}\" of {name} is {found}, but must be {types}; CREATE_TABLES=print shows the tables as they \
                 must be"
            )));
        }
    }
    Ok(())
}

/// Finds the table, or those of its partitions, whose ids are not unique. Months that are over get no rows any more.
fn without_unique_ids(schema: &str, monthly: bool) -> String {
    let events = format!("to_regclass({})", escape_literal(&named(schema, "events")));
    let since = if monthly { MonthOf::at(now_millis()).table() } else { String::new() };
    format!(
        "SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid IN (SELECT \
         {events} UNION SELECT relid FROM pg_partition_tree({events})) AND c.relkind = 'r' AND c.relname >= {} AND NOT \
         EXISTS (SELECT 1 FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0] WHERE \
         i.indrelid = c.oid AND i.indisunique AND i.indisvalid AND i.indnkeyatts = 1 AND i.indpred IS NULL AND i.indexprs \
         IS NULL AND a.attname = 'event_id') ORDER BY 1, 2",
        escape_literal(&since)
    )
}

/// Creates the partitions of the oldest and the newest row that do not exist, and the one of the month after, which is not
/// needed yet.
///
/// # Errors
/// See [`PgError`].
pub fn months(
    session: &mut Session,
    schema: &str,
    (oldest, newest): (MonthOf, MonthOf),
    ids: bool,
) -> Result<(), PgError> {
    create_month(session, schema, oldest, ids)?;
    create_month(session, schema, newest, ids)?;
    let next = newest.next();
    match create_month(session, schema, next, ids) {
        Err(PgError::Sql(error)) if session.recover() => {
            log::warn!("cannot create the partition {}, which is needed next month: {error}", next.table());
            Ok(())
        }
        done => done,
    }
}

fn create_month(session: &mut Session, schema: &str, month: MonthOf, ids: bool) -> Result<(), PgError> {
    let attached = session.run(&format!(
        "SELECT 1 FROM pg_inherits WHERE inhparent = to_regclass({}) AND inhrelid = to_regclass({})",
        escape_literal(&named(schema, "events")),
        escape_literal(&named(schema, &month.table()))
    ))?;
    if attached.rows.is_empty() {
        run_alone(session, schema, month.create(schema, ids))?;
        log::info!("created the partition {}", month.table());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::config::ConsumerConfig;

    #[test]
    fn columns_of_another_type_are_refused() {
        let settings = ConsumerConfig::try_parse_from(["consumer"]).expect("parses").destination;
        let columns = |event: &str| -> Vec<Row> {
            let types = ["text", "integer", "bigint", TIME, event, "text"];
            EVENTS
                .iter()
                .zip(types)
                .map(|((name, _), kind)| vec![Some((*name).into()), Some(kind.into())])
                .collect()
        };
        for event in ["jsonb", "json", "text"] {
            assert_eq!(check_columns("events", &columns(event), &EVENTS, &settings), Ok(()), "{event}");
        }
        for columns in [columns("xml"), columns("jsonb")[1..].to_vec(), Vec::new()] {
            assert!(matches!(
                check_columns("events", &columns, &EVENTS, &settings),
                Err(DestinationError::Unusable(_))
            ));
        }
    }
}
