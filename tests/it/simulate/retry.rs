//! `--retry`: what is sent again, with which ids, and what the audit then demands of the log.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::double::{Double, Log, Reply, log_line, seq_of};
use super::{expect, simulate_json};
use crate::support::wait::{eventually, secs};

const EVENTS: u64 = 40;

/// The bodies that a server received, by sequence number.
type Received = Arc<Mutex<HashMap<u64, Vec<Vec<u8>>>>>;

/// Receives one event and returns how often it has now arrived.
fn receive(received: &Received, event: &[u8]) -> usize {
    let mut received = received.lock().expect("received");
    let attempts = received.entry(seq_of(event)).or_default();
    attempts.push(event.to_vec());
    attempts.len()
}

/// A server whose first answer to each event leaves the client in doubt: by turns a 503, no answer, an answer
/// that comes after the client's timeout, and a 200 that breaks off. With `drops_repeats`, the log has each
/// event once, as with `EVENT_ID_FIELD=event_id`; without it, the log has every event that was not refused.
fn doubtful(log: &Path, drops_repeats: bool) -> (Double, Received) {
    let (writer, received) = (Log::create(log), Received::default());
    let (seen, logged) = (received.clone(), Mutex::new(HashSet::new()));
    let double = Double::start(move |event| {
        let (seq, attempt) = (seq_of(event), receive(&seen, event));
        if (seq % 4, attempt) == (0, 1) {
            return Reply::Answer(503, "Retry-After: 0\r\n", r#"{"retryable":true}"#.into());
        }
        if logged.lock().expect("logged").insert(seq) || !drops_repeats {
            writer.append_raw(log_line(event).as_bytes());
        }
        match (seq % 4, attempt) {
            (1, 1) => return Reply::Close,
            (2, 1) => eventually(secs(60), "the client sends it again", || {
                seen.lock().expect("received")[&seq].len() > 1
            }),
            (3, 1) => return Reply::Cut,
            _ => {}
        }
        writer.receipt()
    });
    (double, received)
}

/// Sends the events to `double` and audits `log`.
fn run(double: &Double, log: &Path, arguments: &[&str]) -> (i32, Value) {
    let (events, log) = (EVENTS.to_string(), log.to_str().expect("path"));
    let common = ["--url", &double.url(), "-n", &events, "-t", &events, "--verify", log];
    simulate_json(&[&common[..], arguments].concat())
}

#[test]
fn an_event_of_unknown_outcome_is_sent_again_with_its_id_until_it_is_acknowledged() {
    let directory = tempfile::tempdir().expect("directory");
    let log = directory.path().join("events.log");
    let (double, received) = doubtful(&log, true);
    let (code, report) = run(&double, &log, &["--retry", "--timeout", "2s"]);
    assert_eq!(code, 0, "{report:#}");
    expect(&report["events"], json!({ "sent": EVENTS, "acknowledged": EVENTS, "failed": 0 }));
    expect(&report["requests"], json!({ "sent": EVENTS, "repeated": EVENTS }));
    let again = report["events"]["acknowledgedAgain"].as_u64();
    assert!(again > Some(0), "a 200 that broke off, and then another one: {report:#}");
    let clean = json!({ "acknowledged": EVENTS, "repeated": EVENTS, "lost": 0, "duplicated": 0, "torn": 0 });
    expect(&report["audit"], clean);
    let run = report["run"].as_str().expect("a run");
    let received = received.lock().expect("received");
    assert_eq!(received.len() as u64, EVENTS);
    for (seq, attempts) in &*received {
        assert!(
            attempts.len() > 1 && attempts.iter().all(|body| *body == attempts[0]),
            "{seq}: {attempts:?}"
        );
        let event: Value = serde_json::from_slice(&attempts[0]).expect("an event");
        assert_eq!(event["event_id"], format!("{run}-{seq}"));
    }
}

#[test]
fn a_repeat_that_is_logged_twice_fails_the_run_and_without_retry_there_is_none() {
    let directory = tempfile::tempdir().expect("directory");
    let log = directory.path().join("events.log");
    let (double, _) = doubtful(&log, false);
    let (code, report) = run(&double, &log, &["--retry", "--timeout", "2s"]);
    let duplicated = report["audit"]["duplicated"].as_u64().expect("a count");
    assert!(code == 1 && duplicated >= EVENTS / 4 * 3, "{report:#}");
    expect(&report["audit"], json!({ "lost": 0, "duplicatedByRetry": duplicated }));
    let failure = format!("{duplicated} logged more than once (seq ");
    assert!(report["failures"][0].as_str().is_some_and(|text| text.starts_with(&failure)), "{report:#}");

    let log = directory.path().join("other.log");
    let writer = Log::create(&log);
    let double = Double::start(move |event| {
        writer.append_raw(log_line(event).as_bytes());
        Reply::Close
    });
    let (code, report) = run(&double, &log, &["--max-error-rate", "1"]);
    assert_eq!(code, 0, "{report:#}");
    expect(&report["requests"], json!({ "attempts": EVENTS, "repeated": 0 }));
    expect(&report["audit"], json!({ "acknowledged": 0, "unknownFound": EVENTS, "duplicated": 0 }));
}

#[test]
fn retries_end_at_their_limit_and_a_rejection_after_a_lost_answer_leaves_the_outcome_open() {
    let directory = tempfile::tempdir().expect("directory");
    let log = directory.path().join("events.log");
    let (writer, received) = (Log::create(&log), Received::default());
    let seen = received.clone();
    let double = Double::start(move |event| match (seq_of(event), receive(&seen, event)) {
        (0, _) => Reply::Close,
        (1, 1) => {
            writer.append_raw(log_line(event).as_bytes());
            Reply::Close
        }
        _ => Reply::Answer(403, "", r#"{"error":"forbidden","retryable":false}"#.into()),
    });
    let path = log.to_str().expect("path");
    let (code, report) =
        simulate_json(&["--url", &double.url(), "-n", "2", "-t", "2", "--retry", "2", "--verify", path]);
    assert_eq!(code, 1);
    assert_eq!(report["failures"], json!(["2 of 2 events were not acknowledged"]), "{report:#}");
    expect(&report["events"], json!({ "rejected": 1, "failed": 1 }));
    expect(&report["audit"], json!({ "repeated": 2, "unknownFound": 1, "unknownMissing": 1 }));
    let attempts = |seq| received.lock().expect("received")[&seq].len();
    assert_eq!((attempts(0), attempts(1)), (3, 2));
}
