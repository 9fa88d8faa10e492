//! What is in the tables after an ordinary run, and what the group and the pages say.

use serde_json::Value;

use crate::consumer::load::Load;
use crate::consumer::{metric, wait_metric};
use crate::postgres::Tables;
use crate::support::kafka::shared;
use crate::support::postgres;
use crate::support::process::Program;
use crate::support::wait::{eventually, secs};

#[test]
fn every_record_is_in_a_table_once_over_two_lives() {
    let (topic, database) = (shared().topic(), postgres::shared().database());
    let tables = Tables::new(&topic, &database);
    topic.kcat(&["-P"], b"{\"a\": 1}\nnot json\n{\"b\": \"x\\\\y\\\"z\", \"c\": [1, 2.50]}\n");
    let mut consumer = tables.start_ready(&[]);
    tables.wait_caught_up();
    wait_metric(&mut consumer, "pipeline_postgres_events_total", 2.0);
    wait_metric(&mut consumer, r#"pipeline_consumer_rejected_total{reason="not_json"}"#, 1.0);
    assert!(consumer.terminate(secs(60)).success());
    topic.kcat(&["-P"], b"{\"d\": 1}\n\xff\n");
    let mut consumer = tables.start_ready(&[]);
    tables.wait_caught_up();
    tables.audit();
    assert_eq!(database.sql("SELECT DISTINCT reason FROM event_rejects ORDER BY 1"), "not_json\nnot_utf8");
    let now = database.sql("SELECT bool_and(abs(extract(epoch FROM now() - logged_at)) < 3600) FROM events");
    assert_eq!(now, "t", "logged_at is the time of writing");
    assert!(consumer.terminate(secs(60)).success());
}

#[test]
fn a_load_is_covered_in_few_transactions_and_the_group_follows() {
    let (topic, database) = (shared().topic(), postgres::shared().database());
    let tables = Tables::new(&topic, &database);
    let mut consumer = tables.start_ready(&[]);
    let load = Load::start(&topic);
    tables.wait_progress(2000);
    let acknowledged = load.finish();
    tables.wait_caught_up();
    let transactions = metric(&mut consumer, "pipeline_postgres_transaction_duration_seconds_count");
    assert!(
        transactions > 0.0 && transactions < acknowledged as f64 / 50.0,
        "{transactions} for {acknowledged}"
    );
    wait_metric(&mut consumer, "pipeline_postgres_connections_total", 1.0);
    assert!(consumer.terminate(secs(60)).success());
    tables.audit();
    let last = consumer.stderr().lines().rfind(|line| line.contains("stopped at")).map(str::to_owned);
    let offsets: i64 = (0..3).map(|partition| topic.end_offset(partition)).sum();
    assert_eq!(database.number("SELECT sum(next_offset) FROM event_offsets"), offsets);
    assert!(last.is_some_and(|line| line.contains("partition 0 offset")), "{}", consumer.stderr());
}

#[test]
fn new_partitions_are_read_and_have_their_rows() {
    let (topic, database) = (shared().topic_with(1, &[]), postgres::shared().database());
    let tables = Tables::new(&topic, &database);
    let mut consumer = tables.start_ready(&[("KAFKA_METADATA_MAX_AGE_MS", "200")]);
    topic.add_partitions(3);
    topic.kcat(&["-P", "-p", "2"], b"{\"a\": 1}\n");
    topic.kcat(&["-P", "-p", "0"], b"{\"a\": 2}\n");
    tables.wait_caught_up();
    assert!(consumer.terminate(secs(60)).success());
    let mut consumer = tables.start_ready(&[]);
    topic.kcat(&["-P", "-p", "1"], b"{\"a\": 3}\n");
    tables.wait_caught_up();
    assert!(consumer.terminate(secs(60)).success());
    tables.audit();
}

/// A topic that was deleted and created again has other ids, so its offsets are other rows.
#[test]
fn a_recreated_topic_is_kept_apart_from_the_one_before() {
    let (topic, database) = (shared().topic_with(1, &[]), postgres::shared().database());
    let tables = Tables::new(&topic, &database);
    topic.kcat(&["-P"], b"{\"life\": 1}\n{\"life\": 1, \"n\": 2}\n");
    let mut consumer = tables.start_ready(&[]);
    tables.wait_caught_up();
    assert!(consumer.terminate(secs(60)).success());
    topic.delete();
    let topic = shared().topic_named(&topic.name, 1);
    topic.kcat(&["-P"], b"{\"life\": 2}\n");
    let (code, said) = tables.fails(&[]);
    assert_eq!(code, Some(65), "{said}");
    let mut consumer = tables.start_ready(&[("KAFKA_AUTO_OFFSET_RESET", "earliest")]);
    eventually(secs(120), "the new topic is read", || {
        database.number("SELECT count(*) FROM events WHERE event->>'life' = '2'") == 1
    });
    assert!(consumer.terminate(secs(60)).success());
    assert_eq!(database.number("SELECT count(*) FROM events"), 3);
    assert_eq!(database.number("SELECT count(DISTINCT topic_id) FROM events"), 2);
    assert_eq!(database.number("SELECT next_offset FROM event_offsets"), 1);
}

#[test]
fn the_statements_are_printed_and_work() {
    let printed = Program::consumer().args(&["--create-tables"]).run(secs(60));
    assert!(printed.status.success(), "{}", printed.stderr);
    let database = postgres::shared().database();
    database.sql(&printed.stdout);
    assert!(database.has_tables());
    let topic = shared().topic();
    let tables = Tables::new(&topic, &database);
    topic.kcat(&["-P"], b"{\"big\": 12345678901234567890.5}\n");
    let mut consumer = tables.start_ready(&[("CREATE_TABLES", "off")]);
    tables.wait_caught_up();
    assert!(consumer.terminate(secs(60)).success());
    let event: Value = serde_json::from_str(&database.sql("SELECT event FROM events")).expect("JSON");
    assert!(event["big"].is_number());
}
