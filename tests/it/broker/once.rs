//! Our own client writes nothing twice: what is sent again after a lost answer is the batch that the broker has.

use std::collections::HashMap;

use event_pipeline::broker::{KafkaSink, Sink};
use event_pipeline::config::Compression;

use super::compressed::{ALL, compressing};
use super::{Outcomes, assert_all_retryable, config, numbered, plain_sink, send, send_all, wire};
use crate::support::admin::PRODUCE;
use crate::support::kafka::{Cluster, shared};
use crate::support::proxy::Proxy;
use crate::support::topic::Topic;
use crate::support::wait::{eventually, secs};

fn wire_sink(brokers: &str, topic: &Topic) -> KafkaSink {
    plain_sink(&wire(config(brokers, &topic.name)))
}

/// A sink behind a proxy, in front of a topic of `partitions`.
pub fn behind_proxy(partitions: i32) -> (Topic, Proxy, KafkaSink) {
    behind_proxy_with(partitions, Compression::None)
}

fn behind_proxy_with(partitions: i32, compression: Compression) -> (Topic, Proxy, KafkaSink) {
    let topic = shared().topic_with(partitions, &[("compression.type", "producer")]);
    let proxy = Proxy::kafka(&shared().brokers()).remove(0);
    let mut sink = compressing(&wire(config(&proxy.address().to_string(), &topic.name)), compression);
    eventually(secs(60), "ready", || sink.probe(secs(2)).is_ok());
    (topic, proxy, sink)
}

#[track_caller]
fn lose(proxy: &Proxy, sink: &mut KafkaSink, values: &[impl AsRef<[u8]>]) {
    proxy.lose_replies(PRODUCE, 1);
    let outcomes: Outcomes = send(sink, values, secs(5));
    assert_all_retryable(&outcomes);
    assert_eq!(proxy.replies_to_lose(), 0, "it was written");
}

/// How often each value stands in the topic, all being once there.
#[track_caller]
fn assert_once(topic: &Topic, values: &[String]) {
    let mut times: HashMap<String, usize> = HashMap::new();
    for record in topic.records() {
        *times.entry(record.text().to_owned()).or_default() += 1;
    }
    let wrong: Vec<_> = values.iter().filter(|value| times.get(*value) != Some(&1)).collect();
    assert!(wrong.is_empty(), "not once: {wrong:?}");
    assert_eq!(times.len(), values.len(), "nothing besides");
}

#[test]
fn after_a_lost_answer_the_same_records_are_written_once_a_hundred_times_of_a_hundred() {
    let (topic, proxy, mut sink) = behind_proxy(3);
    let mut all = Vec::new();
    for round in 0..100 {
        let values = numbered(&format!("round {round} "), 1 + round % 7);
        for _ in 0..1 + round % 3 {
            lose(&proxy, &mut sink, &values);
        }
        // The caller sends what is open ahead of what is new.
        let more = [values, numbered(&format!("newer {round} "), round % 4)].concat();
        let receipts = send_all(&mut sink, &more);
        let stored = (receipts[0].partition, receipts[0].offset);
        assert!(receipts.len() == more.len() && stored.1 >= 0);
        all.extend(more);
    }
    assert_once(&topic, &all);
}

#[test]
fn what_is_compressed_is_written_once_too() {
    for compression in ALL {
        let (topic, proxy, mut sink) = behind_proxy_with(2, compression);
        let mut all = Vec::new();
        for round in 0..10 {
            let values = numbered(&format!("one and the same text, round {round} "), 10 + round);
            for _ in 0..1 + round % 2 {
                lose(&proxy, &mut sink, &values);
            }
            // The caller has given up the first ones, and adds others.
            let newer = numbered(&format!("newer {round} "), round % 4);
            send_all(&mut sink, &[&values[round % 3..], &newer].concat());
            all.extend([values, newer].concat());
        }
        assert_once(&topic, &all);
        let codecs: Vec<i16> = (0..2).flat_map(|partition| topic.codecs(partition)).collect();
        assert!(codecs.iter().filter(|codec| **codec > 0).count() >= 10, "{compression}: {codecs:?}");
    }
}

#[test]
fn a_receipt_after_a_lost_answer_says_where_the_record_stands() {
    let (topic, proxy, mut sink) = behind_proxy(3);
    let values = numbered("value ", 50);
    lose(&proxy, &mut sink, &values);
    let receipts = send_all(&mut sink, &values);
    for (record, (value, receipt)) in topic.records().iter().zip(values.iter().zip(receipts)) {
        assert_eq!((record.partition, record.offset), (receipt.partition, receipt.offset));
        assert_eq!(record.text(), value);
    }
    assert_eq!(topic.count(), values.len(), "once");
}

#[test]
fn what_the_caller_gave_up_does_not_double_what_it_sends_again() {
    let (topic, proxy, mut sink) = behind_proxy(3);
    lose(&proxy, &mut sink, &["a", "b", "c"]);
    send_all(&mut sink, &["b", "d"]);
    lose(&proxy, &mut sink, &["e", "f"]);
    send_all(&mut sink, &["g"]);
    lose(&proxy, &mut sink, &["h"]);
    assert!(send(&mut sink, &[""; 0], secs(5)).is_empty(), "nothing of it comes again");
    send_all(&mut sink, &["i", "j"]);
    assert_once(&topic, &["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"].map(str::to_owned));
}

#[test]
fn a_broker_killed_after_a_lost_answer_still_knows_the_batch() {
    let cluster = Cluster::start(1);
    let topic = cluster.topic();
    let proxy = Proxy::kafka(&cluster.brokers()).remove(0);
    let mut sink = wire_sink(&proxy.address().to_string(), &topic);
    eventually(secs(60), "ready", || sink.probe(secs(2)).is_ok());
    let values = numbered("value ", 20);
    lose(&proxy, &mut sink, &values);
    cluster.kill(1);
    assert_all_retryable(&send(&mut sink, &values, secs(1)));
    cluster.restart(1);
    eventually(secs(60), "acknowledged", || send(&mut sink, &values, secs(2)).iter().all(Result::is_ok));
    assert_once(&topic, &values);
}
