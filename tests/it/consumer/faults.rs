//! Disks that fill up, vanish or refuse: said, waited for, and nothing lost or doubled.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use event_pipeline::consumer::EXIT_UNDECIDED;

use crate::consumer::load::{Load, event_lines};
use crate::consumer::{Site, metric, wait_metric, wait_problem, wait_ready};
use crate::support::admin;
use crate::support::kafka::{Cluster, shared};
use crate::support::process::Program;
use crate::support::wait::{eventually, secs};

/// A small file system in memory, unmounted at the end.
pub struct Tmpfs(pub PathBuf);

impl Tmpfs {
    pub fn mount(path: &Path, size: &str) -> Self {
        fs::create_dir_all(path).expect("directory");
        let options = format!("size={size}");
        let status = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(path).status();
        assert!(
            status.is_ok_and(|status| status.success()),
            "mounting a tmpfs needs root: run the tests as root"
        );
        Self(path.to_path_buf())
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_is_said_and_waited_for() {
    let topic = shared().topic();
    let site = Site::new(&topic);
    let tmpfs = Tmpfs::mount(&site.logs(), "1m");
    let ballast = tmpfs.0.join("ballast");
    fs::write(&ballast, vec![0; 600_000]).expect("write");
    let mut consumer = site.start_ready(&[]);
    let events = event_lines(3000, 200);
    let (first, rest) = events.split_at(events.len() / 6 + 200 - (events.len() / 6) % 200);
    let cut = first.rfind('\n').expect("a line") + 1;
    topic.kcat(&["-P"], &first.as_bytes()[..cut]);
    site.wait_caught_up();
    topic.kcat(&["-P"], format!("{}{rest}", &first[cut..]).as_bytes());
    wait_problem(&mut consumer, "No space left on device");
    assert!(metric(&mut consumer, "pipeline_log_write_errors_total") > 0.0);
    let covered = site.covered();
    assert!(covered > 0 && covered < 3000, "{covered}");
    fs::remove_file(&ballast).expect("remove");
    site.wait_caught_up();
    wait_ready(&mut consumer);
    wait_metric(&mut consumer, "pipeline_log_events_total", 3000.0);
    site.audit();
    assert!(consumer.terminate(secs(60)).success());
    drop(tmpfs);
}

#[test]
fn a_limit_of_file_sizes_is_a_full_disk() {
    let topic = shared().topic();
    let site = Site::new(&topic);
    let script = "ulimit -S -f 200; exec \"$0\"";
    let mut consumer = Program::new("consumer", "/bin/sh")
        .dir(site.dir.path())
        .args(&["-c", script, env!("CARGO_BIN_EXE_consumer")])
        .env("KAFKA_BROKERS", topic.brokers())
        .env("KAFKA_TOPIC", &topic.name)
        .env("METRICS_ADDR", "127.0.0.1:0")
        .start();
    wait_ready(&mut consumer);
    topic.kcat(&["-P"], event_lines(3000, 200).as_bytes());
    wait_problem(&mut consumer, "File too large");
    let pid = consumer.pid().to_string();
    let raised = Command::new("prlimit").args(["--pid", &pid, "--fsize=unlimited:"]).status();
    assert!(raised.is_ok_and(|status| status.success()));
    site.wait_caught_up();
    wait_ready(&mut consumer);
    site.audit();
    assert!(consumer.terminate(secs(30)).success());
}

#[test]
fn a_full_disk_under_load_and_a_kill_lose_and_repeat_nothing() {
    let topic = shared().topic();
    let site = Site::new(&topic);
    let tmpfs = Tmpfs::mount(&site.logs(), "1m");
    let load = Load::start(&topic);
    let mut consumer = site.start(&[("LOG_ROTATE_BYTES", "100000")]);
    wait_problem(&mut consumer, "No space left on device");
    consumer.kill();
    let mut consumer = site.start(&[("LOG_ROTATE_BYTES", "100000")]);
    wait_problem(&mut consumer, "No space left on device");
    load.finish();
    let status =
        Command::new("mount").args(["-o", "remount,size=512m"]).arg(&tmpfs.0).status().expect("mount");
    assert!(status.success());
    site.wait_caught_up();
    wait_ready(&mut consumer);
    site.audit();
    assert!(consumer.terminate(secs(60)).success());
}

#[test]
fn a_directory_that_is_gone_is_waited_for() {
    let topic = shared().topic();
    let site = Site::new(&topic);
    let mut consumer = site.start_ready(&[]);
    topic.kcat(&["-P"], b"{\"n\": 1}\n");
    site.wait_caught_up();
    let elsewhere = site.path("elsewhere");
    fs::rename(site.logs(), &elsewhere).expect("move away");
    topic.kcat(&["-P"], b"{\"n\": 2}\n");
    wait_problem(&mut consumer, "No such file or directory");
    fs::rename(&elsewhere, site.logs()).expect("move back");
    site.wait_caught_up();
    wait_ready(&mut consumer);
    site.audit();
    // Deleted for good: what stood there is gone with it, what comes goes into a new log.
    fs::remove_dir_all(site.logs()).expect("delete");
    topic.kcat(&["-P"], b"{\"n\": 3}\n");
    wait_problem(&mut consumer, "No such file or directory");
    fs::create_dir(site.logs()).expect("create");
    site.wait_caught_up();
    wait_ready(&mut consumer);
    assert_eq!(site.lines().len(), 1);
    assert!(site.lines()[0].ends_with("{\"n\": 3}"));
}

/// The consumer as a user who may write in the log's directory. Root may write everywhere.
pub(super) fn as_nobody(site: &Site<'_>, settings: &[(&str, &str)]) -> Program {
    const NOBODY: &str = "65534";
    fs::create_dir(site.logs()).expect("create");
    for path in [site.dir.path(), &site.logs()] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o777)).expect("chmod");
    }
    // In a place where that user may read it.
    let binary = site.path("consumer");
    fs::copy(env!("CARGO_BIN_EXE_consumer"), &binary).expect("copy");
    let arguments = ["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups", binary.to_str().expect("path")];
    let program = Program::new("consumer", "setpriv")
        .dir(site.dir.path())
        .args(&arguments)
        .env("KAFKA_BROKERS", site.topic.brokers())
        .env("KAFKA_TOPIC", &site.topic.name)
        .env("METRICS_ADDR", "127.0.0.1:0");
    settings.iter().fold(program, |program, (name, value)| program.env(name, value))
}

#[test]
fn a_directory_without_write_permission_is_said_and_waited_for() {
    let topic = shared().topic();
    let site = Site::new(&topic);
    let mut consumer = as_nobody(&site, &[]).start();
    wait_ready(&mut consumer);
    topic.kcat(&["-P"], b"{\"n\": 1}\n");
    site.wait_caught_up();
    fs::set_permissions(site.logs(), fs::Permissions::from_mode(0o555)).expect("chmod");
    topic.kcat(&["-P"], b"{\"n\": 2}\n");
    wait_problem(&mut consumer, "Permission denied");
    assert_eq!(site.covered(), 1);
    fs::set_permissions(site.logs(), fs::Permissions::from_mode(0o777)).expect("chmod");
    site.wait_caught_up();
    wait_ready(&mut consumer);
    site.audit();
}

#[test]
fn a_broker_that_dies_is_waited_for() {
    let cluster = Cluster::start(1);
    let topic = cluster.topic();
    let site = Site::new(&topic);
    let mut consumer = site.start_ready(&[]);
    topic.kcat(&["-P"], b"{\"n\": 1}\n");
    site.wait_caught_up();
    cluster.kill(1);
    wait_problem(&mut consumer, "kafka");
    assert_eq!(metric(&mut consumer, "pipeline_kafka_connected"), 0.0);
    assert!(consumer.is_alive());
    cluster.restart(1);
    wait_ready(&mut consumer);
    topic.kcat(&["-P"], b"{\"n\": 2}\n");
    site.wait_caught_up();
    site.audit();
    // A broker that is silent instead of gone: the stop must not wait for it for ever.
    cluster.pause(1);
    wait_problem(&mut consumer, "kafka");
    let status = consumer.terminate(secs(60));
    cluster.resume(1);
    assert!(status.success(), "{status}");
}

#[test]
fn a_topic_that_was_recreated_is_refused_with_the_ways_out() {
    let topic = shared().topic_with(1, &[]);
    let site = Site::new(&topic);
    let mut consumer = site.start_ready(&[]);
    topic.kcat(&["-P"], b"{\"n\": 1}\n{\"n\": 2}\n{\"n\": 3}\n");
    site.wait_caught_up();
    assert!(consumer.terminate(secs(60)).success());
    topic.delete();
    let again = shared().topic_named(&topic.name, 1);
    again.kcat(&["-P"], event_lines(4, 100).as_bytes());
    let refused = site.program(&[]).run(secs(60));
    assert_eq!(refused.status.code(), Some(i32::from(EXIT_UNDECIDED)));
    for words in ["deleted and created again", "KAFKA_GROUP", "KAFKA_AUTO_OFFSET_RESET"] {
        assert!(refused.stderr.contains(words), "{words}: {}", refused.stderr);
    }
    let _consumer = site.start_ready(&[("KAFKA_AUTO_OFFSET_RESET", "earliest")]);
    eventually(secs(60), "the new topic is logged", || site.lines().len() == 3 + 4);
}

#[test]
fn a_topic_that_is_recreated_under_a_running_consumer_ends_it() {
    let topic = shared().topic_with(1, &[]);
    let site = Site::new(&topic);
    let mut consumer = site.start_ready(&[("KAFKA_METADATA_MAX_AGE_MS", "100")]);
    topic.kcat(&["-P"], b"{\"n\": 1}\n");
    site.wait_caught_up();
    // Whoever asks for the topic next creates it, also the consumer itself.
    admin::delete_topic(&topic.brokers(), &topic.name);
    let status = consumer.wait(secs(60));
    assert_eq!(status.code(), Some(i32::from(EXIT_UNDECIDED)));
    let said = consumer.stderr();
    for words in ["created again", "Options:", "KAFKA_GROUP", "KAFKA_AUTO_OFFSET_RESET"] {
        assert!(said.contains(words), "no {words:?} in: {said}");
    }
}

/// The decision was made by the setting, and the next start carries it out: a supervisor shall start it again.
#[test]
fn a_recreated_topic_is_read_by_the_next_start_where_that_is_decided() {
    const EARLIEST: &[(&str, &str)] =
        &[("KAFKA_AUTO_OFFSET_RESET", "earliest"), ("KAFKA_METADATA_MAX_AGE_MS", "100")];
    let topic = shared().topic_with(1, &[]);
    let site = Site::new(&topic);
    let mut consumer = site.start_ready(EARLIEST);
    topic.kcat(&["-P"], b"{\"n\": 1}\n{\"n\": 2}\n");
    site.wait_caught_up();
    admin::delete_topic(&topic.brokers(), &topic.name);
    assert_eq!(consumer.wait(secs(60)).code(), Some(1), "{}", consumer.stderr());
    let _consumer = site.start_ready(EARLIEST);
    topic.kcat(&["-P"], b"{\"n\": 3}\n");
    eventually(secs(60), "the new topic is logged", || site.lines().len() == 3);
}

/// A topic that is deleted and comes back before the consumer looks is not read from the offset in the old one.
#[test]
fn a_topic_recreated_between_two_fetches_is_read_from_its_beginning() {
    const EARLIEST: &[(&str, &str)] = &[("KAFKA_AUTO_OFFSET_RESET", "earliest")];
    let cluster = crate::support::kafka::Cluster::with_properties(1, "auto.create.topics.enable=false\n");
    let topic = cluster.topic_with(1, &[]);
    let site = Site::new(&topic);
    let mut consumer = site.start_ready(EARLIEST);
    topic.kcat(&["-P"], event_lines(100, 100).as_bytes());
    site.wait_caught_up();
    crate::support::process::send_signal(consumer.pid(), libc::SIGSTOP);
    let stopped = std::time::Instant::now();
    topic.delete();
    let again = cluster.topic_named(&topic.name, 1);
    let others: String = (0..150).map(|number| format!("{{\"other\":{number}}}\n")).collect();
    again.kcat(&["-P"], others.as_bytes());
    eventually(secs(5), "it has paused for longer than a second", || stopped.elapsed() > secs(1));
    crate::support::process::send_signal(consumer.pid(), libc::SIGCONT);
    assert_eq!(consumer.wait(secs(120)).code(), Some(1), "{}", consumer.stderr());
    let _consumer = site.start_ready(EARLIEST);
    eventually(secs(60), "the new topic is logged", || site.covered() == 150);
    assert_eq!(site.lines().len(), 250);
}
