//! Tests of handing closed logs to another place.

use std::collections::BTreeMap;
use std::fs::FileTimes;
use std::sync::Arc;
use std::time::SystemTime;

use parking_lot::Mutex;

use super::*;
use crate::consumer::log::checkpoint::{Checkpoint, LogMarks};
use crate::consumer::progress::Progress;

type Calls = Arc<Mutex<Vec<String>>>;

/// A place that takes every log, except those with an error.
struct Store {
    errors: BTreeMap<&'static str, ForwardError>,
    has: Vec<String>,
    calls: Calls,
}

fn name_of(log: &Path) -> String {
    log.file_name().expect("a name").to_string_lossy().into_owned()
}

impl Store {
    fn answer(&mut self, call: &str, log: &Path) -> Result<(), ForwardError> {
        self.calls.lock().push(format!("{call} {}", name_of(log)));
        self.errors.remove(name_of(log).as_str()).map_or(Ok(()), Err)
    }
}

impl Forward for Store {
    fn prepare(&mut self) -> Result<(), ForwardError> {
        self.errors.remove("prepare").map_or(Ok(()), Err)
    }

    fn has(&mut self, log: &Path) -> Result<bool, ForwardError> {
        Ok(self.has.contains(&name_of(log)))
    }

    fn forward(&mut self, log: &Path, _: &dyn Fn() -> bool) -> Result<(), ForwardError> {
        self.answer("forward", log).map(|()| self.has.push(name_of(log)))
    }

    fn confirm(&mut self, log: &Path) -> Result<(), ForwardError> {
        self.answer("confirm", log)
    }

    fn set_behind(&self, logs: usize) {
        self.calls.lock().push(format!("behind {logs}"));
    }

    fn report(&self, problem: Option<&str>) {
        self.calls.lock().push(format!("report {problem:?}"));
    }
}

/// A directory with the closed logs a, b and c, and a place without any of them.
struct Scene {
    dir: tempfile::TempDir,
    paths: Paths,
    forwarding: Forwarding,
    calls: Calls,
}

impl Scene {
    fn new(errors: impl Into<BTreeMap<&'static str, ForwardError>>) -> Self {
        let dir = tempfile::tempdir().expect("directory");
        let calls = Calls::default();
        let store = Store { errors: errors.into(), has: Vec::new(), calls: calls.clone() };
        let paths = Paths::of(&dir.path().join("events.log"));
        let forwarding = Forwarding { place: Box::new(store), keeps_logs: false, min_age_millis: 0 };
        for name in ["a", "b", "c.gz", "events.log"] {
            fs::write(dir.path().join(name), name).expect("written");
        }
        Self { dir, paths, forwarding, calls }
    }

    /// The logs that a pass leaves, and whether another one is needed.
    fn pass(&mut self) -> (String, bool) {
        self.pass_keeping(0)
    }

    fn pass_keeping(&mut self, keep: usize) -> (String, bool) {
        let closed = ["a", "b", "c"].map(|name| self.dir.path().join(name));
        let there = closed.into_iter().filter(|log| log.exists() || beside(log, ".gz").exists()).collect();
        let passed = self.forwarding.pass(&self.paths, there, keep, &|| false);
        (passed.kept.iter().map(|log| name_of(log)).collect(), passed.has_failed)
    }

    fn files(&self) -> String {
        let mut names: Vec<String> = ["a", "b", "c.gz"].map(str::to_owned).into();
        names.retain(|name| self.dir.path().join(name).exists());
        names.concat()
    }
}

#[test]
fn logs_go_in_their_order_and_are_removed_once_that_is_confirmed() {
    let mut scene = Scene::new([]);
    assert_eq!((scene.pass(), scene.files()), ((String::new(), false), String::new()));
    let calls = scene.calls.lock().join(", ");
    let one = |behind: usize, log: &str| format!("behind {behind}, forward {log}, confirm {log}");
    let all = [one(3, "a"), one(2, "b"), one(1, "c")].join(", ");
    assert_eq!(calls, format!("{all}, behind 0, report None"));
}

#[test]
fn a_log_that_is_refused_stays_and_holds_up_no_other() {
    let mut scene = Scene::new([("a", ForwardError::Log("bad a".into()))]);
    assert_eq!((scene.pass(), scene.files()), ((String::new(), true), "a".into()));
    assert!(scene.calls.lock().join(", ").ends_with("behind 1, report Some(\"bad a\")"));
    assert_eq!((scene.pass(), scene.files()), ((String::new(), false), String::new()));
}

#[test]
fn nothing_is_removed_while_the_place_does_not_work() {
    for what in ["prepare", "a"] {
        let mut scene = Scene::new([(what, ForwardError::Place("full".into()))]);
        assert_eq!((scene.pass(), scene.files()), ((String::new(), true), "abc.gz".into()), "{what}");
        assert!(scene.calls.lock().join(", ").ends_with("behind 3, report Some(\"full\")"));
    }
    let mut scene = Scene::new([("b", ForwardError::Stopped)]);
    assert_eq!((scene.pass(), scene.files()), ((String::new(), true), "bc.gz".into()));
    assert!(scene.calls.lock().join(", ").ends_with("behind 2"), "a stop is no problem");
}

#[test]
fn of_logs_that_stay_the_oldest_go_and_one_that_cannot_go_holds_up_no_other() {
    let mut scene = Scene::new([]);
    scene.forwarding.keeps_logs = true;
    let store = Store {
        errors: [("a", ForwardError::Log("bad a".into()))].into(),
        has: ["a", "b", "c"].map(str::to_owned).into(),
        calls: scene.calls.clone(),
    };
    scene.forwarding.place = Box::new(store);
    assert_eq!((scene.pass_keeping(1), scene.files()), (("c".into(), true), "ac.gz".into()));
    let calls = scene.calls.lock().join(", ");
    assert_eq!(calls, "confirm a, confirm b, behind 0, report Some(\"bad a\")");
}

#[test]
fn logs_that_a_start_may_still_look_for_stay() {
    let mut scene = Scene::new([]);
    scene.forwarding.keeps_logs = true;
    assert_eq!((scene.pass(), scene.files()), (("abc".into(), false), "abc.gz".into()));
    scene.forwarding.keeps_logs = false;
    let marks = LogMarks { rotate_to: Some("b".into()), ..LogMarks::default() };
    let checkpoint = Checkpoint::new(Progress::default(), marks);
    fs::write(&scene.paths.checkpoint, checkpoint.encode()).expect("written");
    assert_eq!((scene.pass(), scene.files()), (("b".into(), false), "b".into()));
    fs::remove_file(&scene.paths.checkpoint).expect("removed");
    scene.forwarding.min_age_millis = 3_600_000;
    let set_age = |log: &Path, seconds: u64| {
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000 - seconds);
        fs::File::open(log)
            .and_then(|file| file.set_times(FileTimes::new().set_modified(time)))
            .expect("set");
    };
    set_age(&scene.paths.log, 0);
    set_age(&scene.dir.path().join("b"), 3600);
    assert_eq!((scene.pass(), scene.files()), (("b".into(), false), "b".into()));
    set_age(&scene.dir.path().join("b"), 3601);
    assert_eq!((scene.pass(), scene.files()), ((String::new(), false), String::new()));
}
