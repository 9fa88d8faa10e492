//! The audit of a lake: what the real programs make of a run, and the same lake damaged in a known way.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::{expect, simulate, simulate_json};
use crate::consumer::wait_ready;
use crate::support::kafka::shared;
use crate::support::process::{Program, Running};

/// A run of 500 events through the whole pipeline, its record, and the lake that it went to.
struct Run {
    dir: TempDir,
    _programs: [Running; 2],
}

impl Run {
    fn new() -> Self {
        let topic = shared().topic();
        let dir = tempfile::tempdir().expect("directory");
        let with_kafka = |program: Program| {
            program
                .env("KAFKA_BROKERS", topic.brokers())
                .env("KAFKA_TOPIC", &topic.name)
                .env("KAFKA_GROUP", &topic.name)
        };
        let mut producer = with_kafka(Program::producer()).start();
        let mut consumer = with_kafka(Program::consumer())
            .env("LOG_FILE", dir.path().join("logs/events.log"))
            .env("LAKE_DIR", dir.path().join("lake"))
            .env("LOG_ROTATE_SECS", "1")
            .start();
        // A lake exists once the consumer has written its id.
        wait_ready(&mut consumer);
        let url = format!("http://{}/register_event", producer.address());
        let run = Self { dir, _programs: [producer, consumer] };
        let record = run.path("record");
        let lake = run.lake();
        let (code, report) = simulate_json(&[
            "--url", &url, "-n", "500", "-t", "4", "--retry", "--record", &record, "--verify", &lake,
        ]);
        assert_eq!(code, 0, "{report:#}");
        expect(&report["audit"], json!({"logged": 500, "lost": 0, "duplicated": 0, "torn": 0, "damaged": 0}));
        run
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().expect("UTF-8").to_owned()
    }

    fn lake(&self) -> String {
        self.path("lake/")
    }

    fn audit(&self) -> (i32, Value) {
        let (code, mut report) = simulate_json(&["--audit", &self.path("record"), "--verify", &self.lake()]);
        (code, report["audit"].take())
    }

    /// One of the files with events.
    fn file(&self) -> PathBuf {
        let below = |dir: &Path| {
            let mut paths: Vec<PathBuf> =
                fs::read_dir(dir).expect("a directory").map(|entry| entry.expect("entry").path()).collect();
            paths.sort();
            paths
        };
        let days = below(Path::new(&self.lake()));
        let day = days.iter().find(|path| path.to_string_lossy().contains("/dt=")).expect("a day");
        below(&below(day)[0])[0].clone()
    }
}

#[test]
fn a_whole_lake_is_clean_and_a_removed_copied_or_changed_file_is_found() {
    let run = Run::new();
    let (code, audit) = run.audit();
    assert_eq!((code, &audit["logged"], &audit["foreign"]), (0, &json!(500), &json!(0)));
    let file = run.file();
    let copy = file.with_file_name("copied.parquet");
    fs::copy(&file, &copy).expect("copied");
    let (code, audit) = run.audit();
    let rows = audit["duplicated"].as_u64().expect("a number");
    assert!(code == 1 && rows > 0, "{audit:#}");
    fs::remove_file(&copy).expect("removed");
    let manifest = file.with_extension("json");
    let manifest = Path::new(&run.lake()).join("_manifest").join(manifest.file_name().expect("a name"));
    let text = fs::read_to_string(&manifest).expect("a manifest");
    let sum = text.rsplit_once("\"sha256\":\"").expect("a checksum").1[..8].to_owned();
    fs::write(&manifest, text.replace(&sum, "01234567")).expect("written");
    let (code, audit) = run.audit();
    expect(&audit, json!({"lost": 0, "duplicated": 0, "damaged": 1}));
    assert_eq!(code, 1);
    fs::write(&manifest, text).expect("written");
    fs::rename(&file, &copy).expect("renamed");
    let (code, audit) = run.audit();
    // One that the manifest lists is missing, and another one is in no manifest.
    expect(&audit, json!({"lost": 0, "duplicated": 0, "damaged": 2}));
    assert_eq!(code, 1);
    fs::remove_file(&copy).expect("removed");
    let (code, audit) = run.audit();
    expect(&audit, json!({"lost": rows, "duplicated": 0, "damaged": 1}));
    assert_eq!(code, 1);
}

#[test]
fn what_is_not_a_lake_is_said() {
    let dir = tempfile::tempdir().expect("directory");
    let hour = dir.path().join("dt=2025-07-08/hour=00");
    fs::create_dir_all(&hour).expect("created");
    fs::create_dir(dir.path().join("_manifest")).expect("created");
    fs::write(hour.join("a.parquet"), "no Parquet").expect("written");
    let record = dir.path().join("record");
    fs::write(&record, "simulate-record 1 run=k3x9\n0 1 ack 0 0\n").expect("written");
    let (record, lake) = (record.to_str().expect("UTF-8"), dir.path().to_str().expect("UTF-8"));
    let finished = simulate(&["--audit", record, "--verify", lake]);
    assert!(!finished.status.success() && finished.stderr.contains("hour=00/a.parquet"), "{finished:?}");
}
