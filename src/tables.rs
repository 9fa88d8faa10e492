//! The statements that create the tables of a PostgreSQL destination. Pure.

use std::fmt::Write;

use time::{Date, Month, OffsetDateTime};

/// A name in statements.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A table of `schema`, quoted.
pub fn named(schema: &str, table: &str) -> String {
    format!("{}.{}", quoted(schema), quoted(table))
}

/// Creates everything that is missing: `monthly` partitions the events by month, `ids` makes event ids unique.
pub fn create_all(schema: &str, monthly: bool, ids: bool) -> String {
    let mut sql = String::new();
    if schema != "public" {
        let _ = writeln!(sql, "{};", create_schema(schema));
    }
    for statement in create_tables(schema, monthly, ids) {
        let _ = writeln!(sql, "{statement};");
    }
    sql
}

/// Creates the schema.
pub fn create_schema(schema: &str) -> String {
    format!("CREATE SCHEMA IF NOT EXISTS {}", quoted(schema))
}

/// Creates the tables and indexes that are missing, one statement each.
pub fn create_tables(schema: &str, monthly: bool, ids: bool) -> Vec<String> {
    let (events, offsets) = (named(schema, "events"), named(schema, "event_offsets"));
    // A unique index of a partitioned table must contain the column by which it is partitioned.
    let (key, partitioned) = if monthly {
        ("topic_id, partition, \"offset\", logged_at", " PARTITION BY RANGE (logged_at)")
    } else {
        ("topic_id, partition, \"offset\"", "")
    };
    let mut statements = vec![
        format!(
            "CREATE TABLE IF NOT EXISTS {events} (\n    topic_id text COLLATE \"C\" NOT NULL,\n    \
             partition integer NOT NULL,\n    \"offset\" bigint NOT NULL,\n    logged_at timestamptz NOT NULL,\n    \
             event jsonb NOT NULL,\n    event_id text COLLATE \"C\",\n    PRIMARY KEY ({key})\n){partitioned}"
        ),
        format!(
            "CREATE TABLE IF NOT EXISTS {offsets} (\n    topic text NOT NULL,\n    partition integer NOT NULL,\n    \
             topic_id text,\n    history integer NOT NULL,\n    next_offset bigint NOT NULL,\n    trail json NOT NULL,\n    \
             log_id text NOT NULL,\n    claim bigint NOT NULL,\n    writer text NOT NULL,\n    shard text NOT NULL,\n    \
             updated_at timestamptz NOT NULL DEFAULT now(),\n    PRIMARY KEY (topic, partition)\n) WITH (fillfactor = 50)"
        ),
        format!(
            "CREATE TABLE IF NOT EXISTS {} (\n    topic_id text COLLATE \"C\" NOT NULL,\n    \
             partition integer NOT NULL,\n    \"offset\" bigint NOT NULL,\n    logged_at timestamptz NOT NULL,\n    \
             reason text NOT NULL,\n    message text NOT NULL,\n    value bytea NOT NULL,\n    \
             PRIMARY KEY (topic_id, partition, \"offset\")\n)",
            named(schema, "event_rejects")
        ),
    ];
    if ids && !monthly {
        statements.push(unique_ids("IF NOT EXISTS", "events", &events));
    }
    statements
}

/// Lets `user` do what the consumer does.
pub fn grants(schema: &str, user: &str) -> String {
    format!(
        "GRANT USAGE ON SCHEMA {} TO {user}; GRANT SELECT, INSERT ON {}, {} TO {user}; GRANT SELECT, INSERT, UPDATE ON {} \
         TO {user}",
        quoted(schema),
        named(schema, "events"),
        named(schema, "event_rejects"),
        named(schema, "event_offsets"),
        user = quoted(user),
    )
}

/// Lets `user` make temporary tables in `database`.
pub fn grant_temporary(database: &str, user: &str) -> String {
    format!("GRANT TEMPORARY ON DATABASE {} TO {}", quoted(database), quoted(user))
}

/// The statement that makes ids unique in a table with events; `how` is `IF NOT EXISTS` or `CONCURRENTLY`.
pub fn unique_ids(how: &str, table: &str, full_name: &str) -> String {
    format!("CREATE UNIQUE INDEX {how} {} ON {full_name} (event_id)", quoted(&format!("{table}_event_id")))
}

/// A month of UTC, with which a partition begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct MonthOf(Date);

impl MonthOf {
    /// The month of `unix_millis`.
    pub fn at(unix_millis: i64) -> Self {
        let time = OffsetDateTime::from_unix_timestamp(unix_millis.div_euclid(1000));
        Self(
            time.unwrap_or(OffsetDateTime::UNIX_EPOCH)
                .date()
                .replace_day(1)
                .expect("each month has a first day"),
        )
    }

    /// The month after it.
    pub fn next(self) -> Self {
        let month = self.0.month().next();
        let year = self.0.year() + i32::from(month == Month::January);
        Self(Date::from_calendar_date(year, month, 1).expect("each month has a first day"))
    }

    /// The name of its partition.
    pub fn table(self) -> String {
        format!("events_{:04}_{:02}", self.0.year(), u8::from(self.0.month()))
    }

    /// Creates its partition: as a table first, because attaching it locks out no reader of the others.
    pub fn create(self, schema: &str, ids: bool) -> Vec<String> {
        let (events, table) = (named(schema, "events"), named(schema, &self.table()));
        let mut statements = vec![format!(
            "CREATE TABLE IF NOT EXISTS {table} (LIKE {events} INCLUDING DEFAULTS INCLUDING GENERATED INCLUDING CONSTRAINTS \
             INCLUDING INDEXES)"
        )];
        if ids {
            statements.push(unique_ids("IF NOT EXISTS", &self.table(), &table));
        }
        statements.push(format!(
            "ALTER TABLE {events} ATTACH PARTITION {table} FOR VALUES FROM ('{} 00:00:00+00') TO ('{} 00:00:00+00')",
            self.0,
            self.next().0
        ));
        statements
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_month_is_followed_by_the_next_one() {
        let december = MonthOf::at(1_798_761_599_999);
        assert_eq!(
            (december.table().as_str(), december.next().table().as_str()),
            ("events_2026_12", "events_2027_01")
        );
        assert_eq!(MonthOf::at(1_798_761_600_000), december.next());
        let attach = december.create("a", true).pop().expect("a statement");
        assert!(
            attach.ends_with("FROM ('2026-12-01 00:00:00+00') TO ('2027-01-01 00:00:00+00')"),
            "{attach}"
        );
    }

    #[test]
    fn names_are_quoted() {
        let sql = create_all("my \"own\"", false, true);
        assert!(sql.contains("CREATE SCHEMA IF NOT EXISTS \"my \"\"own\"\"\";"), "{sql}");
        assert!(
            sql.contains(
                "INDEX IF NOT EXISTS \"events_event_id\" ON \"my \"\"own\"\"\".\"events\" (event_id);"
            ),
            "{sql}"
        );
        assert!(!create_all("public", true, true).contains("events_event_id"));
    }
}
