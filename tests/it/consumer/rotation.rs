//! Closing the log: by size, by logrotate, packed, and how many are kept.

use std::fs;

use crate::consumer::load::event_lines;
use crate::consumer::{Site, lines_of, log_files, metric};
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
