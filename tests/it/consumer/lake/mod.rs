//! The lake from outside: the real consumer, and Parquet files read by pyarrow and DuckDB, which share no code with us.

mod faults;
mod kept;
mod kills;
mod old_logs;
mod rows;
#[cfg(feature = "s3")]
mod s3;
#[cfg(feature = "s3")]
mod s3_keys;
#[cfg(feature = "s3")]
mod s3_parts;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::consumer::{Site, audit, lines_of, log_files};
use crate::support::topic::Topic;
use crate::support::wait::{eventually, eventually_some, secs};

/// Where scripts/test.sh installs the packages for Python.
const PACKAGES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/python");

/// Prints each row as the line of the log that it was, in the order of logs and hours.
const LINES: &str = r#"
import datetime, glob, os, sys
import pyarrow.parquet as pq
files = glob.glob(sys.argv[1] + "/dt=*/hour=*/*.parquet")
for path in sorted(files, key=lambda path: (os.path.basename(path), path)):
    table = pq.read_table(path, columns=["logged_at", "event"], partitioning=None)
    for time, event in zip(table["logged_at"].cast("int64").to_pylist(), table["event"].to_pylist()):
        stamp = datetime.datetime.fromtimestamp(time // 1000, datetime.timezone.utc)
        assert stamp.strftime("dt=%Y-%m-%d/hour=%H") == os.path.relpath(os.path.dirname(path), sys.argv[1]), path
        print(f"{stamp:%Y-%m-%d %H:%M:%S},{time % 1000:03d} - {event}")
"#;

/// Runs a query of DuckDB, in which `lake` is the lake, and prints the rows as JSON.
const QUERY: &str = r#"
import json, sys
import duckdb
base = duckdb.connect()
base.execute("SET TimeZone = 'UTC'")
base.execute(f"""
    CREATE VIEW lake AS FROM read_parquet(
        '{sys.argv[1]}/dt=*/hour=*/*.parquet', union_by_name = true, filename = true, file_row_number = true,
        hive_types = {{'dt': DATE, 'hour': VARCHAR}})
""")
print(json.dumps(base.execute(sys.argv[2]).fetchall(), default=str))
"#;

#[track_caller]
pub fn python(script: &str, arguments: &[&str]) -> String {
    let mut python = Command::new("python3");
    let output = python.args(["-c", script]).args(arguments).env("PYTHONPATH", PACKAGES).output();
    let output = output.expect("python3 runs");
    assert!(
        output.status.success(),
        "scripts/test.sh installs the packages: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// A site whose closed logs go to a lake.
struct LakeSite<'a> {
    site: Site<'a>,
    /// The directory of the lake.
    dir: PathBuf,
}

impl<'a> LakeSite<'a> {
    fn new(topic: &'a Topic) -> Self {
        let site = Site::new(topic);
        let dir = site.path("lake");
        Self { site, dir }
    }

    /// `settings`, and those of the lake.
    fn settings<'b>(&'b self, settings: &[(&'b str, &'b str)]) -> Vec<(&'b str, &'b str)> {
        [&[("LAKE_DIR", self.dir.to_str().expect("UTF-8"))], settings].concat()
    }

    /// The rows as lines of a log.
    #[track_caller]
    fn lines(&self) -> Vec<String> {
        python(LINES, &[self.dir.to_str().expect("UTF-8")]).lines().map(str::to_owned).collect()
    }

    /// What DuckDB answers.
    #[track_caller]
    fn query(&self, sql: &str) -> Value {
        let answer = python(QUERY, &[self.dir.to_str().expect("UTF-8"), sql]);
        serde_json::from_str(&answer).expect("JSON")
    }

    /// Waits until all closed logs are in the lake and removed.
    #[track_caller]
    fn wait_moved(&self) {
        eventually(secs(300), "all closed logs are in the lake", || self.closed().is_empty());
    }

    /// Closed logs that are still here.
    fn closed(&self) -> Vec<PathBuf> {
        log_files(&self.site.logs()).into_iter().filter(|path| !path.ends_with("events.log")).collect()
    }

    /// Lines in the lake and then those in the open log, at one moment between two closings of the log.
    #[track_caller]
    fn all_lines(&self) -> Vec<String> {
        let open_lines = || lines_of(&self.site.path("logs/events.log"));
        eventually_some(secs(300), "no log is closed for a while", || {
            self.wait_moved();
            let (open, in_lake) = (open_lines(), self.lines());
            assert!(!in_lake.is_empty(), "nothing went to the lake");
            (open == open_lines() && self.closed().is_empty()).then(|| [in_lake, open].concat())
        })
    }

    /// Every event of the topic is once in the lake or in the open log, in order; no attempt has left anything.
    #[track_caller]
    fn audit(&self) {
        let lines = self.all_lines();
        audit(&self.site.topic.records(), &lines, &self.site.rejected());
        assert_eq!(self.parts(), [""; 0]);
        self.check_manifests();
    }

    /// Files of interrupted attempts.
    fn parts(&self) -> Vec<String> {
        files(&self.dir).into_iter().filter(|path| path.ends_with(".part")).collect()
    }

    /// Each file is in one manifest, with its size.
    #[track_caller]
    fn check_manifests(&self) {
        let files = tree(&self.dir);
        let mut listed = BTreeMap::new();
        for (path, text) in files.iter().filter(|(path, _)| path.starts_with("_manifest/")) {
            let manifest: Value = serde_json::from_slice(text).expect("a manifest is JSON");
            let entries = manifest["files"].as_array().expect("files");
            let lines: u64 = entries.iter().map(|entry| entry["rows"].as_u64().expect("rows")).sum();
            assert_eq!(manifest["lines"], lines, "{path}");
            for entry in entries {
                let file = entry["path"].as_str().expect("a path").to_owned();
                assert_eq!(listed.insert(file, entry["bytes"].clone()), None, "in two manifests");
            }
        }
        let others = files.iter().filter(|(path, _)| !path.starts_with("_manifest/"));
        let there = others.map(|(path, bytes)| (path.clone(), Value::from(bytes.len()))).collect();
        assert_eq!(listed, there);
    }
}

/// Paths of all files below `dir`, in it, without the id of a lake.
fn files(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut open = vec![dir.to_owned()];
    while let Some(next) = open.pop() {
        for path in fs::read_dir(&next).into_iter().flatten().flatten().map(|entry| entry.path()) {
            match path.is_dir() {
                true => open.push(path),
                false => found.push(path.strip_prefix(dir).expect("below").to_string_lossy().into_owned()),
            }
        }
    }
    found.retain(|path| path != "_lake");
    found.sort();
    found
}

/// The content of each of them.
fn tree(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    files(dir).into_iter().map(|path| (path.clone(), fs::read(dir.join(path)).expect("read"))).collect()
}
