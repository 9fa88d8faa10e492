//! The consumer from outside: a real topic, the real program, and what stands in its files afterwards.

pub mod faults;
mod foreign;
mod hints;
pub mod kills;
#[cfg(feature = "lake")]
mod lake;
mod large;
mod leaderless;
mod limits;
pub mod load;
mod operation;
mod quotas;
mod repeats;
mod reshard;
mod rotation;
mod shards;
mod truncated;

use std::cmp::Reverse;
use std::collections::HashMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use flate2::read::GzDecoder;
use serde_json::Value;
use tempfile::TempDir;

use event_pipeline::broker::{Source, open_source};
use event_pipeline::config::{KafkaConfig, SecurityConfig};

use crate::support::http;
use crate::support::kafka::client;
use crate::support::process::{Program, Running};
use crate::support::topic::{Stored, Topic};
use crate::support::wait::{eventually, eventually_some, secs};

/// How long reading to the end of a topic may take on a busy machine.
pub const CATCH_UP: Duration = secs(300);

/// A consumer of `topic` with a group of its own, in `dir`.
pub fn program(topic: &Topic, dir: &Path, settings: &[(&str, &str)]) -> Program {
    let program = Program::consumer()
        .dir(dir)
        .env("KAFKA_BROKERS", topic.brokers())
        .env("KAFKA_TOPIC", &topic.name)
        .env("KAFKA_GROUP", format!("group-of-{}", topic.name));
    settings.iter().fold(program, |program, (name, value)| program.env(name, value))
}

/// A directory with a log of `topic`, over several lives of the consumer.
struct Site<'a> {
    topic: &'a Topic,
    dir: TempDir,
}

impl<'a> Site<'a> {
    fn new(topic: &'a Topic) -> Self {
        Self { topic, dir: tempfile::tempdir().expect("directory") }
    }

    fn program(&self, settings: &[(&str, &str)]) -> Program {
        program(self.topic, self.dir.path(), settings)
    }

    fn start(&self, settings: &[(&str, &str)]) -> Running {
        self.program(settings).start()
    }

    /// Starts it and waits until it reads.
    fn start_ready(&self, settings: &[(&str, &str)]) -> Running {
        let mut running = self.start(settings);
        wait_ready(&mut running);
        running
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn logs(&self) -> PathBuf {
        self.path("logs")
    }

    fn checkpoint(&self, name: &str) -> Option<Value> {
        let text = fs::read(self.logs().join(name)).ok()?;
        Some(serde_json::from_slice(&text).expect("the checkpoint is whole at every moment"))
    }

    /// Offsets covered by the checkpoint, all partitions together.
    fn covered(&self) -> usize {
        let Some(checkpoint) = self.checkpoint("events.log.checkpoint") else { return 0 };
        let offsets = checkpoint["offsets"].as_object().expect("offsets");
        offsets.values().map(|offset| offset.as_u64().expect("offset") as usize).sum()
    }

    /// Waits until the checkpoint covers the whole topic.
    #[track_caller]
    fn wait_caught_up(&self) {
        let count = self.topic.count();
        eventually(CATCH_UP, &format!("all {count} records are covered"), || self.covered() == count);
    }

    /// Lines of all logs, oldest first.
    fn lines(&self) -> Vec<String> {
        log_files(&self.logs()).iter().flat_map(|path| lines_of(path)).collect()
    }

    /// What went to the rejected file.
    fn rejected(&self) -> Vec<Value> {
        let lines = lines_of(&self.logs().join("events.rejected"));
        lines.iter().map(|line| serde_json::from_str(payload(line)).expect("JSON")).collect()
    }

    /// The logs hold every event of the topic once, whole, in the order of its partition; all the other records
    /// are in the rejected file.
    #[track_caller]
    fn audit(&self) {
        audit(&self.topic.records(), &self.lines(), &self.rejected());
    }
}

/// Every record stands once in `lines` or in `rejected`, those of one partition in order.
#[track_caller]
fn audit(records: &[Stored], lines: &[String], rejected: &[Value]) {
    let mut places: HashMap<String, (i32, i64)> = HashMap::new();
    let mut not_events = Vec::new();
    for record in records {
        let text = record.value.as_ref().and_then(|value| String::from_utf8(value.clone()).ok());
        let object = text.filter(|text| serde_json::from_str::<HashMap<String, Value>>(text).is_ok());
        let place = (record.partition, record.offset);
        match object {
            Some(text) => {
                let line = text.trim().replace(['\n', '\r'], " ");
                assert_eq!(places.insert(line, place), None, "the test sends every value once");
            }
            None => not_events.push(place),
        }
    }
    let mut last: HashMap<i32, i64> = HashMap::new();
    let mut logged = 0;
    for line in lines {
        let (partition, offset) = places
            .remove(payload(line))
            .unwrap_or_else(|| panic!("doubled or not in the topic: {line:.300}"));
        let before = last.insert(partition, offset);
        assert!(
            before.is_none_or(|before| before < offset),
            "partition {partition}: {offset} after {before:?}"
        );
        logged += 1;
    }
    assert!(places.is_empty(), "{} of {} events are not in the log", places.len(), places.len() + logged);
    let mut kept: Vec<(i32, i64)> = rejected
        .iter()
        .map(|line| {
            (line["partition"].as_i64().expect("partition") as i32, line["offset"].as_i64().expect("offset"))
        })
        .collect();
    kept.sort_unstable();
    not_events.sort_unstable();
    assert_eq!(kept, not_events, "rejected records");
}

/// A client of ours for the group's offsets.
fn source_of(topic: &Topic) -> impl Source {
    let config = KafkaConfig {
        brokers: vec![topic.brokers()],
        topic: topic.name.clone(),
        connect_timeout_ms: 1000,
        request_timeout_ms: 5000,
        client: client(),
        security: SecurityConfig::default(),
    };
    open_source(&config).expect("source")
}

/// Closed logs by name, then those renamed by logrotate (`events.log.2.gz`, `events.log.1`), then the open one.
fn log_files(dir: &Path) -> Vec<PathBuf> {
    // A consumer that has just started makes it.
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let names = entries.map(|entry| entry.expect("entry").path());
    let mut files: Vec<PathBuf> = names.filter(|path| path.is_file() && log_rank(path).is_some()).collect();
    files.sort_by_key(|path| log_rank(path));
    files
}

/// Place of a log among [`log_files`]; `None` for other files.
fn log_rank(path: &Path) -> Option<(bool, Reverse<u32>, String)> {
    let name = path.file_name()?.to_str()?.to_owned();
    let plain = name.strip_suffix(".gz").unwrap_or(&name);
    if let Some(number) = plain.strip_prefix("events.log.") {
        return Some((false, Reverse(number.parse().ok()?), name));
    }
    let is_log = name.starts_with("events") && plain.ends_with(".log");
    is_log.then(|| (name == "events.log", Reverse(u32::MAX), name))
}

/// Lines of one log, which must end with a whole one. A consumer that runs may be about to finish its last line.
#[track_caller]
fn lines_of(path: &Path) -> Vec<String> {
    let whole = || Some(bytes_of(path)).filter(|bytes| bytes.last().is_none_or(|last| *last == b'\n'));
    let bytes = eventually_some(secs(10), &format!("{} ends with a whole line", path.display()), whole);
    String::from_utf8(bytes).expect("UTF-8").lines().map(str::to_owned).collect()
}

fn bytes_of(path: &Path) -> Vec<u8> {
    let mut bytes = fs::read(path).unwrap_or_default();
    if path.extension().is_some_and(|extension| extension == "gz") {
        let packed = std::mem::take(&mut bytes);
        GzDecoder::new(&packed[..]).read_to_end(&mut bytes).expect("gzip");
    }
    bytes
}

/// The event in a line; panics if the line does not look like `2025-07-08 00:12:01,782 - {…}`.
#[track_caller]
fn payload(line: &str) -> &str {
    let pattern = "dddd-dd-dd dd:dd:dd,ddd - {";
    let fits = line.len() > pattern.len()
        && line.ends_with('}')
        && line
            .bytes()
            .zip(pattern.bytes())
            .all(|(byte, wanted)| if wanted == b'd' { byte.is_ascii_digit() } else { byte == wanted });
    assert!(fits, "not a line of the log: {line:.300}");
    &line[pattern.len() - 1..]
}

pub fn ready_status(running: &mut Running) -> (u16, String) {
    let answer = http::get(running.address(), "/readyz").expect("the status page answers");
    (answer.status, answer.text())
}

#[track_caller]
pub fn wait_ready(running: &mut Running) {
    eventually(secs(60), "the consumer is ready", || ready_status(running).0 == 200);
}

/// Waits until `/readyz` is 503 with a reason that holds `word`.
#[track_caller]
pub fn wait_problem(running: &mut Running, word: &str) {
    eventually(secs(60), &format!("not ready because of {word:?}"), || {
        let (status, body) = ready_status(running);
        status == 503 && body.contains(word)
    });
}

/// Waits until a sample has this value: what is covered is counted a moment later.
#[track_caller]
pub fn wait_metric(running: &mut Running, sample: &str, value: f64) {
    eventually(secs(30), &format!("{sample} is {value}"), || metric(running, sample) == value);
}

/// The value of one sample of `/metrics`, 0 if it is not there.
pub fn metric(running: &mut Running, sample: &str) -> f64 {
    let text = http::get(running.address(), "/metrics").expect("metrics").text();
    let line = text.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
    line.map_or(0.0, |value| value.parse().expect("a number"))
}
