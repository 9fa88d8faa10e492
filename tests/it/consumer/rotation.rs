//! Closing the log: by size, by logrotate, packed, and how many are kept.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::consumer::load::event_lines;
use crate::consumer::{Site, lines_of, log_files, metric, payload};
use crate::support::kafka::shared;
use crate::support::wait::{eventually, secs};

#[test]
fn closed_logs_are_no_longer_than_allowed_and_together_whole() {
    let topic = shared().topic();
    let site = Site::new(&topic);
    let mut consumer = site.start_ready(&[("LOG_ROTATE_BYTES", "100000")]);
    topic.kcat(&["-P"], event_lines(2000, 300).as_bytes());
    site.wait_caught_up();
    let files = log_files(&site.logs());
    assert!(files.len() >= 6, "{files:?}");
    assert!(files.iter().all(|path| fs::metadata(path).expect("file").len() <= 100_000));
    assert_eq!(metric(&mut consumer, "pipeline_log_rotations_total") as usize, files.len() - 1);
    site.audit();
}

#[test]
fn closed_logs_are_packed_and_the_oldest_removed() {
    let topic = shared().topic_with(1, &[]);
    let site = Site::new(&topic);
    let settings = [("LOG_ROTATE_BYTES", "100000"), ("LOG_ROTATE_KEEP", "3"), ("LOG_ROTATE_GZIP", "true")];
    let mut consumer = site.start_ready(&settings);
    let input = event_lines(2000, 300);
    topic.kcat(&["-P"], input.as_bytes());
    site.wait_caught_up();
    let packed = |path: &std::path::PathBuf| path.extension().is_some_and(|extension| extension == "gz");
    eventually(secs(60), "three packed logs and the open one", || {
        let files = log_files(&site.logs());
        files.len() == 4 && files[..3].iter().all(packed)
    });
    assert!(consumer.terminate(secs(60)).success());
    // One partition is in order, so what is left is the end of the input.
    let left = site.lines();
    let newest: Vec<&str> = input.lines().skip(2000 - left.len()).collect();
    assert!(left.len() > 600 && left.iter().zip(newest).all(|(line, event)| line.ends_with(event)));
}

#[test]
fn logrotate_may_rename_the_log_and_send_sighup() {
    let topic = shared().topic();
    let site = Site::new(&topic);
    let (log, renamed) = (site.path("logs/events.log"), site.path("logs/events.log.1"));
    let mut consumer = site.start_ready(&[]);
    topic.kcat(&["-P"], b"{\"n\": 1}\n{\"n\": 2}\n");
    site.wait_caught_up();
    fs::rename(&log, &renamed).expect("rename");
    consumer.signal(libc::SIGHUP);
    eventually(secs(60), "the log is there again", || log.exists());
    topic.kcat(&["-P"], b"{\"n\": 3}\n");
    site.wait_caught_up();
    assert_eq!((lines_of(&renamed).len(), lines_of(&log).len()), (2, 1));
    assert!(consumer.is_alive());
    site.audit();
}

#[test]
fn a_kill_between_the_rename_and_sighup_loses_and_repeats_nothing() {
    let topic = shared().topic();
    let site = Site::new(&topic);
    let mut consumer = site.start_ready(&[]);
    topic.kcat(&["-P"], b"{\"n\": 1}\n{\"n\": 2}\n");
    site.wait_caught_up();
    consumer.signal(libc::SIGSTOP);
    fs::rename(site.path("logs/events.log"), site.path("logs/events.log.1")).expect("rename");
    consumer.kill();
    topic.kcat(&["-P"], b"{\"n\": 3}\n");
    let _consumer = site.start_ready(&[]);
    site.wait_caught_up();
    assert_eq!(lines_of(&site.path("logs/events.log.1")).len(), 2);
    site.audit();
}

/// Rotates `log` as a nightly logrotate with `compress` does, and sends SIGHUP to `pid`.
fn logrotate(log: &Path, pid: u32) {
    let dir = log.parent().and_then(Path::parent).expect("a directory for the log's directory");
    let (config, state) = (dir.join("logrotate.conf"), dir.join("logrotate.state"));
    let text = format!(
        "{} {{\n  rotate 9\n  compress\n  postrotate\n    kill -HUP {pid}\n  endscript\n}}\n",
        log.display()
    );
    fs::write(&config, text).expect("write");
    let output = Command::new("logrotate").arg("--force").arg("--state").args([&state, &config]).output();
    let output = output.expect("logrotate starts (Debian: apt-get install logrotate)");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn logrotate_may_compress_lines_that_are_not_on_the_disk_yet() {
    let topic = shared().topic();
    let site = Site::new(&topic);
    let log = site.path("logs/events.log");
    let mut consumer = site.start_ready(&[("LOG_FSYNC", "interval:60000")]);
    for round in 0..3 {
        topic.kcat(&["-P"], format!("{{\"n\": {}}}\n{{\"n\": {}}}\n", 2 * round, 2 * round + 1).as_bytes());
        eventually(secs(60), "both lines are written", || fs::metadata(&log).is_ok_and(|log| log.len() > 60));
        // Slower than logrotate, as on a busy machine: gzip has read the file when SIGHUP is answered.
        consumer.signal(libc::SIGSTOP);
        logrotate(&log, consumer.pid());
        consumer.signal(libc::SIGCONT);
        eventually(secs(60), "a new log", || log.exists());
    }
    assert!(consumer.terminate(secs(30)).success());
    assert_eq!(log_files(&site.logs()).len(), 4);
    site.audit();
}

#[test]
fn the_newest_logs_are_kept_although_the_clock_was_set_back() {
    let topic = shared().topic_with(1, &[]);
    let site = Site::new(&topic);
    fs::create_dir(site.logs()).expect("create");
    for number in 0..3 {
        let name = format!("logs/events-20990101T000000000Z-00{number}.log");
        fs::write(site.path(&name), "2099-01-01 00:00:00,000 - {\"old\": true}\n").expect("write");
    }
    let settings = [("LOG_ROTATE_BYTES", "100000"), ("LOG_ROTATE_KEEP", "3")];
    let closed = || log_files(&site.logs()).len() - 1;
    let newest = |input: &str| {
        let left: Vec<String> = site.lines().iter().map(|line| payload(line).to_owned()).collect();
        let last: Vec<&str> = input.lines().skip(input.lines().count() - left.len()).collect();
        assert!(left.len() > 600 && left == last, "{:?}", log_files(&site.logs()));
    };
    let mut consumer = site.start_ready(&settings);
    let mut input = event_lines(2000, 300);
    topic.kcat(&["-P"], input.as_bytes());
    site.wait_caught_up();
    eventually(secs(30), "three closed logs", || closed() == 3);
    assert!(consumer.terminate(secs(30)).success());
    newest(&input);
    // Without its checkpoint it goes on after the numbers that it finds.
    fs::remove_file(site.path("logs/events.log.checkpoint")).expect("remove");
    let mut consumer = site.start_ready(&settings);
    let more = event_lines(2000, 320);
    topic.kcat(&["-P"], more.as_bytes());
    site.wait_caught_up();
    eventually(secs(30), "three closed logs", || closed() == 3);
    assert!(consumer.terminate(secs(30)).success());
    input.push_str(&more);
    newest(&input);
}

#[test]
fn only_files_are_taken_for_logs() {
    let topic = shared().topic();
    let site = Site::new(&topic);
    let settings = [("LOG_ROTATE_BYTES", "4096"), ("LOG_ROTATE_KEEP", "1")];
    let mut consumer = site.start_ready(&settings);
    topic.kcat(&["-P"], b"{\"n\": 1}\n{\"n\": 2}\n");
    site.wait_caught_up();
    consumer.signal(libc::SIGSTOP);
    fs::rename(site.path("logs/events.log"), site.path("logs/events.log.1")).expect("rename");
    consumer.kill();
    let (directory, closed) =
        (site.path("logs/events.d"), site.path("logs/events-20261124T081546032Z-000.log"));
    for path in [&directory, &closed] {
        fs::create_dir(path).expect("create");
    }
    let fifo = Command::new("mkfifo").arg(site.path("logs/events.fifo")).status();
    assert!(fifo.is_ok_and(|status| status.success()));
    topic.kcat(&["-P"], b"{\"n\": 3}\n");
    let mut consumer = site.start_ready(&settings);
    site.wait_caught_up();
    site.audit();
    // Two more closed logs: the older one is removed, the directories stay.
    topic.kcat(&["-P"], event_lines(40, 300).as_bytes());
    site.wait_caught_up();
    let is_closed = |path: &std::path::PathBuf| path.to_string_lossy().contains("/events-");
    eventually(secs(30), "one closed log", || {
        log_files(&site.logs()).iter().filter(|p| is_closed(p)).count() == 1
    });
    assert!(consumer.terminate(secs(30)).success());
    assert!(directory.is_dir() && closed.is_dir(), "{}", consumer.stderr());
}
