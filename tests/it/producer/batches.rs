//! Several events in one request.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use ruzstd::encoding::{CompressionLevel, compress_to_vec};
use serde_json::json;

use crate::producer::{Served, serve};
use crate::support::http::Response;
use crate::support::kafka::shared;

const NDJSON: (&str, &str) = ("Content-Type", "application/x-ndjson");
const ZSTD: (&str, &str) = ("Content-Encoding", "zstd");

fn post(served: &Served, headers: &[(&str, &str)], body: &[u8]) -> Response {
    served.client().request("POST", "/register_event", headers, body).expect("an answer")
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).and_then(|()| encoder.finish()).expect("packs")
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    compress_to_vec(bytes, CompressionLevel::Fastest)
}

#[test]
fn the_valid_are_taken_and_the_invalid_named() {
    let topic = shared().topic();
    let served = serve(&topic, &[]);
    let answer = post(&served, &[NDJSON], b"{\"n\":0}\nnonsense\n{\"n\":2}\n7\n");
    assert_eq!(answer.status, 207);
    let body = answer.json();
    assert_eq!((&body["accepted"], &body["rejected"]), (&json!(2), &json!(2)));
    let errors = body["errors"].as_array().expect("errors");
    let indices: Vec<_> =
        errors.iter().map(|error| (error["index"].as_u64(), error["error"].as_str())).collect();
    assert_eq!(indices, [(Some(1), Some("not_json")), (Some(3), Some("not_an_object"))]);
    let records = topic.records();
    assert_eq!(records.len(), 2);
    let range = json!([{"partition": records[0].partition, "first_offset": 0, "last_offset": 1}]);
    assert_eq!(body["receipts"], range);
    assert!(records[1].text().starts_with("{\"n\":2, \"timestamp\""));
}

#[test]
fn arrays_and_ndjson_all_valid_or_none() {
    let topic = shared().topic();
    let served = serve(&topic, &[]);
    let answer = post(&served, &[], b" [{\"n\":0}, {\"n\":1}\n,{\"n\":2}]");
    assert_eq!((answer.status, &answer.json()["accepted"]), (200, &json!(3)));
    assert_eq!(post(&served, &[NDJSON], b"{\"n\":3}").status, 200, "a last line without an end");
    assert_eq!(post(&served, &[NDJSON], b"1\n2\n").status, 400);
    assert_eq!(post(&served, &[], b"[{\"n\":0}, {\"n\"").status, 400, "a broken frame");
    assert_eq!(topic.count(), 4);
}

#[test]
fn a_large_batch_is_split_over_requests_and_every_event_has_its_receipt() {
    let topic = shared().topic();
    let served = serve(&topic, &[]);
    let padding = "x".repeat(500);
    let body: String = (0..8000).map(|n| format!("{{\"n\":{n},\"p\":\"{padding}\"}}\n")).collect();
    let answer = post(&served, &[NDJSON], body.as_bytes());
    assert_eq!(answer.status, 200, "{}", answer.text());
    let records = topic.records();
    let mut index = 0;
    for range in answer.json()["receipts"].as_array().expect("receipts") {
        let number = |name: &str| range[name].as_i64().expect("a number");
        for offset in number("first_offset")..=number("last_offset") {
            let at = |record: &&crate::support::topic::Stored| {
                (i64::from(record.partition), record.offset) == (number("partition"), offset)
            };
            let record = records.iter().find(at).expect("the receipt's record");
            assert!(record.text().starts_with(&format!("{{\"n\":{index},")), "event {index}");
            index += 1;
        }
    }
    assert_eq!((index, records.len()), (8000, 8000));
}

#[test]
fn gzip_and_zstd_are_unpacked_up_to_the_limit() {
    let topic = shared().topic();
    let served = serve(&topic, &[("MAX_BODY_BYTES", "100000"), ("MAX_EVENT_BYTES", "1000")]);
    let lines = "{\"n\":1}\n".repeat(2000);
    for (coding, pack) in [("gzip", gzip as fn(&[u8]) -> Vec<u8>), ("zstd", zstd)] {
        let packed = [NDJSON, ("Content-Encoding", coding)];
        assert_eq!(post(&served, &packed, &pack(lines.as_bytes())).status, 200, "{coding}");
        let before = served.program.size().resident_bytes;
        let bomb = pack(&vec![b'\n'; 20_000_000]);
        let small = pack(&[b'\n'; 60_000]).repeat(2);
        for bomb in [&bomb, &small] {
            let answer = post(&served, &packed, bomb);
            assert_eq!(answer.status, 413, "a bomb of {coding}: {}", answer.text());
            assert!(answer.text().contains("decompressed body"), "{}", answer.text());
        }
        let grown = served.program.size().resident_bytes.saturating_sub(before);
        assert!(grown < 8 << 20, "{coding}: {grown}");
        assert_eq!(post(&served, &packed, b"not packed").status, 400, "{coding}");
    }
    // The largest window that a frame can ask for, and content of 2^60 bytes.
    let packed = [ZSTD];
    let window = [b"\x28\xb5\x2f\xfd\0\xff\x11\0\0".as_slice(), b"{}"].concat();
    assert_eq!(post(&served, &packed, &window).status, 200, "no more is reserved than the limit");
    let content = b"\x28\xb5\x2f\xfd\xe0\0\0\0\0\0\0\0\x10\x11\0\0{}";
    assert_eq!(post(&served, &packed, content).status, 413);
    assert_eq!(topic.count(), 4001);
    assert_eq!(served.metric("pipeline_http_refused_total{limit=\"max_body_bytes\"}"), 5.0);
}

#[test]
fn more_events_than_one_request_may_hold_are_refused_whole() {
    let topic = shared().topic();
    let served = serve(&topic, &[("MAX_REQUEST_EVENTS", "10")]);
    assert_eq!(post(&served, &[NDJSON], "{}\n".repeat(10).as_bytes()).status, 200);
    assert_eq!(post(&served, &[NDJSON], "{}\n".repeat(11).as_bytes()).status, 413);
    assert_eq!(topic.count(), 10);
    assert_eq!(served.metric("pipeline_http_refused_total{limit=\"max_request_events\"}"), 1.0);
}

#[test]
fn an_event_too_large_for_the_topic_does_not_harm_its_neighbours() {
    let topic = shared().topic_with(3, &[("max.message.bytes", "2000")]);
    let served = serve(&topic, &[]);
    let big = format!("{{\"big\": \"{}\"}}", "x".repeat(5000));
    let single = served.post(&big);
    assert_eq!(
        (single.status, &single.json()["error"]),
        (413, &json!("event_too_large")),
        "{}",
        single.text()
    );
    let answer = post(&served, &[NDJSON], format!("{{\"n\":0}}\n{big}\n{{\"n\":2}}\n").as_bytes());
    assert_eq!(answer.status, 207, "{}", answer.text());
    assert_eq!(answer.json()["unacknowledged"], json!([{"first_index": 1, "last_index": 1}]));
    assert_eq!(topic.count(), 2);
    assert_eq!(served.readyz(), 200);
}
