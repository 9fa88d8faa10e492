//! Repeated events: with `EVENT_ID_FIELD`, a unique index drops them, however late they come.

use crate::consumer::{metric, wait_metric};
use crate::postgres::Tables;
use crate::support::kafka::shared;
use crate::support::postgres;
use crate::support::wait::secs;

const IDS: (&str, &str) = ("EVENT_ID_FIELD", "event_id");

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
    let (code, said) = tables.fails(&[IDS, ("CREATE_TABLES", "off")]);
    assert!(code == Some(2) && said.contains("CREATE UNIQUE INDEX CONCURRENTLY"), "{code:?} {said}");
    let statement = said.rsplit_once(": ").expect("the way out").1.trim().to_owned();
    database.sql(&statement);
    let mut consumer = tables.start_ready(&[IDS, ("CREATE_TABLES", "off")]);
    topic.kcat(&["-P"], b"{\"event_id\": 1}\n{\"event_id\": 1}\n");
    tables.wait_caught_up();
    assert_eq!(database.number("SELECT count(*) FROM events"), 1);
    assert!(consumer.terminate(secs(60)).success());
}

#[test]
fn in_monthly_partitions_an_id_is_unique_within_its_month() {
    let (topic, database) = (shared().topic_with(1, &[]), postgres::shared().database());
    let tables = Tables::new(&topic, &database);
    let mut consumer = tables.start_ready(&[IDS, ("MONTHLY_PARTITIONS", "true")]);
    topic.kcat(&["-P"], b"{\"event_id\": 1}\n{\"event_id\": 1}\n{\"event_id\": 2}\n");
    tables.wait_caught_up();
    assert_eq!(database.number("SELECT count(*) FROM events"), 2);
    assert!(consumer.stderr().contains("only if its id is in the same partition"), "{}", consumer.stderr());
    assert!(consumer.terminate(secs(60)).success());
}
