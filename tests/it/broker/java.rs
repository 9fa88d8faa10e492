//! The Java client and we, each reading what the other wrote: keys, times, every compression, transactions.

use std::collections::HashMap;
use std::time::{SystemTime, UNIX_EPOCH};

use event_pipeline::broker::{KafkaSource, Page, Position, Record, Sink, Source, open_source};

use super::{config, from_start, sink_to, wire};
use crate::support::java::Java;
use crate::support::kafka::{is_on_crate, shared};
use crate::support::topic::Topic;
use crate::support::wait::{eventually, secs};

/// Only our own client reads all of it.
fn wire_source(topic: &Topic) -> KafkaSource {
    open_source(&wire(config(&topic.brokers(), &topic.name))).expect("a thread")
}

/// Time, offset and value of each record of partition 0, and where reading stopped: `end` or the last stable offset.
fn read_up_to(source: &mut KafkaSource, end: i64) -> (Vec<(Option<i64>, i64, String)>, Position) {
    let (mut position, mut records, mut idle) = (from_start(1)[0], Vec::new(), 0);
    while position.offset < end && idle < 3 {
        let page: Page = source.fetch(&[position]).expect("fetched").remove(0).page.expect("a page");
        let text = |value: &[u8]| String::from_utf8(value.to_vec()).expect("UTF-8");
        records.extend(page.timed_records().map(|(time, offset, value)| (time, offset, text(value))));
        assert_eq!(page.high_watermark, end, "for the lag");
        idle = if page.next_offset == position.offset { idle + 1 } else { 0 };
        position.offset = page.next_offset;
    }
    (records, position)
}

fn by_kcat(topic: &Topic, isolation: &str) -> Vec<String> {
    let isolation = format!("isolation.level={isolation}");
    let printed = topic.kcat(&["-C", "-o", "beginning", "-e", "-q", "-X", &isolation, "-f", "%s\\n"], b"");
    String::from_utf8(printed).expect("UTF-8").lines().map(str::to_owned).collect()
}

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis() as i64
}

#[test]
fn java_reads_what_we_wrote_with_keys_and_times() {
    let topic = shared().topic_with(3, &[("message.timestamp.type", "CreateTime")]);
    let start = now_ms();
    let keys = ["a", "événement", "", "key 3", "key 4"];
    let keyed = keys.iter().map(|key| Record::new(Some(key.as_bytes()), key.as_bytes()));
    let plain = ["x", ""].iter().map(|value| Record::new(None, value.as_bytes()));
    let records: Vec<Record<'_>> = keyed.chain(plain).collect();
    let outcomes = sink_to(&topic.brokers(), &topic).send(&records, secs(10));
    let lines = Java::start(&["read", &topic.brokers(), &topic.name, &records.len().to_string()]).finish();
    let by_kcat = topic.records();
    assert_eq!((lines.len(), by_kcat.len()), (records.len(), records.len()));
    let stored: HashMap<String, Vec<&str>> = lines
        .iter()
        .map(|line| line.split(' ').collect::<Vec<_>>())
        .map(|words| (format!("{}/{}", words[0], words[1]), words))
        .collect();
    let hex =
        |bytes: &[u8]| format!("x{}", bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
    for (record, outcome) in records.iter().zip(outcomes) {
        let receipt = outcome.expect("acknowledged");
        let words = &stored[&format!("{}/{}", receipt.partition, receipt.offset)];
        assert_eq!(words[3], "CreateTime");
        assert_eq!((words[4], words[5]), (&*record.key.map_or("null".into(), hex), &*hex(record.value)));
        let time: i64 = words[2].parse().expect("a number");
        let kcats = by_kcat.iter().find(|r| (r.partition, r.offset) == (receipt.partition, receipt.offset));
        let kcats = kcats.expect("kcat reads it too");
        assert_eq!((kcats.timestamp_ms, kcats.key.as_deref()), (time, record.key));
        // The kafka crate's format has no time.
        let has_time = !is_on_crate();
        assert_eq!((start..=now_ms()).contains(&time), has_time, "{time}");
    }
}

#[test]
fn every_compression_of_java_is_read_with_its_times_from_every_offset() {
    let settings = [("message.timestamp.type", "CreateTime"), ("compression.type", "producer")];
    let topic = shared().topic_with(1, &settings);
    // Level 22 asks its reader to keep more history than a batch may hold.
    let codecs = ["gzip", "none", "snappy", "lz4", "zstd", "none", "zstd-22"];
    Java::start(&[&["compressed", &topic.brokers(), &topic.name][..], &codecs].concat()).finish();
    let end = 10 * codecs.len() as i64;
    let mut source = wire_source(&topic);
    let (records, position) = read_up_to(&mut source, end);
    assert_eq!(position.offset, end);
    let expected: Vec<(Option<i64>, i64, String)> = (0..end)
        .map(|offset| {
            let value = format!("{} {} {}", codecs[offset as usize / 10], offset % 10, "z".repeat(10_000));
            (Some(1_700_000_000_000 + 1000 * offset), offset, value)
        })
        .collect();
    assert!(records == expected, "{:?}", records.iter().map(|(t, o, _)| (t, o)).collect::<Vec<_>>());
    for offset in 0..end {
        let page = source.fetch(&[Position { partition: 0, offset }]).expect("fetched").remove(0).page;
        let page = page.expect("a page");
        let first = page.timed_records().next().map(|(time, at, value)| (time, at, value.to_vec()));
        let (time, _, value) = &expected[offset as usize];
        assert_eq!(first, Some((*time, offset, value.clone().into_bytes())), "from the middle of a batch");
    }
}

#[test]
fn the_brokers_time_is_known_where_the_topic_has_that() {
    let topic = shared().topic_with(1, &[("message.timestamp.type", "LogAppendTime")]);
    topic.kcat(&["-P", "-p", "0"], b"a\nb\n");
    let (records, _) = read_up_to(&mut wire_source(&topic), 2);
    let read: Vec<_> = records.iter().map(|(time, offset, _)| (*time, *offset)).collect();
    let stored: Vec<_> = topic.records().iter().map(|r| (Some(r.timestamp_ms), r.offset)).collect();
    assert_eq!(read, stored);
}

#[test]
fn transactions_are_read_once_they_are_committed_and_never_if_they_are_rolled_back() {
    let topic = shared().topic_with(1, &[]);
    let mut java = Java::start(&["transactions", &topic.brokers(), &topic.name]);
    assert_eq!(java.line(), "open");
    let mut source = wire_source(&topic);
    let end = topic.end_offset(0);
    let values = |records: &[(Option<i64>, i64, String)]| -> Vec<String> {
        records.iter().map(|(.., value)| value.clone()).collect()
    };
    let threes = |names: &[&str]| -> Vec<String> {
        names.iter().flat_map(|name| (0..3).map(move |number| format!("{name}{number}"))).collect()
    };
    let settled = ["plain a", "plain b", "committed a", "committed b", "committed c"];
    let (records, stable) = read_up_to(&mut source, end);
    assert_eq!(values(&records), threes(&settled));
    assert_eq!(end - stable.offset, 6, "an open transaction holds what follows its begin");
    assert_eq!(by_kcat(&topic, "read_committed"), values(&records));
    java.go_on();
    assert_eq!(java.finish(), ["committed"]);
    eventually(secs(60), "the marker is written", || topic.end_offset(0) > end);
    let (records, position) = read_up_to(&mut source, end + 1);
    assert_eq!(values(&records), threes(&[&settled[..], &["open a", "plain c"]].concat()));
    assert_eq!(position.offset, end + 1, "behind the marker");
    let all = by_kcat(&topic, "read_uncommitted").len();
    assert_eq!(all, records.len() + 9, "what was rolled back stands in the topic");
}
