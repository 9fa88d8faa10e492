//! Repeated events: with `EVENT_ID_FIELD` each id is logged once, whatever is killed, moved or lost.
//!
//! `CONSUMER_KILL_ROUNDS` sets the rounds of the kills, as for those without ids.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::consumer::kills::rounds;
use crate::consumer::load::Load;
use crate::consumer::{Site, log_files, metric, payload, wait_metric};
use crate::producer::serve;
use crate::support::kafka::shared;
use crate::support::topic::Topic;
use crate::support::wait::{eventually, secs};

pub const IDS: (&str, &str) = ("EVENT_ID_FIELD", "event_id");
const ROTATE: [(&str, &str); 2] = [("LOG_ROTATE_BYTES", "100000"), ("LOG_ROTATE_GZIP", "true")];

/// The second half of each batch repeats the first half of the one before, and some of it once more.
pub fn repeating(batch: usize) -> Vec<String> {
    let event = |batch: usize, number: usize| {
        format!(r#"{{"event": "login", "n": {number}, "event_id": "b{batch}-{number}"}}"#)
    };
    let before = batch.saturating_sub(1);
    let new = (0..100).map(|number| event(batch, number));
    new.chain((0..60).map(|number| event(before, number)))
        .chain((0..40).map(|number| event(batch, number)))
        .collect()
}

fn id_of(text: &str) -> Option<String> {
    let event: Value = serde_json::from_str(text).expect("JSON");
    event["event_id"].as_str().map(str::to_owned)
}

/// How often each id is there.
pub fn count<'t>(events: impl Iterator<Item = &'t str>) -> BTreeMap<String, usize> {
    let mut found = BTreeMap::new();
    for id in events.filter_map(id_of) {
        *found.entry(id).or_default() += 1;
    }
    found
}

/// Each id of the topic is logged once, and the topic had some more often. Returns how many records repeated one.
#[track_caller]
fn assert_once(site: &Site<'_>, topic: &Topic) -> usize {
    let records = topic.records();
    let (logged, sent) = (
        count(site.lines().iter().map(|line| payload(line))),
        count(records.iter().map(|record| record.text())),
    );
    let wrong: Vec<_> = logged.iter().filter(|(_, times)| **times != 1).take(5).collect();
    assert!(wrong.is_empty(), "logged more than once: {wrong:?}");
    let lost: Vec<_> = sent.keys().filter(|id| !logged.contains_key(*id)).take(5).collect();
    assert!(lost.is_empty(), "lost: {lost:?}");
    assert!(logged.len() <= sent.len(), "not of this test");
    let repeated = sent.values().map(|times| times - 1).sum();
    assert!(repeated > 0, "nothing was repeated");
    repeated
}

fn files_of_ids(site: &Site<'_>) -> Vec<PathBuf> {
    let entries = fs::read_dir(site.logs()).expect("directory").map(|entry| entry.expect("entry").path());
    entries.filter(|path| path.to_string_lossy().contains("events.log.ids-")).collect()
}

#[test]
fn a_repeated_event_is_logged_once_and_counted() {
    let topic = shared().topic();
    let site = Site::new(&topic);
    let mut consumer = site.start_ready(&[IDS]);
    let events = [
        r#"{"a": 1, "event_id": "x", "timestamp": "2026-11-26T00:00:00.000Z"}"#,
        r#"{"a": 1, "event_id": "x", "timestamp": "2026-11-26T00:00:05.000Z"}"#,
        r#"{"a": 2, "event_id": "x"}"#,
        r#"{"a": 1, "event_id": "y"}"#,
        r#"{"a": 1, "event_id": "f81d4fae-7dec-11d0-a765-00a0c91e6bf6"}"#,
        r#"{"a": 1, "event_id": "F81D4FAE-7DEC-11D0-A765-00A0C91E6BF6"}"#,
        r#"{"a": 1}"#,
        r#"{"a": 1}"#,
        r#"{"a": 1, "nested": {"event_id": "x"}}"#,
    ];
    for event in events {
        topic.kcat(&["-P"], format!("{event}\n").as_bytes());
    }
    topic.kcat(&["-P"], b"nonsense\n");
    site.wait_caught_up();
    assert_eq!(site.lines().len(), 6, "{:?}", site.lines());
    assert_eq!(site.rejected().len(), 1);
    // The checkpoint is there before the figures.
    eventually(secs(60), "all are counted", || {
        metric(&mut consumer, "pipeline_consumer_records_total") == 10.0
    });
    let dropped = |reason: &str| format!("pipeline_consumer_duplicates_total{{reason=\"{reason}\"}}");
    wait_metric(&mut consumer, &dropped("repeated"), 1.0);
    // The letters of the UUID differ, so its event does.
    wait_metric(&mut consumer, &dropped("differs"), 2.0);
    wait_metric(&mut consumer, "pipeline_log_events_total", 6.0);
    wait_metric(&mut consumer, "pipeline_dedup_ids", 3.0);
    assert!(consumer.terminate(secs(60)).success());
    let said = consumer.stderr();
    assert!(said.contains("event_id") && said.contains("DEDUP_WINDOW=1h"), "{said}");
    assert!(said.contains("the id of another event") && said.contains("partition"), "{said}");
}

#[test]
fn the_same_request_twice_has_two_receipts_and_one_line() {
    let topic = shared().topic();
    let site = Site::new(&topic);
    let _consumer = site.start_ready(&[IDS]);
    let mut served = serve(&topic, &[IDS]);
    let url = format!("http://{}/register_event", served.address);
    let post = || {
        let event = r#"{"event": "purchase", "user_id": 203}"#;
        let output = Command::new("curl")
            .args(["--silent", "--show-error", "--max-time", "60"])
            .args(["--header", "Idempotency-Key: order-7", "--json", event, &url])
            .output()
            .expect("curl runs");
        let answer: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        (answer["partition"].as_i64().expect("a partition"), answer["offset"].as_i64().expect("an offset"))
    };
    assert_ne!(post(), post());
    site.wait_caught_up();
    let lines = site.lines();
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].contains(r#""event_id": "order-7""#), "{lines:?}");
    assert!(served.program.terminate(secs(60)).success());
}

#[test]
fn without_the_setting_every_event_is_logged() {
    let topic = shared().topic();
    let site = Site::new(&topic);
    let _consumer = site.start_ready(&[]);
    topic.kcat(&["-P"], b"{\"event_id\": 1}\n{\"event_id\": 1}\n");
    site.wait_caught_up();
    assert_eq!(site.lines().len(), 2);
    assert_eq!(files_of_ids(&site), Vec::<PathBuf>::new());
}

/// Kills the consumer at random moments of a load that repeats itself.
fn kill_rounds(settings: &[(&str, &str)]) {
    let topic = shared().topic_with(1, &[]);
    let site = Site::new(&topic);
    let load = Load::of(&topic, repeating);
    let settings = [settings, &[IDS, ("DEDUP_MAX_IDS", "1000")]].concat();
    for round in 0..rounds() {
        let mut consumer = site.start(&settings);
        if round % 2 == 0 {
            let before = site.covered();
            eventually(secs(60), "the consumer makes progress", || site.covered() > before);
        }
        thread::sleep(Duration::from_millis(fastrand::u64(0..600)));
        consumer.kill();
    }
    let mut consumer = site.start_ready(&settings);
    load.finish();
    site.wait_caught_up();
    assert_once(&site, &topic);
    // Generations come and go, and their files with them.
    assert!((2..=4).contains(&files_of_ids(&site).len()), "{:?}", files_of_ids(&site));
    assert!(consumer.terminate(secs(60)).success());
}

#[test]
fn kills_in_the_middle_of_repeats_lose_and_repeat_nothing() {
    kill_rounds(&[]);
}

#[test]
fn kills_with_rotation_and_gzip_in_the_middle_of_repeats_lose_and_repeat_nothing() {
    kill_rounds(&ROTATE);
}

#[test]
fn kills_with_fsync_by_interval_in_the_middle_of_repeats_lose_and_repeat_nothing() {
    kill_rounds(&[("LOG_FSYNC", "interval:200")]);
}

#[test]
fn lost_files_of_ids_are_made_again_from_packed_logs() {
    let topic = shared().topic_with(1, &[]);
    let site = Site::new(&topic);
    let settings = [&ROTATE[..], &[IDS]].concat();
    let send = |batches: std::ops::Range<usize>| {
        let lines: String = batches.flat_map(repeating).map(|event| event + "\n").collect();
        topic.kcat(&["-P"], lines.as_bytes());
        site.wait_caught_up();
    };
    let mut consumer = site.start_ready(&settings);
    send(0..40);
    eventually(secs(60), "closed logs are packed", || {
        let files = log_files(&site.logs());
        files.len() > 2 && files[..files.len() - 1].iter().all(|path| path.to_string_lossy().ends_with(".gz"))
    });
    assert!(consumer.terminate(secs(60)).success());
    files_of_ids(&site).iter().for_each(|path| fs::remove_file(path).expect("removed"));
    let mut consumer = site.start_ready(&settings);
    // All of it once more.
    send(0..41);
    assert_once(&site, &topic);
    assert!(consumer.terminate(secs(60)).success());
    let said = consumer.stderr();
    assert!(said.contains("read the ids of 4000 events from the logs"), "{said}");
}

#[test]
fn more_ids_than_are_remembered_are_said_and_shorten_the_window() {
    let topic = shared().topic_with(1, &[]);
    let site = Site::new(&topic);
    let mut consumer = site.start_ready(&[IDS, ("DEDUP_MAX_IDS", "100")]);
    let lines = |numbers: std::ops::Range<usize>| -> String {
        numbers.map(|number| format!("{{\"event_id\": {number}}}\n")).collect()
    };
    topic.kcat(&["-P"], lines(0..1000).as_bytes());
    site.wait_caught_up();
    // The first ones are forgotten, the last hundred are not.
    topic.kcat(&["-P"], (lines(900..1000) + &lines(0..10)).as_bytes());
    site.wait_caught_up();
    assert_eq!(site.lines().len(), 1010);
    assert!(metric(&mut consumer, "pipeline_dedup_ids") <= 200.0);
    assert!(consumer.terminate(secs(60)).success());
    let said = consumer.stderr();
    assert_eq!(said.matches("there are more than DEDUP_MAX_IDS").count(), 1, "{said}");
}
