//! Records of other producers, written by kcat: whatever they hold, none is lost and none stops the consumer.

use std::fs;

use crate::consumer::load::event_lines;
use crate::consumer::{Site, payload, wait_metric, wait_problem};
use crate::support::kafka::{Cluster, shared};
use crate::support::topic::Topic;
use crate::support::wait::{eventually, secs};

/// Sends each of `values` as one record, whatever bytes it holds.
fn send_whole(topic: &Topic, values: &[&[u8]]) {
    let dir = tempfile::tempdir().expect("directory");
    for (number, value) in values.iter().enumerate() {
        let path = dir.path().join(number.to_string());
        fs::write(&path, value).expect("write");
        topic.kcat(&["-P", "-X", "message.max.bytes=4000000", path.to_str().expect("path")], b"");
    }
}

#[test]
fn records_that_are_no_events_are_kept_with_place_and_reason() {
    let topic = shared().topic();
    let site = Site::new(&topic);
    let mut consumer = site.start_ready(&[]);
    send_whole(&topic, &[b"{\"n\": 1}", b"not JSON", b"{\"a\": \"\xff\"}", b"[1, 2]", b"{\"n\": 2}"]);
    topic.kcat(&["-P", "-K", ":", "-Z"], b"key:\n");
    site.wait_caught_up();
    site.audit();
    let mut reasons: Vec<String> =
        site.rejected().iter().map(|line| line["reason"].as_str().expect("reason").to_owned()).collect();
    reasons.sort();
    assert_eq!(reasons, ["empty", "not_an_object", "not_json", "not_utf8"]);
    assert!(site.rejected().iter().any(|line| line["value_hex"] == "7b2261223a2022ff227d"));
    wait_metric(&mut consumer, "pipeline_consumer_rejected_total{reason=\"not_utf8\"}", 1.0);
    wait_metric(&mut consumer, "pipeline_consumer_records_total", 6.0);
    wait_metric(&mut consumer, "pipeline_log_events_total", 2.0);
}

#[test]
fn keys_line_breaks_and_a_megabyte_become_one_line_each() {
    let topic = shared().topic();
    let site = Site::new(&topic);
    let _consumer = site.start_ready(&[]);
    topic.kcat(&["-P", "-K", ":"], b"key:{\"n\": 1}\n");
    let large = event_lines(1, 1_000_000);
    send_whole(&topic, &[b"{\n\t\"n\": 2,\r\n\t\"m\": \"a\\nb\"\n}\n", large.trim().as_bytes()]);
    site.wait_caught_up();
    site.audit();
    let lines = site.lines();
    assert_eq!(lines.len(), 3);
    assert!(
        lines.iter().any(|line| payload(line) == "{ \t\"n\": 2,  \t\"m\": \"a\\nb\" }"),
        "{:.200}",
        lines[1]
    );
}

#[test]
fn compressed_and_plain_batches_are_read_together() {
    let topic = shared().topic_with(1, &[("compression.type", "producer")]);
    let site = Site::new(&topic);
    let all: Vec<String> = event_lines(900, 200).lines().map(|line| format!("{line}\n")).collect();
    for (number, chunk) in all.chunks(100).enumerate() {
        let codec = ["none", "gzip", "snappy"][number % 3];
        topic.kcat(&["-P", "-z", codec], chunk.concat().as_bytes());
    }
    let _consumer = site.start_ready(&[]);
    site.wait_caught_up();
    site.audit();
}

#[test]
fn by_default_our_own_client_takes_over_where_the_crate_cannot_read() {
    for codec in ["lz4", "zstd"] {
        let topic = shared().topic_with(2, &[("compression.type", "producer")]);
        let site = Site::new(&topic);
        let lines = event_lines(300, 200);
        let parts: Vec<String> = lines.lines().map(|line| format!("{line}\n")).collect();
        topic.kcat(&["-P"], parts[..100].concat().as_bytes());
        let _consumer = site.start_ready(&[]);
        site.wait_caught_up();
        topic.kcat(&["-P", "-z", codec], parts[100..200].concat().as_bytes());
        site.wait_caught_up();
        topic.kcat(&["-P"], parts[200..].concat().as_bytes());
        site.wait_caught_up();
        site.audit();
    }
}

#[test]
fn on_the_crate_lz4_and_zstd_say_what_to_change_and_stop_no_other_partition() {
    // The last Kafka that the crate speaks to, whatever the others run on.
    let kafka = Cluster::start_with(1, &[("KAFKA_VERSION", "3.9.2")]);
    for codec in ["lz4", "zstd"] {
        let topic = kafka.topic_with(2, &[("compression.type", "producer")]);
        let site = Site::new(&topic);
        topic.kcat(&["-P", "-p", "0", "-z", codec], event_lines(50, 200).as_bytes());
        topic.kcat(&["-P", "-p", "1"], b"{\"n\": 1}\n{\"n\": 2}\n");
        let mut consumer = site.start(&[("KAFKA_CLIENT", "crate")]);
        wait_problem(&mut consumer, "compression.type=uncompressed");
        let (_, body) = crate::consumer::ready_status(&mut consumer);
        assert!(body.contains("partition 0") && !body.contains("partition 1"), "{body}");
        eventually(secs(60), "the other partition is logged", || site.covered() == 2);
        topic.kcat(&["-P", "-p", "1"], b"{\"n\": 3}\n");
        eventually(secs(60), "and goes on", || site.covered() == 3);
        assert_eq!(site.lines().len(), 3);
    }
}
