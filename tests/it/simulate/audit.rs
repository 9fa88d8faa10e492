//! The audit, tested by logs that are wrong in a known way.

use std::fs;
use std::path::Path;
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};

use super::double::{Double, Log, log_line, seq_of};
use super::{expect, simulate, simulate_json};
use crate::support::process::Program;
use crate::support::wait::{eventually, secs};

const FOREIGN: &[u8] =
    b"2026-11-24 09:00:00,000 - {\"event\": \"login\", \"user_id\": 42, \"run\": \"other\", \"seq\": 3}\n";

/// A run of 100 events whose log is written by `write`, and the audit's part of the report.
fn audited(
    log: &Path,
    threads: &str,
    write: impl Fn(&Log, &[u8]) -> super::double::Reply + Send + Sync + 'static,
) -> (i32, Value) {
    let writer = Log::create(log);
    writer.append_raw(FOREIGN);
    let double = Double::start(move |body| write(&writer, body));
    let log = log.to_str().expect("path");
    let arguments =
        ["--url", &double.url(), "-n", "100", "-t", threads, "--verify", log, "--verify-timeout", "1s"];
    let (code, mut report) = simulate_json(&arguments);
    (code, report["audit"].take())
}

#[test]
fn a_removed_line_is_lost_a_doubled_one_duplicated_a_cut_one_torn_and_a_foreign_one_ignored() {
    let directory = tempfile::tempdir().expect("directory");
    let (code, audit) =
        audited(&directory.path().join("events.log"), "4", |log, event| match seq_of(event) {
            17 => log.receipt(),
            23 => {
                log.append_raw(log_line(event).as_bytes());
                log.append(event)
            }
            42 => {
                // At once: another thread's line must not come between.
                log.append_raw(&[&log_line(event).as_bytes()[..60], b"\n"].concat());
                log.receipt()
            }
            50 => {
                log.append_raw(FOREIGN);
                log.append(event)
            }
            _ => log.append(event),
        });
    assert_eq!(code, 1);
    expect(
        &audit,
        json!({
            "sent": 100, "acknowledged": 100, "logged": 98, "lost": 2, "lostSeqs": [17, 42],
            "duplicated": 1, "duplicatedSeqs": [23], "torn": 1, "foreign": 1, "outOfOrder": 0,
        }),
    );
}

#[test]
fn a_whole_log_ends_in_the_line_that_scripts_look_for() {
    let directory = tempfile::tempdir().expect("directory");
    let log = directory.path().join("events.log");
    let writer = Log::create(&log);
    let double = Double::start(move |event| writer.append(event));
    for round in 1..=2 {
        let finished = simulate(&[
            "--url",
            &double.url(),
            "-n",
            "300",
            "-t",
            "10",
            "--verify",
            log.to_str().expect("path"),
        ]);
        assert_eq!(finished.status.code(), Some(0), "{finished:?}");
        let last = finished.stdout.lines().last().expect("a line");
        let expected = "300 sent, 300 acknowledged, 300 logged, 0 lost, 0 duplicated in ";
        assert!(last.starts_with(expected) && last.ends_with(" seconds"), "{last}");
        assert_eq!(fs::read_to_string(&log).expect("log").lines().count(), 300 * round);
    }
}

#[test]
fn lines_in_the_wrong_order_are_found_by_their_receipts() {
    let directory = tempfile::tempdir().expect("directory");
    let held = Mutex::new(Vec::new());
    let (code, audit) = audited(&directory.path().join("events.log"), "1", move |log, event| {
        let mut held = held.lock().expect("held");
        match seq_of(event) {
            30 => {
                *held = event.to_vec();
                log.receipt()
            }
            31 => {
                let reply = log.append(event);
                log.append_raw(log_line(&held).as_bytes());
                reply
            }
            _ => log.append(event),
        }
    });
    assert_eq!(code, 1);
    expect(&audit, json!({ "lost": 0, "duplicated": 0, "outOfOrder": 1 }));
}

#[test]
fn rotated_and_gzipped_files_are_read_too() {
    let directory = tempfile::tempdir().expect("directory");
    let dir = directory.path().to_owned();
    let (code, audit) = audited(&directory.path().join("events.log"), "1", move |log, event| {
        let seq = seq_of(event);
        let line = log_line(event);
        let name = match seq {
            0..20 => "events-20261124T081546032Z-000.log.gz",
            20..40 => "events-20261124T081546032Z-001.log",
            _ => return log.append(event),
        };
        let mut file = fs::OpenOptions::new().append(true).create(true).open(dir.join(name)).expect("open");
        if name.ends_with(".gz") {
            let mut packed = GzEncoder::new(file, Compression::fast());
            std::io::Write::write_all(&mut packed, line.as_bytes())
                .and_then(|()| packed.try_finish())
                .expect("pack");
        } else {
            std::io::Write::write_all(&mut file, line.as_bytes()).expect("append");
        }
        log.receipt()
    });
    assert_eq!(code, 0, "{audit:#}");
    expect(&audit, json!({ "logged": 100, "lost": 0, "outOfOrder": 0, "torn": 0 }));
}

/// A server whose events come into the log of `writer` one every 21 ms and in two pieces, until `stop`.
struct Lagging {
    double: Double,
    events: Arc<Mutex<Option<mpsc::Sender<Vec<u8>>>>>,
    consumer: thread::JoinHandle<()>,
}

impl Lagging {
    fn start(writer: Arc<Log>) -> Self {
        let (events, lagging) = mpsc::channel::<Vec<u8>>();
        let behind = writer.clone();
        let consumer = thread::spawn(move || {
            for event in lagging {
                thread::sleep(Duration::from_millis(20));
                let line = log_line(&event);
                let (start, end) = line.as_bytes().split_at(50);
                behind.append_raw(start);
                thread::sleep(Duration::from_millis(1));
                behind.append_raw(end);
            }
        });
        let events = Arc::new(Mutex::new(Some(events)));
        let forwarding = events.clone();
        let double = Double::start(move |event| {
            // The receipt is given under the lock: a partition has one order.
            let events = forwarding.lock().expect("events");
            if let Some(events) = &*events {
                events.send(event.to_vec()).expect("the consumer lives");
            }
            writer.receipt()
        });
        Self { double, events, consumer }
    }

    /// From now on events are acknowledged and lost.
    fn stop(self) -> Double {
        self.events.lock().expect("events").take();
        self.consumer.join().expect("consumer");
        self.double
    }
}

#[test]
fn the_audit_waits_until_the_log_has_caught_up_but_not_for_ever() {
    let directory = tempfile::tempdir().expect("directory");
    let log = directory.path().join("events.log");
    let lagging = Lagging::start(Log::create(&log));
    let url = lagging.double.url();
    let log = log.to_str().expect("path");
    let run = |limit: &str| {
        let arguments = ["--url", &url, "-n", "100", "-t", "4", "--verify", log, "--verify-timeout", limit];
        simulate_json(&arguments)
    };
    let (code, report) = run("30s");
    assert_eq!(code, 0, "{report:#}");
    expect(&report["audit"], json!({ "logged": 100, "lost": 0, "torn": 0 }));
    assert!(report["audit"]["seconds"].as_f64().expect("seconds") > 1.0);
    let _double = lagging.stop();
    let (code, report) = run("200ms");
    assert_eq!((code, &report["audit"]["lost"]), (1, &100.into()), "{report:#}");
}

#[test]
fn a_signal_that_ends_the_load_does_not_make_lost_what_is_on_its_way() {
    let directory = tempfile::tempdir().expect("directory");
    let log = directory.path().join("events.log");
    let lagging = Lagging::start(Log::create(&log));
    let (url, path) = (lagging.double.url(), log.to_str().expect("path").to_owned());
    let arguments =
        ["--url", &url, "-z", "60s", "-t", "4", "--rate", "200", "--verify", &path, "--output", "json"];
    let mut running = Program::simulate().args(&arguments).start();
    let lines = || fs::read(&log).expect("a log").iter().filter(|byte| **byte == b'\n').count();
    eventually(secs(60), "the log lags behind", || lines() >= 100);
    let status = running.terminate(secs(60));
    let report: Value = serde_json::from_str(&running.stdout()).expect("a report");
    assert_eq!(status.code(), Some(1));
    expect(&report["audit"], json!({ "lost": 0, "torn": 0 }));
    assert!(report["audit"]["logged"].as_u64() > Some(100), "{report:#}");
    assert_eq!(report["failures"], json!(["interrupted by a signal"]));
}

/// The last line of the log may be another client's, and only half there when the simulator looks.
#[test]
fn a_line_that_is_being_written_is_not_torn() {
    let directory = tempfile::tempdir().expect("directory");
    let (code, audit) = audited(&directory.path().join("events.log"), "1", |log, event| {
        let reply = log.append(event);
        if seq_of(event) == 99 {
            log.append_raw(&FOREIGN[..40]);
            log.finish_later(&FOREIGN[40..], Duration::from_millis(300));
        }
        reply
    });
    assert_eq!(code, 0, "{audit:#}");
    expect(&audit, json!({ "logged": 100, "torn": 0, "foreign": 1 }));
}

#[test]
fn a_record_is_audited_later() {
    let directory = tempfile::tempdir().expect("directory");
    let path = |name: &str| directory.path().join(name).to_str().expect("path").to_owned();
    let writer = Log::create(&directory.path().join("events.log"));
    let double = Double::start(move |event| match seq_of(event) {
        5 => {
            writer.append_raw(log_line(event).as_bytes());
            super::double::Reply::Cut
        }
        6 => super::double::Reply::Cut,
        _ => writer.append(event),
    });
    let recorded = simulate(&["--url", &double.url(), "-n", "100", "-t", "4", "--record", &path("record")]);
    assert!(recorded.stderr.contains("2 of 100 events were not acknowledged"), "{recorded:?}");
    let audit = || simulate_json(&["--audit", &path("record"), "--verify", &path("events.log")]);
    let (code, report) = audit();
    assert_eq!(code, 0, "{report:#}");
    expect(
        &report["audit"],
        json!({ "sent": 100, "acknowledged": 98, "logged": 99, "lost": 0, "unknownFound": 1, "unknownMissing": 1 }),
    );
    let text = fs::read_to_string(path("events.log")).expect("log");
    let without = text.lines().filter(|line| !line.contains("\"seq\": 77")).map(|line| format!("{line}\n"));
    fs::write(path("events.log"), without.collect::<String>()).expect("write");
    let (code, report) = audit();
    assert_eq!(code, 1);
    expect(&report["audit"], json!({ "lost": 1, "lostSeqs": [77], "duplicated": 0 }));
    let again = simulate(&["--url", &double.url(), "--record", &path("record")]);
    assert_eq!(again.status.code(), Some(2), "a record is never overwritten: {again:?}");
}

#[test]
fn a_record_survives_the_death_of_the_simulator() {
    let directory = tempfile::tempdir().expect("directory");
    let path = |name: &str| directory.path().join(name).to_str().expect("path").to_owned();
    let writer = Log::create(&directory.path().join("events.log"));
    let double = Double::start(move |event| writer.append(event));
    let arguments =
        ["--url", &double.url(), "-z", "60s", "-t", "8", "--rate", "200", "--record", &path("record")];
    let mut running = Program::simulate().args(&arguments).start();
    eventually(secs(60), "300 recorded events", || {
        fs::read_to_string(path("record")).is_ok_and(|text| text.lines().count() > 300)
    });
    running.kill();
    drop(double);
    let (code, report) = simulate_json(&["--audit", &path("record"), "--verify", &path("events.log")]);
    assert_eq!(code, 0, "{report:#}");
    let count = |name: &str| report["audit"][name].as_u64().expect("a count");
    let lines = fs::read_to_string(path("events.log")).expect("log").lines().count() as u64;
    assert!(count("acknowledged") >= 300 && count("lost") == 0, "{report:#}");
    assert_eq!(count("logged") + count("unrecorded"), lines, "every line is accounted for");
    assert!(count("unrecorded") < count("acknowledged"), "{report:#}");
}
