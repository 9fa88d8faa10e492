//! Records of other producers that are larger than any fetch of usual size: read, or waited for by their own partition.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::Path;

use crate::consumer::{CATCH_UP, Site, ready_status, wait_problem};
use crate::support::kafka::{Cluster, is_kafka_4};
use crate::support::topic::Topic;
use crate::support::wait::{eventually, secs};

const MIB: usize = 1 << 20;

/// Event number `n` with `size` bytes of padding.
fn event(n: usize, size: usize) -> String {
    format!("{{\"n\": {n}, \"pad\": \"{}\"}}", "x".repeat(size))
}

/// Sends `value` as one record.
fn send(topic: &Topic, partition: &str, codec: &str, value: &str) {
    let file = tempfile::NamedTempFile::new().expect("file");
    fs::write(file.path(), value).expect("written");
    let limits = ["-X", "message.max.bytes=100000000", "-X", "request.timeout.ms=60000"];
    let what = ["-P", "-p", partition, "-z", codec, file.path().to_str().expect("path")];
    topic.kcat(&[&limits[..], &what].concat(), b"");
}

/// Number and length of each event in the log, in order of the numbers, without holding the file in memory.
fn logged(log: &Path) -> Vec<(usize, usize)> {
    let lines = BufReader::new(File::open(log).expect("log")).split(b'\n');
    let mut events: Vec<(usize, usize)> = lines
        .map(|line| {
            let line = line.expect("readable");
            let event = &line["2025-07-08 00:12:01,782 - ".len()..];
            assert_eq!(event.last(), Some(&b'}'));
            let number = event["{\"n\": ".len()..].split(|byte| *byte == b',').next().expect("a number");
            (str::from_utf8(number).ok().and_then(|n| n.parse().ok()).expect("a number"), event.len())
        })
        .collect();
    events.sort_unstable();
    events
}

#[test]
fn large_records_are_read_and_one_above_the_limit_stops_its_own_partition_only() {
    let heap = [("KAFKA_JVM_OPTS", "-Xmx1g -Xms128m -XX:TieredStopAtLevel=1")];
    let kafka = Cluster::start_with(1, &heap);
    for client in if is_kafka_4() { &["wire"][..] } else { &["crate", "wire"] } {
        large_records_with(client, &kafka);
    }
}

fn large_records_with(client: &str, kafka: &Cluster) {
    let settings = [("max.message.bytes", "100000000"), ("compression.type", "producer")];
    let topic = kafka.topic_with(3, &settings);
    let site = Site::new(&topic);
    let log = site.logs().join("events.log");
    let sizes = [0, 40 * MIB, 0, 0, 40 * MIB, 0, 0, 70 * MIB, 0, 0, 0];
    let send_event =
        |n: usize, partition: &str, codec: &str| send(&topic, partition, codec, &event(n, sizes[n]));
    (0..3).for_each(|n| send_event(n, "0", "none"));
    send_event(3, "1", "none");
    // Small as stored, and large once decompressed.
    send_event(4, "1", "gzip");
    send(&topic, "1", "none", &"not JSON".repeat(5 * MIB));
    send_event(5, "1", "none");
    (6..9).for_each(|n| send_event(n, "2", "none"));

    let settings = [("KAFKA_CLIENT", client), ("KAFKA_REQUEST_TIMEOUT_MS", "60000"), ("EVENT_ECHO", "all")];
    let mut consumer = site.start(&settings);
    wait_problem(&mut consumer, "KAFKA_FETCH_MAX_BYTES=67108864");
    let (_, body) = ready_status(&mut consumer);
    for word in [&format!("{}/2: the batch at offset 1 has 734", topic.name), "kafka-delete-records"] {
        assert!(body.contains(word), "{client}: {word}: {body}");
    }
    eventually(CATCH_UP, "everything else is covered", || site.covered() == 8);
    send_event(9, "0", "none");
    send_event(10, "1", "none");
    eventually(secs(60), "the other partitions go on", || site.covered() == 10);
    assert_eq!(ready_status(&mut consumer).0, 503, "{client}");
    assert!(!consumer.stderr().contains("partition 2: ok"), "{client}: {}", consumer.stderr());
    let peak = consumer.peak_bytes();
    assert!(peak < 6 * 64 * MIB, "{client}: {} MiB", peak / MIB);
    consumer.kill();

    let more = [&settings[..], &[("KAFKA_FETCH_MAX_BYTES", "80000000")]].concat();
    if client == "crate" {
        // The broker's own limit of 55 MiB holds for the old requests of the crate.
        let mut consumer = site.start(&more);
        wait_problem(&mut consumer, "raise its fetch.max.bytes to more than that, or set KAFKA_CLIENT=wire");
        assert_eq!(site.covered(), 10);
    }
    let more = [&[("KAFKA_CLIENT", "wire")], &more[1..]].concat();
    let _consumer = site.start_ready(&more);
    site.wait_caught_up();
    let expected: Vec<(usize, usize)> = (0..sizes.len()).map(|n| (n, event(n, 0).len() + sizes[n])).collect();
    assert_eq!(logged(&log), expected, "{client}");
    let rejected = fs::read_to_string(site.logs().join("events.rejected")).expect("rejected");
    assert_eq!(rejected.lines().count(), 1, "{client}");
    assert!(rejected.contains("\"reason\":\"not_json\"") && rejected.len() > 40 * MIB, "{client}");
}
