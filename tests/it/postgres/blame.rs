//! A row that fails alone is set aside; where no row is accepted, the table is to blame, and the consumer waits.

use crate::consumer::{metric, wait_problem};
use crate::postgres::{IDS, Tables};
use crate::support::kafka::shared;
use crate::support::postgres;
use crate::support::wait::{eventually, secs};

/// Errors with which a trigger refuses a row, by the number in the event.
const CODES: [&str; 7] =
    ["check_violation", "not_null_violation", "EV001", "38000", "22012", "53200", "XX000"];

/// Creates a trigger that does `body` before each row.
fn trigger(body: &str) -> String {
    format!(
        "CREATE OR REPLACE FUNCTION ours() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body} RETURN NEW; END $$; CREATE OR \
         REPLACE TRIGGER ours BEFORE INSERT ON events FOR EACH ROW EXECUTE FUNCTION ours()"
    )
}

/// Whatever the code, a row is to blame if others are accepted: beside it in the batch, or before it in the table.
#[test]
fn a_row_is_set_aside_for_any_error_of_a_trigger() {
    let cases: [&[(&str, &str)]; 2] = [&[], &[IDS]];
    for settings in cases {
        let (topic, database) = (shared().topic_with(1, &[]), postgres::shared().database());
        let tables = Tables::new(&topic, &database);
        let mut consumer = tables.start_ready(settings);
        let raise: String = (CODES.iter().enumerate())
            .map(|(n, code)| format!("IF NEW.event->>'n' = '{n}' THEN RAISE EXCEPTION 'not {n}' USING ERRCODE = '{code}'; END IF; "))
            .collect();
        // Errors of statements in it, about another table.
        let more = "IF NEW.event->>'n' = '7' THEN INSERT INTO other VALUES (NULL); END IF; \
                    IF NEW.event->>'n' IN ('8', '9') THEN INSERT INTO other VALUES (1); END IF;";
        database.sql(&format!(
            "CREATE TABLE other (n int PRIMARY KEY); {}; ALTER TABLE events ADD COLUMN kind text NOT NULL GENERATED ALWAYS \
             AS (event->>'kind') STORED",
            trigger(&(raise + more))
        ));
        let line = |n: usize| format!("{{\"n\": {n}, \"kind\": \"a\"}}\n");
        let mut lines: Vec<String> = (0..40).map(line).collect();
        lines[20] = "{\"n\": 20}\n".into();
        topic.kcat(&["-P"], lines.concat().as_bytes());
        tables.wait_caught_up();
        let rejects = || {
            database.sql("SELECT string_agg(\"offset\"::text, ' ' ORDER BY \"offset\") FROM event_rejects")
        };
        assert_eq!(rejects(), "0 1 2 3 4 5 6 7 9 20", "{settings:?}");
        // Alone in its batch.
        topic.kcat(&["-P"], line(2).as_bytes());
        tables.wait_caught_up();
        assert_eq!(rejects(), "0 1 2 3 4 5 6 7 9 20 40", "{settings:?}");
        tables.audit();
        assert!(consumer.terminate(secs(60)).success());
    }
}

/// The same errors for every row, at an empty table and at one with events. Nothing is set aside, however often it is tried.
#[test]
fn a_trigger_that_refuses_every_row_is_waited_for() {
    let (topic, database) = (shared().topic_with(1, &[]), postgres::shared().database());
    let tables = Tables::new(&topic, &database);
    let mut consumer = tables.start_ready(&[]);
    for code in ["P0001", "EV001", "check_violation", "XX000"] {
        database.sql(&trigger(&format!("RAISE EXCEPTION 'closed' USING ERRCODE = '{code}';")));
        let lines: String = (0..100).map(|n| format!("{{\"n\": {n}, \"code\": \"{code}\"}}\n")).collect();
        topic.kcat(&["-P"], lines.as_bytes());
        wait_problem(&mut consumer, "closed");
        let errors = |consumer: &mut _| metric(consumer, "pipeline_log_write_errors_total");
        let before = errors(&mut consumer);
        // Long enough for the one that is waited for before a row is blamed.
        let tries = if code == "XX000" { 12.0 } else { 4.0 };
        eventually(secs(300), "more attempts", || errors(&mut consumer) >= before + tries);
        assert_eq!(database.number("SELECT count(*) FROM event_rejects"), 0, "{code}");
        database.sql("DROP TRIGGER ours ON events");
        tables.wait_caught_up();
    }
    assert_eq!(database.number("SELECT count(*) FROM event_rejects"), 0);
    tables.audit();
    assert!(consumer.terminate(secs(60)).success());
}

/// The event that the table has accepted last decides for one that is alone: here most events are refused.
#[test]
fn the_last_event_of_the_table_shows_whether_it_accepts_others() {
    let (topic, database) = (shared().topic_with(1, &[]), postgres::shared().database());
    let tables = Tables::new(&topic, &database);
    let mut consumer = tables.start_ready(&[]);
    topic.kcat(&["-P"], b"{\"order\": 1}\n");
    tables.wait_caught_up();
    // The empty event says nothing about this one.
    database.sql("ALTER TABLE events ADD CONSTRAINT has_order CHECK (event ? 'order')");
    topic.kcat(&["-P"], b"{\"other\": 1}\n");
    tables.wait_caught_up();
    assert_eq!(database.number("SELECT count(*) FROM event_rejects"), 1);
    database.sql(
        "CREATE UNIQUE INDEX ON events ((event->>'order')); ALTER TABLE events DROP CONSTRAINT has_order",
    );
    topic.kcat(&["-P"], b"{\"order\": 1, \"again\": true}\n");
    tables.wait_caught_up();
    assert_eq!(database.number("SELECT count(*) FROM event_rejects"), 2);
    tables.audit();
    assert!(consumer.terminate(secs(60)).success());
}

/// Changed while the consumer runs, which goes on sending what fitted before.
#[test]
fn a_column_of_another_type_sets_nothing_aside() {
    let (topic, database) = (shared().topic_with(1, &[]), postgres::shared().database());
    let tables = Tables::new(&topic, &database);
    let mut consumer = tables.start_ready(&[]);
    topic.kcat(&["-P"], b"{\"a\": 1}\n");
    tables.wait_caught_up();
    database.sql("ALTER TABLE events ALTER event TYPE json");
    topic.kcat(&["-P"], b"{\"a\": 2}\n{\"a\": 3}\n");
    wait_problem(&mut consumer, "22P02");
    database.sql("ALTER TABLE events ALTER event TYPE jsonb");
    tables.wait_caught_up();
    tables.audit();
    assert_eq!(database.number("SELECT count(*) FROM event_rejects"), 0);
    assert!(consumer.terminate(secs(60)).success());
}
