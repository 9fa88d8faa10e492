//! SIGKILL of the consumer at random moments under load, with and without rotation and a dying broker.
//!
//! `CONSUMER_KILL_ROUNDS` sets the rounds; a handful is enough for every day, a release takes 100.

use std::thread;
use std::time::Duration;

use crate::consumer::load::Load;
use crate::consumer::{Site, log_files};
use crate::support::kafka::{Cluster, shared};
use crate::support::wait::{eventually, secs};

const ROTATE: (&str, &str) = ("LOG_ROTATE_BYTES", "200000");

pub fn rounds() -> usize {
    std::env::var("CONSUMER_KILL_ROUNDS")
        .map_or(6, |text| text.parse().expect("CONSUMER_KILL_ROUNDS is a number"))
}

/// Kills the consumer `rounds` times; `broker` says which broker is killed now and then, too.
fn kill_rounds(cluster: &Cluster, settings: &[(&str, &str)], kill_broker: bool) {
    let topic = cluster.topic();
    let site = Site::new(&topic);
    let load = Load::start(&topic);
    let mut covered = Vec::new();
    for round in 0..rounds() {
        let mut consumer = site.start(settings);
        if round % 2 == 0 {
            let before = site.covered();
            eventually(secs(60), "the consumer makes progress", || site.covered() > before);
        }
        // The moment is random on purpose: start, middle of a write, rotation.
        thread::sleep(Duration::from_millis(fastrand::u64(0..600)));
        if kill_broker && round % 3 == 1 {
            cluster.kill(1);
            thread::sleep(Duration::from_millis(fastrand::u64(0..300)));
            consumer.kill();
            cluster.restart(1);
        }
        consumer.kill();
        covered.push(site.covered());
    }
    let mut consumer = site.start_ready(settings);
    if settings.contains(&ROTATE) {
        eventually(secs(60), "a log was closed", || log_files(&site.logs()).len() > 1);
    }
    let acknowledged = load.finish();
    site.wait_caught_up();
    assert!(consumer.terminate(secs(60)).success());
    assert!(covered.is_sorted() && covered.last() > Some(&0), "covered after each round: {covered:?}");
    assert!(topic.count() >= acknowledged && acknowledged > 0);
    site.audit();
}

#[test]
fn kills_lose_and_repeat_nothing() {
    kill_rounds(shared(), &[], false);
}

#[test]
fn kills_with_rotation_lose_and_repeat_nothing() {
    kill_rounds(shared(), &[ROTATE], false);
}

#[test]
fn kills_with_fsync_by_interval_lose_and_repeat_nothing() {
    kill_rounds(shared(), &[("LOG_FSYNC", "interval:200")], false);
}

#[test]
fn kills_without_fsync_lose_and_repeat_nothing() {
    kill_rounds(shared(), &[("LOG_FSYNC", "never")], false);
}

#[test]
fn kills_of_consumer_and_broker_lose_and_repeat_nothing() {
    kill_rounds(&Cluster::start(1), &[], true);
}

#[test]
fn kills_of_consumer_and_broker_with_rotation_lose_and_repeat_nothing() {
    kill_rounds(&Cluster::start(1), &[ROTATE], true);
}
