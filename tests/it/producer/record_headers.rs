//! What a request passes on to its records in Kafka as headers, with both HTTP servers, read back by `kcat`.

use crate::producer::access::{KeyFile, SERVERS, request};
use crate::producer::{Served, serve};
use crate::support::http::Response;
use crate::support::kafka::shared;
use crate::support::topic::Topic;

const TRACEPARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const ALL: (&str, &str) = ("KAFKA_HEADERS", "traceparent,tracestate,x-request-id,client");

fn post(served: &Served, headers: &[(&str, &str)], body: &str) -> Response {
    request(served.address, "POST", "/register_event", headers, body.as_bytes())
}

/// The number `n` of each event in the topic, and the headers of its record.
fn by_number(topic: &Topic) -> Vec<(i64, String)> {
    let printed = topic.kcat(&["-C", "-o", "beginning", "-e", "-q", "-f", "%s\\t%h\\n"], b"");
    let printed = String::from_utf8(printed).expect("UTF-8");
    let mut found: Vec<(i64, String)> = printed
        .lines()
        .map(|line| {
            let (event, headers) = line.split_once('\t').expect("two columns");
            let event: serde_json::Value = serde_json::from_str(event).expect("JSON");
            (event["n"].as_i64().expect("a number"), headers.to_owned())
        })
        .collect();
    found.sort();
    found
}

#[test]
fn every_record_of_a_request_has_what_the_request_has_and_what_is_not_valid_is_left_out() {
    let whole = format!("traceparent={TRACEPARENT},tracestate=a=1,b=2,x-request-id=r-1,client=shop");
    let traced =
        [("Traceparent", TRACEPARENT), ("tracestate", "a=1"), ("Tracestate", "b=2"), ("x-request-ID", "r-1")];
    let upper = TRACEPARENT.to_uppercase();
    for server in SERVERS {
        let mut keys = KeyFile::new();
        let key = keys.add("shop", "secret", "");
        let topic = shared().topic();
        let served = keys.serve(&topic, server, &[ALL]);
        let send = |headers: &[(&str, &str)], body: &str| {
            let answer = post(&served, &[&[("x-api-key", key.as_str())], headers].concat(), body);
            assert!(matches!(answer.status, 200 | 207), "{server}: {}", answer.text());
        };
        let ndjson = ("content-type", "application/x-ndjson");
        send(&traced, r#"{"n": 0}"#);
        send(&[&traced[..], &[ndjson]].concat(), "{\"n\": 1}\nnot an event\n{\"n\": 2}\n{\"n\": 3}\n");
        send(&[("x-request-id", "r-2")], r#"[{"n": 4}, {"n": 5}]"#);
        send(&[("traceparent", &upper), ("tracestate", "a=1"), ("x-request-id", "r 3")], r#"{"n": 6}"#);
        // Its body is read by another thread.
        let padding = "x".repeat(20_000);
        send(&traced, &format!(r#"{{"n": 7, "padding": "{padding}"}}"#));
        let short = "x-request-id=r-2,client=shop";
        let expected: Vec<(i64, String)> =
            [&whole, &whole, &whole, &whole, short, short, "client=shop", &whole]
                .into_iter()
                .enumerate()
                .map(|(number, headers)| (number as i64, headers.to_owned()))
                .collect();
        assert_eq!(by_number(&topic), expected, "{server}");
    }
}

#[test]
fn by_default_nothing_is_passed_on() {
    for server in SERVERS {
        let topic = shared().topic();
        let served = serve(&topic, &[("HTTP_SERVER", server)]);
        let answer = post(&served, &[("traceparent", TRACEPARENT), ("x-request-id", "r-1")], r#"{"n": 1}"#);
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(by_number(&topic), [(1, String::new())], "{server}");
    }
}

#[test]
fn headers_count_for_the_limit_of_the_topic() {
    let topic = shared().topic_with(1, &[("max.message.bytes", "2000")]);
    let served = serve(&topic, &[("KAFKA_HEADERS", "x-request-id")]);
    let (event, long) = (format!(r#"{{"n": 1, "x": "{}"}}"#, "x".repeat(1750)), "r".repeat(128));
    let refused = post(&served, &[("x-request-id", &long)], &event);
    assert_eq!(refused.status, 413, "{}", refused.text());
    assert!(refused.text().contains("max.message.bytes"), "{}", refused.text());
    let stored = post(&served, &[("x-request-id", "short")], &event);
    assert_eq!(stored.status, 200, "{}", stored.text());
    // A batch that is too large only because of them is divided.
    let events: String = (2..12).map(|n| format!("{{\"n\": {n}}}\n")).collect();
    let headers = [("x-request-id", long.as_str()), ("content-type", "application/x-ndjson")];
    let answer = post(&served, &headers, &events);
    assert_eq!(answer.status, 200, "{}", answer.text());
    let found = by_number(&topic);
    assert_eq!(found.len(), 11);
    assert!(found[1..].iter().all(|(_, headers)| *headers == format!("x-request-id={long}")));
}
