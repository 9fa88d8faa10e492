//! A partition without a leader waits; the others, and those that are added, are logged meanwhile.

use crate::consumer::{Site, wait_problem, wait_ready};
use crate::support::admin;
use crate::support::kafka::Cluster;
use crate::support::topic::Topic;
use crate::support::wait::{eventually, secs};

const WATCHFUL: &[(&str, &str)] = &[("KAFKA_METADATA_MAX_AGE_MS", "500")];

/// Sends one event to `partition` and waits for its line.
#[track_caller]
fn send_and_see(site: &Site<'_>, topic: &Topic, partition: i32, text: &str) {
    let event = format!("{{\"event\": \"{text}\"}}");
    topic.kcat(&["-P", "-p", &partition.to_string()], format!("{event}\n").as_bytes());
    eventually(secs(60), &format!("{text} is logged"), || {
        site.lines().iter().any(|line| line.ends_with(&event))
    });
}

#[test]
fn the_others_are_read_from_the_start_on_and_it_is_taken_up_where_it_was() {
    let cluster = Cluster::start(2);
    let topic = cluster.topic_on(&[&[1], &[2], &[1]]);
    let site = Site::new(&topic);
    // Partition 1 has a place in the checkpoint, and records that were not read.
    let mut consumer = site.start_ready(WATCHFUL);
    for partition in 0..3 {
        send_and_see(&site, &topic, partition, &format!("before, {partition}"));
    }
    assert!(consumer.terminate(secs(60)).success());
    topic.kcat(&["-P", "-p", "1"], b"{\"event\": \"unread\"}\n");
    cluster.kill(2);
    eventually(secs(60), "partition 1 has no leader", || {
        let leader = topic.metadata().partitions[1].leader;
        leader == -1
    });

    let mut consumer = site.start(WATCHFUL);
    send_and_see(&site, &topic, 0, "without partition 1");
    wait_problem(&mut consumer, "partition 1");
    admin::create_partitions(cluster.address(1), &topic.name, 4);
    send_and_see(&site, &topic, 3, "added meanwhile");
    wait_problem(&mut consumer, "partition 1");
    // Its place outlives a stop in which it was never read.
    assert!(consumer.terminate(secs(60)).success());
    let mut consumer = site.start(WATCHFUL);
    send_and_see(&site, &topic, 2, "after another start");

    cluster.restart(2);
    eventually(secs(60), "what was unread is logged", || {
        site.lines().iter().any(|line| line.ends_with("{\"event\": \"unread\"}"))
    });
    wait_ready(&mut consumer);
    assert!(consumer.terminate(secs(60)).success());
    site.audit();
}

#[test]
fn one_that_has_never_been_read_is_begun_when_it_has_a_leader() {
    let cluster = Cluster::start(2);
    let topic = cluster.topic_on(&[&[1], &[2]]);
    topic.kcat(&["-P", "-p", "1"], b"{\"event\": \"waits\"}\n");
    cluster.kill(2);
    let site = Site::new(&topic);
    let mut consumer = site.start(WATCHFUL);
    send_and_see(&site, &topic, 0, "the other one");
    wait_problem(&mut consumer, "partition 1");
    cluster.restart(2);
    wait_ready(&mut consumer);
    site.wait_caught_up();
    assert!(consumer.terminate(secs(60)).success());
    site.audit();
}
