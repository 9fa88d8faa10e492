//! Lakes that fill up, refuse or stand in the way: said, waited for, and the log goes on.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use super::{LakeSite, files};
use crate::consumer::faults::{Tmpfs, as_nobody};
use crate::consumer::load::{event_halves, event_lines};
use crate::consumer::{metric, wait_metric, wait_problem, wait_ready};
use crate::support::kafka::shared;
use crate::support::wait::secs;

/// Values that gzip cannot make small.
fn random_lines(count: usize) -> String {
    let number = || fastrand::u128(..);
    (0..count)
        .map(|n| {
            format!(
                "{{\"number\": {n}, \"random\": \"{:x}{:x}{:x}{:x}\"}}\n",
                number(),
                number(),
                number(),
                number()
            )
        })
        .collect()
}

#[test]
fn a_full_lake_on_another_file_system_delays_no_event_and_goes_on_by_itself() {
    let topic = shared().topic();
    let lake = LakeSite::new(&topic);
    let tmpfs = Tmpfs::mount(&lake.dir, "1m");
    let ballast = lake.dir.join("ballast");
    fs::write(&ballast, vec![0; 900_000]).expect("written");
    let mut consumer = lake.site.start(&lake.settings(&[("LOG_ROTATE_BYTES", "200000")]));
    topic.kcat(&["-P"], random_lines(6000).as_bytes());
    wait_problem(&mut consumer, "No space left on device");
    // The log does not wait for the lake.
    lake.site.wait_caught_up();
    wait_metric(&mut consumer, "pipeline_log_events_total", 6000.0);
    assert!(metric(&mut consumer, "pipeline_lake_errors_total") > 0.0);
    assert!(metric(&mut consumer, "pipeline_lake_behind_files") > 0.0);
    assert!(!lake.closed().is_empty());
    fs::remove_file(&ballast).expect("removed");
    lake.wait_moved();
    wait_ready(&mut consumer);
    lake.audit();
    assert!(consumer.terminate(secs(60)).success());
    drop(tmpfs);
}

#[test]
fn a_lake_without_write_permission_is_said_and_waited_for() {
    let topic = shared().topic();
    let lake = LakeSite::new(&topic);
    let chmod = |mode| fs::set_permissions(&lake.dir, fs::Permissions::from_mode(mode)).expect("chmod");
    fs::create_dir(&lake.dir).expect("created");
    chmod(0o555);
    let mut consumer = as_nobody(&lake.site, &lake.settings(&[("LOG_ROTATE_BYTES", "100000")])).start();
    topic.kcat(&["-P"], event_lines(2000, 300).as_bytes());
    wait_problem(&mut consumer, "let the user of this process write there");
    lake.site.wait_caught_up();
    assert!(!lake.closed().is_empty());
    chmod(0o777);
    lake.audit();
    wait_ready(&mut consumer);
    assert!(consumer.terminate(secs(60)).success());
}

/// A directory that is seen at another place, as a file system that can be unmounted.
struct Mounted<'a>(&'a Path);

impl<'a> Mounted<'a> {
    fn bind(from: &Path, to: &'a Path) -> Self {
        let status = Command::new("mount").arg("--bind").args([from, to]).status().expect("mount runs");
        assert!(status.success(), "mounting needs root: run the tests as root");
        Self(to)
    }
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.0).status();
    }
}

#[test]
fn a_lake_that_is_not_mounted_is_waited_for_and_not_begun_somewhere_else() {
    let topic = shared().topic();
    let lake = LakeSite::new(&topic);
    let real = lake.site.path("real");
    [&real, &lake.dir].iter().for_each(|dir| fs::create_dir(dir).expect("created"));
    let mounted = Mounted::bind(&real, &lake.dir);
    let settings = lake.settings(&[("LOG_ROTATE_BYTES", "100000")]);
    let mut consumer = lake.site.start_ready(&settings);
    let [first, second] = event_halves(4000, 300);
    topic.kcat(&["-P"], first.as_bytes());
    lake.site.wait_caught_up();
    lake.wait_moved();
    drop(mounted);
    topic.kcat(&["-P"], second.as_bytes());
    wait_problem(&mut consumer, "is its file system mounted?");
    assert!(consumer.terminate(secs(60)).success());
    // Nor does a start take the empty directory for the lake.
    let mut consumer = lake.site.start(&settings);
    wait_problem(&mut consumer, "is its file system mounted?");
    lake.site.wait_caught_up();
    assert!(!lake.closed().is_empty() && files(&lake.dir).is_empty());
    let _mounted = Mounted::bind(&real, &lake.dir);
    lake.wait_moved();
    wait_ready(&mut consumer);
    lake.audit();
    assert!(consumer.terminate(secs(60)).success());
}
