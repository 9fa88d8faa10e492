//! Repeated events: with `EVENT_ID_FIELD`, a unique index drops them, however late they come.

use crate::consumer::{metric, wait_metric};
use crate::postgres::{IDS, Tables};
use crate::support::kafka::shared;
use crate::support::postgres;
use crate::support::wait::secs;

#[test]
fn a_repeated_event_is_dropped_and_counted_over_restarts() {
    let (topic, database) = (shared().topic_with(1, &[]), postgres::shared().database());
    let tables = Tables::new(&topic, &database);
    let mut consumer = tables.start_ready(&[IDS]);
    topic.kcat(
        &["-P"],
        concat!(
            r#"{"a": 1, "event_id": "x", "timestamp": "2026-11-26T00:00:00.000Z"}"#,
            "\n",
            r#"{"a": 1, "event_id": "x", "timestamp": "2026-11-27T00:00:00.000Z"}"#,
            "\n",
            r#"{"a": 2, "event_id": "x"}"#,
            "\n",
            r#"{"a": 3, "event_id": 7}"#,
            "\n",
            r#"{"a": 4}"#,
            "\n",
            r#"{"a": 4}"#,
            "\n",
            r#"{"a": 5, "event_id": "F81D4FAE-7DEC-11D0-A765-00A0C91E6BF6"}"#,
            "\n",
            r#"{"a": 5, "event_id": "y", "bad": 1e400000}"#,
            "\n"
        )
        .as_bytes(),
    );
    tables.wait_caught_up();
    let dropped = |reason: &str| format!("pipeline_consumer_duplicates_total{{reason=\"{reason}\"}}");
    wait_metric(&mut consumer, &dropped("repeated"), 1.0);
    wait_metric(&mut consumer, &dropped("differs"), 1.0);
    assert!(consumer.terminate(secs(60)).success());
    let mut consumer = tables.start_ready(&[IDS]);
    topic.kcat(
        &["-P"],
        b"{\"a\": 5, \"event_id\": \"f81d4fae-7dec-11d0-a765-00a0c91e6bf6\"}\n{\"a\": 3, \"event_id\": \"7\"}\n",
    );
    tables.wait_caught_up();
    assert_eq!(metric(&mut consumer, &dropped("differs")), 2.0, "the same ids, spelled in another way");
    let values = database.sql("SELECT event->>'a' FROM events ORDER BY \"offset\"");
    assert_eq!(values, "1\n3\n4\n4\n5");
    assert_eq!(database.number("SELECT count(*) FROM event_rejects"), 1);
    assert!(consumer.terminate(secs(60)).success());
}

#[test]
fn without_a_unique_index_the_start_says_how_to_make_it() {
    let (topic, database) = (shared().topic_with(1, &[]), postgres::shared().database());
    let tables = Tables::new(&topic, &database);
    let mut consumer = tables.start_ready(&[]);
    assert!(consumer.terminate(secs(60)).success());
    // `CREATE_TABLES=run` makes no index either: on a table with events it would take long and hold up others.
    let (code, said) = tables.fails(&[IDS]);
    assert!(code == Some(2) && said.contains("CREATE UNIQUE INDEX CONCURRENTLY"), "{code:?} {said}");
    let statement = said.rsplit_once(": ").expect("the way out").1.trim().to_owned();
    database.sql(&statement);
    let mut consumer = tables.start_ready(&[IDS]);
    topic.kcat(&["-P"], b"{\"event_id\": 1}\n{\"event_id\": 1}\n");
    tables.wait_caught_up();
    assert_eq!(database.number("SELECT count(*) FROM events"), 1);
    assert!(consumer.terminate(secs(60)).success());
}

/// Events with ids go through a temporary table, which knows nothing of the operator's columns.
#[test]
fn columns_of_the_operator_get_their_defaults() {
    let (topic, database) = (shared().topic_with(1, &[]), postgres::shared().database());
    let tables = Tables::new(&topic, &database);
    let mut consumer = tables.start_ready(&[IDS]);
    topic.kcat(&["-P"], b"{\"event_id\": 1, \"kind\": \"a\"}\n");
    tables.wait_caught_up();
    database.sql(
        "ALTER TABLE events ADD COLUMN seen int NOT NULL DEFAULT 7, ADD COLUMN number bigint GENERATED ALWAYS AS IDENTITY, \
         ADD COLUMN kind text NOT NULL GENERATED ALWAYS AS (event->>'kind') STORED",
    );
    topic.kcat(&["-P"], b"{\"event_id\": 2, \"kind\": \"b\"}\n");
    tables.wait_caught_up();
    assert!(consumer.terminate(secs(60)).success());
    let mut consumer = tables.start_ready(&[IDS]);
    topic.kcat(&["-P"], b"{\"event_id\": 3, \"kind\": \"c\"}\n{\"event_id\": 1, \"kind\": \"a\"}\n");
    tables.wait_caught_up();
    assert_eq!(database.sql("SELECT seen, number, kind FROM events ORDER BY kind"), "7|1|a\n7|2|b\n7|3|c");
    assert!(consumer.terminate(secs(60)).success());
}
