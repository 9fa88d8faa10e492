//! A cluster of three of which one breaks: the others serve on.

use std::thread;
use std::time::{Duration, Instant};

use crate::producer::faults::{PATIENT, PATIENT_WITHIN, TIMEOUTS, UnderLoad, readyz_turns};
use crate::producer::load::{Asked, Load};
use crate::producer::{Served, serve_via};
use crate::support::admin;
use crate::support::kafka::Cluster;
use crate::support::proxy::{Mode, Proxy};
use crate::support::topic::Topic;
use crate::support::wait::{eventually, secs, within};

/// Waits until each partition has `replicas` that are in sync.
#[track_caller]
fn wait_in_sync(topic: &Topic, replicas: usize) {
    (0..topic.metadata().partitions.len()).for_each(|partition| wait_in_sync_of(topic, partition, replicas));
}

#[track_caller]
fn wait_in_sync_of(topic: &Topic, partition: usize, replicas: usize) {
    eventually(secs(60), &format!("{replicas} replicas in sync"), || {
        topic.metadata().partitions[partition].in_sync.len() == replicas
    });
}

#[test]
fn leaders_that_move_cost_no_event() {
    let UnderLoad { cluster, topic, served, load } = UnderLoad::with(3, &PATIENT);
    let asked = Asked::start(&topic);
    let leader = topic.metadata().partitions[0].leader;
    cluster.stop(leader as usize);
    load.wait_acknowledged(200);
    assert_ne!(topic.metadata().partitions[0].leader, leader);
    cluster.restart(leader as usize);
    wait_in_sync(&topic, 3);
    admin::elect_preferred(cluster.address(leader as usize), &topic.name, &[0, 1, 2]);
    load.wait_acknowledged(200);
    assert_eq!(topic.metadata().partitions[0].leader, leader, "moved back, with both alive");
    let ledger = load.finish();
    ledger.assert_answers(PATIENT_WITHIN);
    ledger.assert_acknowledged(asked.longest_gap());
    ledger.assert_kept(&topic);
    served.wait_ready();
}

#[test]
fn a_leader_killed_in_a_cluster_is_replaced() {
    let scene = UnderLoad::start(3);
    scene.cluster.kill(scene.topic.metadata().partitions[0].leader as usize);
    // Until the cluster has given it up (6 s), the others wait for its copy of each record too.
    wait_in_sync(&scene.topic, 2);
    scene.heals();
}

/// What is in doubt outlasts the cluster's own 18 s until it gives a silent broker up. A request has time to wait for
/// the copy and then to ask the other partitions, on a busy machine too.
const IN_DOUBT: [(&str, &str); 4] = [
    TIMEOUTS[0],
    ("KAFKA_REQUEST_TIMEOUT_MS", "3000"),
    ("DELIVERY_TIMEOUT_MS", "60000"),
    ("KAFKA_CLIENT", "wire"),
];

/// A cluster of which broker 3 holds the copy of partition 0 and nothing else, and a producer of its own client.
fn with_a_copy_on_broker_3() -> (Cluster, Topic, Served) {
    let cluster = Cluster::with_properties(3, "broker.session.timeout.ms=18000\n");
    let topic = cluster.topic_on(&[&[1, 3], &[1, 2]]);
    topic.alter("min.insync.replicas", "1");
    let served = serve_via(&cluster.brokers(), &topic, &IN_DOUBT);
    (cluster, topic, served)
}

/// Stops broker 3 until a batch was sent again in vain; then `/readyz` stays 200 and a new event passes.
#[track_caller]
fn assert_others_serve_while_one_waits(cluster: &Cluster, topic: &Topic, served: &Served) {
    let waits = || served.metric("pipeline_kafka_errors_total{kind=\"waiting\"}");
    let waited = waits();
    cluster.pause(3);
    eventually(secs(60), "a batch waits", || waits() >= waited + 2.0);
    readyz_turns(served, 200);
    let began = Instant::now();
    while began.elapsed() < secs(1) {
        assert_eq!(served.readyz(), 200, "{}", served.program.stderr());
    }
    within(secs(2), "a new event", || assert_eq!(served.post("{}").status, 200));
    assert_eq!(topic.metadata().partitions[0].in_sync.len(), 2, "the copy is still waited for");
}

#[test]
fn a_partition_that_waits_for_its_copy_does_not_stop_the_others() {
    let (cluster, topic, served) = with_a_copy_on_broker_3();
    let load = Load::paced(served.address, 24, Duration::from_millis(50));
    load.wait_acknowledged(200);
    assert_others_serve_while_one_waits(&cluster, &topic, &served);
    wait_in_sync_of(&topic, 0, 1);
    load.wait_acknowledged(200);
    cluster.resume(3);
    let ledger = load.finish();
    ledger.assert_answers(secs(60));
    assert_eq!(ledger.summary().get(&(503, "not_acknowledged".into())), None, "{:?}", ledger.summary());
    assert_eq!(ledger.assert_kept(&topic), 0, "nothing was written twice");
}

#[test]
fn an_event_that_waits_alone_does_not_make_it_unready() {
    let (cluster, topic, served) = with_a_copy_on_broker_3();
    thread::scope(|scope| {
        let last = scope.spawn(|| {
            loop {
                let posted = Instant::now();
                let answer = served.post("{}");
                if posted.elapsed() > secs(2) {
                    return answer;
                }
            }
        });
        assert_others_serve_while_one_waits(&cluster, &topic, &served);
        assert_eq!(last.join().expect("no panic").status, 200, "acknowledged by those that are left");
    });
    cluster.resume(3);
}

#[test]
fn too_few_replicas_are_not_called_ready() {
    let scene = UnderLoad::start(3);
    scene.topic.alter("min.insync.replicas", "3");
    scene.load.wait_acknowledged(200);
    scene.cluster.stop(3);
    wait_in_sync(&scene.topic, 2);
    readyz_turns(&scene.served, 503);
    let answer = scene.served.post("{}");
    assert_eq!(answer.status, 503);
    assert!(answer.text().contains("NOT_ENOUGH_REPLICAS"), "{}", answer.text());
    scene.load.wait_refused(50);
    scene.cluster.restart(3);
    wait_in_sync(&scene.topic, 3);
    scene.heals();
}

/// A healthy broker of three on a busy machine answers within this, and a silent one is given up soon.
const SILENT_AFTER: [(&str, &str); 3] =
    [TIMEOUTS[0], ("KAFKA_REQUEST_TIMEOUT_MS", "3000"), ("DELIVERY_TIMEOUT_MS", "9000")];

#[test]
fn a_leader_that_becomes_a_black_hole_is_left_alone() {
    let cluster = Cluster::start(3);
    let topic = cluster.topic();
    let proxies = Proxy::kafka(&cluster.brokers());
    let brokers: Vec<String> = proxies.iter().map(|proxy| proxy.address().to_string()).collect();
    let served = serve_via(&brokers.join(","), &topic, &SILENT_AFTER);
    let keyed_settings = [&SILENT_AFTER[..], &[("KAFKA_KEY_FIELD", "user")]].concat();
    let keyed = serve_via(&brokers.join(","), &topic, &keyed_settings);
    assert_eq!(keyed.post(r#"{"user": "ann"}"#).status, 200);
    let load = Load::start(served.address, 8);
    load.wait_acknowledged(200);
    let leader = topic.metadata().partitions[0].leader as usize;
    proxies[leader - 1].set(Mode::Blackhole);
    // A key may belong to the partition that cannot be written.
    readyz_turns(&keyed, 503);
    load.wait_acknowledged(2000);
    let ledger = load.finish();
    ledger.assert_answers(Duration::from_millis(9500));
    ledger.assert_kept(&topic);
    eventually(secs(5), "the others make it ready", || served.readyz() == 200);
    // Without load too: events without a key have two other leaders to go to.
    let began = Instant::now();
    while began.elapsed() < secs(20) {
        assert_eq!(served.readyz(), 200, "{}", served.program.stderr());
        thread::sleep(Duration::from_millis(5));
    }
    for _ in 0..6 {
        within(secs(1), "an event", || assert_eq!(served.post("{}").status, 200));
    }
    proxies[leader - 1].set(Mode::Forward);
    proxies[leader - 1].cut();
    readyz_turns(&keyed, 200);
    eventually(secs(60), "it is written to again", || {
        let before = topic.end_offset(0);
        (0..3).for_each(|_| drop(served.post("{}")));
        topic.end_offset(0) > before
    });
}
