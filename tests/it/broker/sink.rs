//! What a sink promises while nothing is wrong with the broker.

use std::collections::HashSet;

use event_pipeline::broker::{BrokerError, Record, Sink, Source, open_source};
use event_pipeline::config::{KafkaClient, KafkaConfig};

use super::{config, numbered, plain_sink, send, send_all, sink_to};
use crate::support::admin;
use crate::support::kafka::{Cluster, shared};
use crate::support::wait::{eventually, secs};

#[test]
fn a_receipt_says_where_the_record_stands() {
    let topic = shared().topic();
    let mut sink = sink_to(&topic.brokers(), &topic);
    for call in 0..6 {
        let values = numbered(&format!("call {call} record "), 20);
        let receipts = send_all(&mut sink, &values);
        assert!(
            receipts.iter().all(|receipt| receipt.partition == receipts[0].partition),
            "one partition a call"
        );
        let stored = topic.records();
        for (value, receipt) in values.iter().zip(receipts) {
            let found = stored
                .iter()
                .find(|record| (record.partition, record.offset) == (receipt.partition, receipt.offset))
                .expect("stored where the receipt says");
            assert_eq!(found.text(), value);
        }
    }
    let used: HashSet<i32> = topic.records().iter().map(|record| record.partition).collect();
    assert_eq!(used.len(), 3, "calls take the partitions in turn");
}

#[test]
fn a_probe_succeeds_and_writes_nothing() {
    let topic = shared().topic();
    let mut sink = sink_to(&topic.brokers(), &topic);
    for _ in 0..3 {
        sink.probe(secs(5)).expect("ready");
    }
    assert_eq!(topic.count(), 0);
}

#[test]
fn an_empty_call_and_an_empty_value_are_what_they_are() {
    let topic = shared().topic();
    let mut sink = sink_to(&topic.brokers(), &topic);
    assert!(send(&mut sink, &[""; 0], secs(5)).is_empty());
    send_all(&mut sink, &[""]);
    assert_eq!(topic.records()[0].value.as_deref(), Some(&b""[..]), "empty, not null");
}

#[test]
fn one_record_too_large_does_not_reject_its_neighbours() {
    let topic = shared().topic_with(2, &[("max.message.bytes", "2000")]);
    let mut sink = sink_to(&topic.brokers(), &topic);
    let mut values: Vec<Vec<u8>> = (0..100).map(|_| vec![b'a'; 100]).collect();
    values[37] = vec![b'b'; 5000];
    values[38] = vec![b'b'; 6000];
    let outcomes = send(&mut sink, &values, secs(10));
    for (index, outcome) in outcomes.iter().enumerate() {
        match outcome {
            Ok(_) => assert!(![37, 38].contains(&index)),
            Err(BrokerError::TooLarge(text)) => {
                assert!([37, 38].contains(&index) && text.contains("max.message.bytes"), "{index}: {text}");
                assert!(text.contains(&values[index].len().to_string()), "{text}");
                assert!(!text.contains("bbbb"), "no payload in an error: {text}");
            }
            Err(error) => panic!("{index}: {error}"),
        }
    }
    assert_eq!(topic.count(), 98, "each of the others once");
}

#[test]
fn a_call_of_many_megabytes_is_split_and_stays_in_order() {
    let topic = shared().topic();
    let mut sink = sink_to(&topic.brokers(), &topic);
    let values: Vec<Vec<u8>> =
        (0..60).map(|number| format!("{number:03}").into_bytes().repeat(33_000)).collect();
    let receipts = send_all(&mut sink, &values);
    assert_eq!(topic.count(), 60);
    for partition in 0..3 {
        let offsets: Vec<i64> = receipts
            .iter()
            .filter(|receipt| receipt.partition == partition)
            .map(|receipt| receipt.offset)
            .collect();
        assert!(offsets.is_sorted() && !offsets.is_empty(), "{partition}: {offsets:?}");
    }
}

#[test]
fn keys_go_where_javas_partitioner_puts_them() {
    let topic = shared().topic_with(7, &[]);
    let keys = numbered("user-", 200);
    let lines: String = keys.iter().map(|key| format!("{key}:theirs\n")).collect();
    topic.kcat(&["-P", "-K", ":", "-X", "partitioner=murmur2_random"], lines.as_bytes());
    let records: Vec<Record<'_>> =
        keys.iter().map(|key| Record::new(Some(key.as_bytes()), b"ours")).collect();
    let outcomes = sink_to(&topic.brokers(), &topic).send(&records, secs(10));
    assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
    let stored = topic.records();
    assert_eq!(stored.len(), 400);
    let partitions_of = |value: &str| -> HashSet<(Option<Vec<u8>>, i32)> {
        let those = stored.iter().filter(|record| record.text() == value);
        those.map(|record| (record.key.clone(), record.partition)).collect()
    };
    assert_eq!(partitions_of("ours"), partitions_of("theirs"));
}

#[test]
fn a_missing_topic_is_created() {
    let brokers = shared().brokers();
    let name = format!("created-{:08x}", fastrand::u32(..));
    let mut sink = plain_sink(&config(&brokers, &name));
    eventually(secs(60), "the new topic acknowledges", || sink.probe(secs(5)).is_ok());
    let outcome = send(&mut sink, &["first"], secs(5)).remove(0);
    assert!(outcome.is_ok(), "{outcome:?}");
    admin::delete_topic(brokers.split(',').next().expect("a broker"), &name);
}

#[test]
fn a_deleted_topic_is_created_again_and_no_receipt_is_of_the_old_one() {
    let topic = shared().topic();
    let mut sink = sink_to(&topic.brokers(), &topic);
    send_all(&mut sink, &numbered("old ", 10));
    topic.delete();
    eventually(secs(60), "the new topic acknowledges", || send(&mut sink, &["new"], secs(2))[0].is_ok());
    assert_eq!(topic.records().iter().filter(|record| record.text() != "new").count(), 0);
    topic.delete();
}

#[test]
fn kafka_4_is_refused_where_the_crate_is_forced_and_served_where_not() {
    let cluster = Cluster::start_with(1, &[("KAFKA_VERSION", "4.3.1")]);
    let forced = KafkaConfig { client: KafkaClient::Crate, ..config(&cluster.brokers(), "events") };
    let probed = plain_sink(&forced).probe(secs(5));
    let asked = open_source(&forced).expect("a thread").partitions().map(drop);
    for refused in [probed, asked] {
        let Err(BrokerError::Unsupported(text)) = refused else { panic!("{refused:?}") };
        for part in ["Kafka 4", "KAFKA_CLIENT=auto", "scripts/kafka.sh start", cluster.address(1)] {
            assert!(text.contains(part), "{text}");
        }
    }
    let auto = KafkaConfig { client: KafkaClient::Auto, ..forced };
    let mut sink = plain_sink(&auto);
    eventually(secs(60), "the new topic acknowledges", || sink.probe(secs(5)).is_ok());
    send_all(&mut sink, &["event"]);
}
