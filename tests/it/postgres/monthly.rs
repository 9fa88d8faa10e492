//! Tables with one partition per month: partitions are made in time, also over the end of a month.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::consumer::wait_ready;
use crate::postgres::{IDS, Tables};
use crate::support::kafka::shared;
use crate::support::postgres;
use crate::support::preload::Preload;
use crate::support::process::Program;
use crate::support::wait::{eventually, secs};

const MONTHLY: (&str, &str) = ("MONTHLY_PARTITIONS", "true");

#[test]
fn tables_partitioned_by_month_get_their_partitions() {
    let (topic, database) = (shared().topic(), postgres::shared().database());
    let tables = Tables::new(&topic, &database);
    topic.kcat(&["-P"], b"{\"a\": 1}\n{\"a\": 2}\n");
    let mut consumer = tables.start_ready(&[MONTHLY]);
    tables.wait_caught_up();
    assert!(consumer.terminate(secs(60)).success());
    tables.audit();
    assert_eq!(database.number("SELECT count(*) FROM pg_inherits WHERE inhparent = 'events'::regclass"), 2);
    let this_month = "SELECT tableoid::regclass::text = to_char(now() AT TIME ZONE 'UTC', '\"events_\"YYYY_MM') FROM events";
    assert_eq!(database.sql(&format!("{this_month} LIMIT 1")), "t");
}

#[test]
fn in_monthly_partitions_an_id_is_unique_within_its_month() {
    let (topic, database) = (shared().topic_with(1, &[]), postgres::shared().database());
    let tables = Tables::new(&topic, &database);
    let mut consumer = tables.start_ready(&[IDS, MONTHLY]);
    topic.kcat(&["-P"], b"{\"event_id\": 1}\n{\"event_id\": 1}\n{\"event_id\": 2}\n");
    tables.wait_caught_up();
    assert_eq!(database.number("SELECT count(*) FROM events"), 2);
    assert!(consumer.stderr().contains("only if its id is in the same partition"), "{}", consumer.stderr());
    assert!(consumer.terminate(secs(60)).success());
}

/// Ids that are switched on later need an index in each partition that still gets rows.
#[test]
fn partitions_without_a_unique_index_end_the_start() {
    let (topic, database) = (shared().topic_with(1, &[]), postgres::shared().database());
    let tables = Tables::new(&topic, &database);
    topic.kcat(&["-P"], b"{\"event_id\": 1}\n");
    let mut consumer = tables.start_ready(&[MONTHLY]);
    tables.wait_caught_up();
    assert!(consumer.terminate(secs(60)).success());
    database.sql(
        "CREATE TABLE events_2020_01 PARTITION OF events FOR VALUES FROM ('2020-01-01') TO ('2020-02-01')",
    );
    for left in [2, 1] {
        let (code, said) = tables.fails(&[IDS, MONTHLY]);
        let statements: Vec<&str> =
            said.rsplit_once(": ").expect("the way out").1.trim().split("; ").collect();
        assert!(code == Some(2) && statements.len() == left, "{code:?} {said}");
        database.sql(statements[0]);
    }
    let mut consumer = tables.start_ready(&[IDS, MONTHLY]);
    topic.kcat(&["-P"], b"{\"event_id\": 1}\n{\"event_id\": 2}\n{\"event_id\": 2}\n");
    tables.wait_caught_up();
    // The first one was written without its id.
    assert_eq!(database.number("SELECT count(event_id) FROM events"), 2);
    assert!(consumer.terminate(secs(60)).success());
}

/// A partition has the generated columns of the table. One that is needed next month may be made later.
#[test]
fn a_partition_fits_the_table_and_the_next_one_may_fail() {
    let (topic, database) = (shared().topic_with(1, &[]), postgres::shared().database());
    let printed = Program::consumer().args(&["--create-tables", "--monthly-partitions"]).run(secs(60)).stdout;
    database.sql(&printed);
    database.sql(
        "ALTER TABLE events ADD COLUMN kind text GENERATED ALWAYS AS (event->>'kind') STORED; \
         DO $$ BEGIN EXECUTE 'CREATE TABLE events_' || to_char(date_trunc('month', now() AT TIME ZONE 'UTC') + interval '1 month', \
         'YYYY_MM') || ' (other int)'; END $$",
    );
    let tables = Tables::new(&topic, &database);
    topic.kcat(&["-P"], b"{\"kind\": \"a\"}\n");
    let mut consumer = tables.start_ready(&[MONTHLY]);
    tables.wait_caught_up();
    topic.kcat(&["-P"], b"{\"kind\": \"b\"}\n");
    tables.wait_caught_up();
    assert_eq!(database.sql("SELECT string_agg(kind, ' ' ORDER BY kind) FROM events"), "a b");
    let warnings = consumer.stderr().matches("cannot create the partition").count();
    assert_eq!(warnings, 1, "{}", consumer.stderr());
    assert!(consumer.terminate(secs(60)).success());
}

/// The server may be another one, or restored, after each connection.
#[test]
fn a_partition_that_is_gone_after_a_reconnect_is_made_again() {
    let (topic, database) = (shared().topic_with(1, &[]), postgres::shared().database());
    let tables = Tables::new(&topic, &database);
    let mut consumer = tables.start_ready(&[MONTHLY]);
    topic.kcat(&["-P"], b"{\"a\": 1}\n");
    tables.wait_caught_up();
    database.sql(
        "DO $$ BEGIN EXECUTE 'DROP TABLE events_' || to_char(now() AT TIME ZONE 'UTC', 'YYYY_MM'); END $$; \
         SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE \
         'event-consumer%'",
    );
    topic.kcat(&["-P"], b"{\"a\": 2}\n");
    tables.wait_caught_up();
    assert_eq!(database.sql("SELECT event->>'a' FROM events"), "2");
    assert!(consumer.terminate(secs(60)).success());
}

/// The first transaction after a start has rows of two months, so both partitions are missing.
#[test]
fn a_batch_over_the_end_of_a_month_gets_both_partitions() {
    let (topic, database) = (shared().topic_with(1, &[]), postgres::shared().database());
    let tables = Tables::new(&topic, &database);
    let preload = Preload::build();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    // Some time before and after 2031-01-01.
    let before = Duration::from_secs(1_924_992_000 - 86_400) - now;
    preload.shift_clock(before);
    let settings = [MONTHLY, ("EVENT_ECHO", "all"), ("DESTINATION_COMMIT_MS", "60000")];
    let mut consumer = preload.attach(tables.program(&settings)).start();
    wait_ready(&mut consumer);
    for (number, shift) in [(1, before), (2, before + Duration::from_secs(2 * 86_400))] {
        preload.shift_clock(shift);
        topic.kcat(&["-P"], format!("{{\"number\": {number}}}\n").as_bytes());
        let shown = format!("{{\"number\": {number}");
        eventually(secs(50), "it is staged", || consumer.stdout().contains(&shown));
    }
    assert_eq!(tables.covered(), 0, "they wait for others");
    assert!(consumer.terminate(secs(60)).success());
    let months = "SELECT string_agg(tableoid::regclass::text, ' ' ORDER BY event->>'number') FROM events";
    assert_eq!(database.sql(months), "events_2030_12 events_2031_01");
}
