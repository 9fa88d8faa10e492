//! What we compress is read by the Java client, by `kcat` and by both of our clients, and keeps the limits of the topic.

use event_pipeline::broker::{BrokerError, KafkaSink, Receipt, Record, Sink, open_sink, open_source};
use event_pipeline::config::{Compression, KafkaClient, KafkaConfig, SendConfig};

use super::{config, from_start, numbered, plain_sink, read_on, send, send_all, wire};
use crate::support::java::Java;
use crate::support::kafka::{clients, shared};
use crate::support::topic::Topic;
use crate::support::wait::{eventually, secs};

/// Every compression, by the order of Kafka's numbers for them, which begin with 1.
pub const ALL: [Compression; 4] =
    [Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd];

pub fn compressing(config: &KafkaConfig, compression: Compression) -> KafkaSink {
    open_sink(config, &SendConfig { compression, ..SendConfig::default() }).expect("a thread")
}

/// A sink with the default client, which must choose our own by itself.
fn sink(topic: &Topic, compression: Compression) -> KafkaSink {
    let auto = KafkaConfig { client: KafkaClient::Auto, ..config(&topic.brokers(), &topic.name) };
    compressing(&auto, compression)
}

/// Values of many sizes, some larger than the blocks of every format.
fn values(compression: Compression) -> Vec<String> {
    let mut values = numbered(&format!("{compression} value, one and the same text, "), 300);
    values.extend(
        [1, 33_000, 70_000, 140_000, 300_000].map(|size| format!("{compression} {}", "z".repeat(size))),
    );
    values
}

pub fn hex(bytes: &[u8]) -> String {
    format!("x{}", bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
}

/// The values that `client` reads from partition 0, which ends at `end`.
pub fn read_by(client: KafkaClient, topic: &Topic, end: i64) -> Vec<Vec<u8>> {
    let config = KafkaConfig { client, ..config(&topic.brokers(), &topic.name) };
    let (mut source, mut read) = (open_source(&config).expect("a thread"), Vec::new());
    let mut position = from_start(1)[0];
    eventually(secs(60), "everything is read", || {
        let (records, error) = read_on(&mut source, position, end);
        position.offset = records.last().map_or(position.offset, |(offset, _)| offset + 1);
        read.extend(records.into_iter().map(|(_, value)| value));
        // The crate says once that our own client takes over.
        assert!(error.as_ref().is_none_or(BrokerError::is_retryable), "{client:?}: {error:?}");
        position.offset == end
    });
    read
}

#[test]
fn every_compression_is_read_by_java_by_kcat_and_by_our_own_consumers() {
    let topic = shared().topic_with(1, &[("compression.type", "producer")]);
    let mut written = Vec::new();
    for compression in ALL {
        let values = values(compression);
        let records: Vec<Record<'_>> =
            values.iter().map(|value| Record::new(Some(b"key"), value.as_bytes())).collect();
        let outcomes = sink(&topic, compression).send(&records, secs(60));
        let first = written.len() as i64;
        for (offset, outcome) in (first..).zip(outcomes) {
            assert_eq!(outcome, Ok(Receipt { partition: 0, offset }), "{compression}");
        }
        written.extend(values.into_iter().map(String::into_bytes));
    }
    assert_eq!(topic.codecs(0), [1, 2, 3, 4], "as it was sent");
    let stored: Vec<Vec<u8>> =
        topic.records().into_iter().map(|record| record.value.expect("a value")).collect();
    assert!(stored == written, "kcat reads it");
    let lines = Java::start(&["read", &topic.brokers(), &topic.name, &written.len().to_string()]).finish();
    assert_eq!(lines.len(), written.len());
    for (line, value) in lines.iter().zip(&written) {
        let words: Vec<&str> = line.split(' ').collect();
        assert!(words[4] == hex(b"key") && words[5] == hex(value), "{line:.100}");
    }
    for client in [KafkaClient::Auto, KafkaClient::Wire] {
        assert!(read_by(client, &topic, written.len() as i64) == written, "{client:?}");
    }
}

#[test]
fn the_crate_reads_the_two_that_it_knows() {
    if !clients().contains(&"crate") {
        // Kafka 4 does not serve it: there `auto` is our own client, which the test above has.
        return every_compression_is_read_by_java_by_kcat_and_by_our_own_consumers();
    }
    for (compression, codec) in [(Compression::Gzip, 1), (Compression::Snappy, 2)] {
        let topic = shared().topic_with(1, &[("compression.type", "producer")]);
        let written = values(compression);
        send_all(&mut sink(&topic, compression), &written);
        assert_eq!(topic.codecs(0), [codec]);
        let read = read_by(KafkaClient::Crate, &topic, written.len() as i64);
        assert!(read.iter().eq(written.iter().map(String::as_bytes)), "{compression}");
    }
}

#[test]
fn a_topic_that_stores_another_compression_takes_ours() {
    for (stored, codec) in [("uncompressed", 0), ("gzip", 1), ("snappy", 2), ("lz4", 3), ("zstd", 4)] {
        let topic = shared().topic_with(1, &[("compression.type", stored)]);
        let written: Vec<String> = ALL.into_iter().flat_map(values).collect();
        for compression in ALL {
            send_all(&mut sink(&topic, compression), &values(compression));
        }
        assert!(topic.codecs(0).iter().all(|found| *found == codec), "{stored}");
        let texts: Vec<String> = topic.records().iter().map(|record| record.text().to_owned()).collect();
        assert!(texts == written, "{stored}");
        for client in [KafkaClient::Auto, KafkaClient::Wire] {
            let read = read_by(client, &topic, written.len() as i64);
            assert!(read.iter().eq(written.iter().map(String::as_bytes)), "{stored} by {client:?}");
        }
    }
}

#[test]
fn the_limit_of_the_topic_is_for_what_is_sent() {
    let mut random = fastrand::Rng::with_seed(3);
    let noise: String = (0..1_500_000).map(|_| random.alphanumeric()).collect();
    // Larger than max.message.bytes, but not when it is compressed.
    let large = "large ".repeat(500_000);
    let values = ["before", &large, "between", &noise, "after"];
    for compression in [Compression::None].into_iter().chain(ALL) {
        let topic = shared().topic_with(1, &[("compression.type", "producer")]);
        let mut sink = compressing(&wire(config(&topic.brokers(), &topic.name)), compression);
        let outcomes = send(&mut sink, &values, secs(60));
        let is_stored: Vec<bool> = outcomes.iter().map(Result::is_ok).collect();
        let fits = compression != Compression::None;
        assert_eq!(is_stored, [true, fits, true, false, true], "{compression}: {outcomes:?}");
        let Err(BrokerError::TooLarge(text)) = &outcomes[3] else { panic!("{compression}: {outcomes:?}") };
        assert!(text.contains("1500000 bytes") && text.contains("max.message.bytes"), "{text}");
        let stored = topic.records().len();
        assert_eq!(stored, if fits { 4 } else { 3 }, "{compression}");
    }
}

#[test]
fn what_would_not_get_smaller_is_sent_as_it_is() {
    let topic = shared().topic_with(1, &[("compression.type", "producer")]);
    for compression in ALL {
        send_all(&mut sink(&topic, compression), &["x"]);
    }
    send_all(&mut plain_sink(&wire(config(&topic.brokers(), &topic.name))), &["x"]);
    assert_eq!(topic.codecs(0), [0; 5]);
    assert_eq!(topic.records().len(), 5);
}
