//! Events that the database does not accept: they are in `event_rejects`, and all others are in `events`.

use crate::consumer::{metric, wait_problem};
use crate::postgres::Tables;
use crate::support::kafka::shared;
use crate::support::postgres;
use crate::support::wait::{eventually, secs};

/// Good events around bad ones, at several places of a batch.
#[test]
fn a_row_that_jsonb_refuses_in_the_middle_of_a_batch_is_set_aside() {
    let (topic, database) = (shared().topic_with(1, &[]), postgres::shared().database());
    let tables = Tables::new(&topic, &database);
    let deep = format!("{{\"deep\": {}1{}}}", "[".repeat(120), "]".repeat(120));
    let mut lines = Vec::new();
    for number in 0..3000 {
        lines.push(match number {
            // Known to be refused, and found only by the database.
            0 | 1500 => format!(r#"{{"n": {number}, "s": "a\u0000b"}}"#),
            7 | 8 | 9 | 1501 | 2999 => format!(r#"{{"n": {number}, "huge": 1e400000}}"#),
            100 => deep.clone(),
            101 => format!(r#"{{"n": {number}, "text": "\\u0000 \ud83d\ude00", "e": 1e400}}"#),
            _ => format!(r#"{{"n": {number}}}"#),
        });
    }
    topic.kcat(&["-P"], (lines.join("\n") + "\n").as_bytes());
    let mut consumer = tables.start_ready(&[]);
    tables.wait_caught_up();
    tables.audit_places(3000);
    assert_eq!(database.number("SELECT count(*) FROM event_rejects WHERE reason = 'refused_by_database'"), 7);
    assert_eq!(database.number("SELECT count(*) FROM events"), 2993);
    let kept =
        database.sql("SELECT convert_from(value, 'UTF8') FROM event_rejects ORDER BY \"offset\" LIMIT 2");
    assert_eq!(kept, format!("{}\n{}", lines[0], lines[7]));
    assert_eq!(
        metric(&mut consumer, r#"pipeline_consumer_rejected_total{reason="refused_by_database"}"#),
        7.0
    );
    assert!(consumer.terminate(secs(60)).success());
}

/// A rule of the operator's own that refuses most rows costs time, but no event.
#[test]
fn rows_that_a_constraint_or_a_trigger_refuses_are_set_aside_too() {
    let (topic, database) = (shared().topic_with(1, &[]), postgres::shared().database());
    let tables = Tables::new(&topic, &database);
    let mut consumer = tables.start_ready(&[]);
    database.sql(
        "ALTER TABLE events ADD CONSTRAINT even CHECK ((event->>'n')::int % 2 = 0); \
         CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
         IF NEW.event->>'n' = '4' THEN RAISE EXCEPTION 'not four'; END IF; RETURN NEW; END $$; \
         CREATE TRIGGER refuse BEFORE INSERT ON events FOR EACH ROW EXECUTE FUNCTION refuse(); \
         CREATE FUNCTION refuse_late() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
         IF NEW.event->>'n' = '6' THEN RAISE EXCEPTION 'not six'; END IF; RETURN NULL; END $$; \
         CREATE CONSTRAINT TRIGGER late AFTER INSERT ON events DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION \
         refuse_late()",
    );
    let lines: String = (0..300).map(|number| format!("{{\"n\": {number}}}\n")).collect();
    topic.kcat(&["-P"], lines.as_bytes());
    tables.wait_caught_up();
    tables.audit();
    assert_eq!(database.number("SELECT count(*) FROM event_rejects"), 152);
    assert_eq!(database.sql("SELECT message ~ 'not four' FROM event_rejects WHERE \"offset\" = 4"), "t");
    assert_eq!(database.sql("SELECT message ~ 'not six' FROM event_rejects WHERE \"offset\" = 6"), "t");
    assert!(consumer.terminate(secs(60)).success());
}

/// What is wrong with the table, not with a row, is waited for.
#[test]
fn a_table_that_accepts_no_row_is_waited_for() {
    let (topic, database) = (shared().topic_with(1, &[]), postgres::shared().database());
    let tables = Tables::new(&topic, &database);
    let mut consumer = tables.start_ready(&[]);
    database.sql("ALTER TABLE events ADD COLUMN needed int NOT NULL");
    topic.kcat(&["-P"], b"{\"a\": 1}\n");
    wait_problem(&mut consumer, "23502");
    database.sql("ALTER TABLE events DROP COLUMN needed");
    tables.wait_caught_up();
    database.sql("ALTER TABLE events RENAME TO away");
    topic.kcat(&["-P"], b"{\"a\": 2}\n");
    wait_problem(&mut consumer, "does not exist");
    database.sql("ALTER TABLE away RENAME TO events");
    tables.wait_caught_up();
    tables.audit();
    assert_eq!(database.number("SELECT count(*) FROM event_rejects"), 0);
    assert!(consumer.terminate(secs(60)).success());
}

/// One slow row for each statement: with fewer rows per statement, each is fast enough.
#[test]
fn a_statement_that_takes_too_long_is_tried_with_fewer_rows() {
    let (topic, database) = (shared().topic_with(1, &[]), postgres::shared().database());
    let tables = Tables::new(&topic, &database);
    let mut consumer = tables.start_ready(&[("DESTINATION_TIMEOUT_MS", "1500")]);
    database.sql(
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.1); RETURN NEW; END $$; \
         CREATE TRIGGER slow BEFORE INSERT ON events FOR EACH ROW EXECUTE FUNCTION slow()",
    );
    let lines: String = (0..60).map(|number| format!("{{\"n\": {number}}}\n")).collect();
    topic.kcat(&["-P"], lines.as_bytes());
    tables.wait_caught_up();
    assert!(consumer.stderr().contains("57014"), "{}", consumer.stderr());
    tables.audit();
    // It worked in spite of the limit, so nothing is left of it.
    eventually(secs(60), "ready", || crate::consumer::ready_status(&mut consumer).0 == 200);
    assert!(consumer.terminate(secs(60)).success());
}

/// `json` keeps the bytes, so it takes what `jsonb` refuses.
#[test]
fn a_table_with_json_keeps_every_event_as_it_is() {
    let (topic, database) = (shared().topic_with(1, &[]), postgres::shared().database());
    let tables = Tables::new(&topic, &database);
    let printed =
        crate::support::process::Program::consumer().args(&["--create-tables"]).run(secs(60)).stdout;
    database.sql(&printed.replace("event jsonb", "event json"));
    let lines = [r#"{"b":1,  "a": "\u0000", "a": 1e400000}"#, r#"{"a":1.50}"#];
    topic.kcat(&["-P"], (lines.join("\n") + "\n").as_bytes());
    let mut consumer = tables.start_ready(&[("CREATE_TABLES", "off")]);
    tables.wait_caught_up();
    assert_eq!(database.sql("SELECT event FROM events ORDER BY \"offset\""), lines.join("\n"));
    assert!(consumer.terminate(secs(60)).success());
}
