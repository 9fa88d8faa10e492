//! Reading what other producers wrote: every compression, mixed, huge, null, compacted, with transaction markers.

use event_pipeline::broker::{BrokerError, Position, Source, open_source};
use event_pipeline::config::{KafkaClient, KafkaConfig};

use super::{config, from_start, numbered, read_all, read_on, source_of};
use crate::support::admin::{self, Body};
use crate::support::kafka::{client, is_kafka_4, is_on_crate, shared};
use crate::support::topic::Topic;
use crate::support::wait::{eventually, secs};

/// One batch of ten records, compressed with `codec`.
fn write_batch(topic: &Topic, partition: &str, codec: &str, prefix: &str) -> Vec<String> {
    let values = numbered(prefix, 10);
    // Compressible, or librdkafka stores them as they are.
    let values: Vec<String> =
        values.into_iter().map(|value| format!("{value} {}", "z".repeat(300))).collect();
    topic.kcat(&["-P", "-p", partition, "-z", codec], (values.join("\n") + "\n").as_bytes());
    values
}

#[test]
fn every_compression_that_the_client_knows_is_read() {
    let all = ["gzip", "snappy", "lz4", "zstd"];
    // Our own client takes over where it may.
    let known = if client() == KafkaClient::Crate { 2 } else { all.len() };
    for codec in &all[..known] {
        let topic = shared().topic_with(1, &[("compression.type", "producer")]);
        let mut written = write_batch(&topic, "0", codec, "a");
        written.extend(write_batch(&topic, "0", codec, "b"));
        assert_eq!(read_all(&topic), written, "{codec}");
    }
}

#[test]
fn plain_and_compressed_batches_mixed_lose_nothing() {
    let topic = shared().topic_with(1, &[("compression.type", "producer")]);
    let mut written = Vec::new();
    let mut codecs = ["none", "none", "gzip", "none", "snappy", "snappy", "none", "gzip", "none"];
    if !is_on_crate() {
        (codecs[1], codecs[5]) = ("zstd", "lz4");
    }
    for (number, codec) in codecs.iter().enumerate() {
        written.extend(write_batch(&topic, "0", codec, &format!("batch {number} record ")));
    }
    assert_eq!(read_all(&topic), written);
    // From every offset, since a fetch may begin anywhere in a batch.
    let mut source = source_of(&topic);
    for offset in 0..90 {
        let (records, error) = read_on(&mut source, Position { partition: 0, offset }, 90);
        let offsets: Vec<i64> = records.iter().map(|(offset, _)| *offset).collect();
        assert_eq!((offsets, error), ((offset..90).collect(), None), "from {offset}");
    }
}

#[test]
fn an_unreadable_batch_is_named_and_what_precedes_it_and_the_siblings_are_read() {
    if is_kafka_4() {
        // Only our own client is served, which knows every codec; `wire::records` has the unknown one.
        return every_compression_that_the_client_knows_is_read();
    }
    for codec in ["lz4", "zstd"] {
        let topic = shared().topic_with(2, &[("compression.type", "producer")]);
        let written = write_batch(&topic, "0", "none", "readable ");
        write_batch(&topic, "0", codec, "unreadable ");
        let sibling = write_batch(&topic, "1", "none", "sibling ");
        let forced = KafkaConfig { client: KafkaClient::Crate, ..config(&topic.brokers(), &topic.name) };
        let mut source = open_source(&forced).expect("a thread");
        let mut positions = from_start(2);
        let (mut read, mut failure) = (vec![Vec::new(), Vec::new()], None);
        eventually(secs(60), "both partitions are read as far as they can be", || {
            for answer in source.fetch(&positions).expect("one partition can be read") {
                let index = answer.partition as usize;
                match answer.page {
                    Ok(page) => {
                        read[index].extend(page.records().map(|(_, value)| value.to_vec()));
                        positions[index].offset = page.next_offset;
                    }
                    Err(error) => failure = Some((answer.partition, error)),
                }
            }
            failure.is_some() && read[1].len() == sibling.len()
        });
        let bytes =
            |values: Vec<String>| -> Vec<Vec<u8>> { values.into_iter().map(String::into_bytes).collect() };
        assert_eq!(read, [bytes(written), bytes(sibling)], "{codec}");
        let Some((0, BrokerError::Unreadable(text))) = failure else { panic!("{failure:?}") };
        for part in [codec, &format!("{}/0", topic.name), "10", "compression.type=uncompressed"] {
            assert!(text.contains(part), "{text} lacks {part}");
        }
    }
}

#[test]
fn a_topic_that_stores_uncompressed_is_read_whatever_producers_send() {
    let topic = shared().topic_with(1, &[("compression.type", "uncompressed")]);
    let mut written = Vec::new();
    for codec in ["none", "zstd", "lz4", "gzip", "snappy"] {
        written.extend(write_batch(&topic, "0", codec, codec));
    }
    assert_eq!(read_all(&topic), written);
}

#[test]
fn records_of_megabytes_are_read_alone_and_in_company() {
    let topic = shared().topic_with(1, &[("max.message.bytes", "8000000")]);
    let mut written = Vec::new();
    for size in [1_000_000, 10, 6_500_000, 1_000_000, 1_000_000, 5] {
        let value = "x".repeat(size);
        topic.kcat(&["-P", "-p", "0", "-X", "message.max.bytes=8000000"], value.as_bytes());
        written.push(value);
    }
    let read = read_all(&topic);
    let sizes = |values: &[String]| -> Vec<usize> { values.iter().map(String::len).collect() };
    assert_eq!(sizes(&read), sizes(&written));
    assert!(read == written);
}

#[test]
fn keys_do_not_matter_and_a_null_value_reads_as_empty() {
    let topic = shared().topic_with(1, &[]);
    topic.kcat(&["-P", "-p", "0", "-K", ":", "-Z"], b"k:v\nk:\n:w\n");
    assert_eq!(topic.records()[1].value, None, "null in Kafka");
    assert_eq!(read_all(&topic), ["v", "", "w"]);
}

#[test]
fn down_conversion_switched_off_is_named_where_it_is_needed() {
    let off = [("message.downconversion.enable", "false")];
    let topic = shared().topic_with(1, if is_kafka_4() { &[] } else { &off });
    topic.kcat(&["-P", "-p", "0"], b"a\n");
    if !is_on_crate() {
        assert_eq!(read_all(&topic), ["a"]);
        return;
    }
    let (_, error) = read_on(&mut source_of(&topic), from_start(1)[0], 1);
    let Some(BrokerError::Unreadable(text)) = error else { panic!("{error:?}") };
    assert!(text.contains("message.downconversion.enable=true"), "{text}");
}

#[test]
fn transaction_markers_are_stepped_over_also_at_the_end() {
    let topic = shared().topic_with(1, &[]);
    topic.kcat(&["-P", "-p", "0"], b"before\n");
    write_marker(&topic);
    let mut source = source_of(&topic);
    let (records, error) = read_on(&mut source, from_start(1)[0], 2);
    assert_eq!((records.len(), error), (1, None), "reaches the end, behind the marker");
    topic.kcat(&["-P", "-p", "0"], b"after\n");
    write_marker(&topic);
    write_marker(&topic);
    assert_eq!(read_all(&topic), ["before", "after"]);
}

/// A commit marker in partition 0, as a transaction coordinator writes it.
fn write_marker(topic: &Topic) {
    const WRITE_TXN_MARKERS: i16 = 27;
    let metadata = topic.metadata();
    let leader = &metadata.brokers[&metadata.partitions[0].leader];
    // Version 1, the only one that both 3.9 and 4.x serve: lengths are one more in one byte, tags follow.
    let body = Body::default().i8(0).i8(2).i64(4000).i16(0).i8(1);
    let name = topic.name.bytes().fold(body.i8(2).i8(topic.name.len() as i8 + 1), |body, b| body.i8(b as i8));
    let body = name.i8(2).i32(0).i8(0).i32(0).i8(0).i8(0);
    let end = topic.end_offset(0);
    let mut answer = admin::call(leader, WRITE_TXN_MARKERS, 1, body).expect("marker");
    let _tags_markers_producer_topics = (answer.i8(), answer.i8(), answer.i64(), answer.i8());
    let name = answer.i8();
    for _ in 1..name {
        answer.i8();
    }
    assert_eq!((answer.i8(), answer.i32(), answer.i16()), (2, 0, 0));
    assert_eq!(topic.end_offset(0), end + 1);
}

#[test]
fn the_holes_of_compaction_are_no_loss() {
    let settings = [
        ("cleanup.policy", "compact"),
        ("segment.ms", "100"),
        ("min.cleanable.dirty.ratio", "0.001"),
        ("compression.type", "producer"),
    ];
    let topic = shared().topic_with(1, &settings);
    for (round, codec) in ["none", "gzip", "none"].iter().enumerate() {
        let lines: String =
            (0..20).map(|key| format!("k{key}:round {round} {}\n", "z".repeat(200))).collect();
        topic.kcat(&["-P", "-p", "0", "-K", ":", "-z", codec], lines.as_bytes());
    }
    eventually(secs(60), "the cleaner has run", || {
        // A segment is rolled, and so can be cleaned, when the next record arrives.
        topic.kcat(&["-P", "-p", "0", "-K", ":"], b"k0:again\n");
        topic.records().len() < 30
    });
    eventually(secs(60), "nothing is cleaned while it is read twice", || {
        let offsets = || -> Vec<i64> { topic.records().iter().map(|record| record.offset).collect() };
        let stored = offsets();
        assert!(stored[0] > 0, "a hole at the start: {stored:?}");
        let (records, error) = read_on(&mut source_of(&topic), from_start(1)[0], topic.end_offset(0));
        assert_eq!(error, None);
        let read: Vec<i64> = records.iter().map(|(offset, _)| *offset).collect();
        if offsets() != stored {
            return false;
        }
        assert_eq!(read, stored);
        true
    });
}
