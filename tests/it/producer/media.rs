//! Types, encodings and paths that clients send by default or by mistake.

use ruzstd::encoding::{CompressionLevel, compress_to_vec};

use crate::producer::{Served, serve};
use crate::support::http::Response;
use crate::support::kafka::shared;

type Headers = &'static [(&'static str, &'static str)];

const PATH: &str = "/register_event";
const ZSTD: (&str, &str) = ("Content-Encoding", "zstd");
const FORM: Headers = &[("Content-Type", "application/x-www-form-urlencoded")];

fn post(served: &Served, path: &str, headers: Headers, body: &[u8]) -> Response {
    served.client().request("POST", path, headers, body).expect("an answer")
}

fn zstd(content: &str) -> Vec<u8> {
    compress_to_vec(content.as_bytes(), CompressionLevel::Fastest)
}

#[test]
fn each_type_and_encoding_of_json_is_taken() {
    // `#` becomes the number of the case.
    let cases: [(&str, Headers, &str, usize); 19] = [
        ("/register_event/", &[], r##"{"case": #}"##, 1),
        ("/register_event/?source=app", &[], r##"{"case": #}"##, 1),
        (
            PATH,
            &[("Content-Type", "application/cloudevents+json; charset=UTF-8")],
            r##"{"case": #, "specversion": "1.0", "id": "a", "source": "/b", "type": "c", "data": {"d": [1]}}"##,
            1,
        ),
        (
            PATH,
            &[("Content-Type", "application/cloudevents-batch+json")],
            r##"[{"case": #, "specversion": "1.0"}, {"case": #, "specversion": "1.0"}]"##,
            2,
        ),
        (PATH, &[("Content-Type", "application/problem+json")], r##"{"case": #, "title": "no"}"##, 1),
        (PATH, &[("Content-Type", "application/csp-report")], r##"{"case": #, "csp-report": {}}"##, 1),
        (
            PATH,
            &[("Content-Type", "application/reports+json")],
            r##"[{"case": #, "type": "csp-violation"}, {"case": #, "type": "deprecation"}]"##,
            2,
        ),
        (PATH, &[("Content-Type", "application/vnd.company.event.v2+json")], r##"{"case": #}"##, 1),
        (PATH, &[("Content-Type", "application/jsonrequest")], r##"{"case": #}"##, 1),
        (PATH, &[("Content-Type", "application/octet-stream")], r##"{"case": #}"##, 1),
        (PATH, &[("Content-Type", "")], r##"{"case": #}"##, 1),
        (PATH, FORM, r##"{"case": #}"##, 1),
        (PATH, &[("Content-Encoding", "")], r##"{"case": #}"##, 1),
        (PATH, &[ZSTD], r##"{"case": #}"##, 1),
        (
            PATH,
            &[("Content-Encoding", "ZSTD"), ("Content-Type", "application/x-ndjson")],
            "{\"case\": #}\n",
            2,
        ),
        (PATH, &[("Content-Type", "application/json")], "{\"case\": #}\n{\"case\": #}\n", 2),
        (PATH, FORM, "{\"case\": #}\r\n\r\n{\"case\": #}\r\n{\"case\": #}", 3),
        (PATH, &[("Content-Type", "application/stream+json")], "{\"case\": #}\n{\"case\": #}\n", 2),
        (PATH, &[("Content-Type", "application/x-jsonlines")], "{\"case\": #}\n", 1),
    ];
    let topic = shared().topic();
    let served = serve(&topic, &[]);
    for (number, (path, headers, template, events)) in cases.iter().enumerate() {
        let content = template.replace('#', &number.to_string());
        let is_zstd = headers.iter().any(|(_, value)| value.eq_ignore_ascii_case("zstd"));
        let body = match (is_zstd, events) {
            (false, _) => content.into_bytes(),
            // Several frames, and one that is to be skipped.
            (true, 2) => [b"\x50\x2a\x4d\x18\x01\0\0\0x".to_vec(), zstd(&content).repeat(2)].concat(),
            (true, _) => zstd(&content),
        };
        let answer = post(&served, path, headers, &body);
        assert_eq!(answer.status, 200, "case {number}: {}", answer.text());
    }
    let records = topic.records();
    for (number, (_, _, _, events)) in cases.iter().enumerate() {
        let start = format!("{{\"case\": {number}");
        let found = records.iter().filter(|record| {
            let rest = record.text().strip_prefix(&start);
            rest.is_some_and(|rest| rest.starts_with(',') && rest.contains("\"timestamp\": \""))
        });
        assert_eq!(found.count(), *events, "case {number}");
    }
    assert_eq!(records.len(), cases.iter().map(|(.., events)| events).sum::<usize>());
}

#[test]
fn what_is_not_taken_is_answered_with_what_to_send() {
    const MULTIPART: &str = "--x\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n1\r\n--x--\r\n";
    const JSON: Headers = &[("Content-Type", "application/json")];
    const WITH_CURL: &str = "-H 'Content-Type: application/json'";
    let cases: [(Headers, &str, u16, &str, &str); 9] = [
        (
            &[("Content-Type", "text/html")],
            "{}",
            415,
            "unsupported_media_type",
            "`text/html` is not supported",
        ),
        (
            &[("Content-Type", "multipart/form-data; boundary=x")],
            MULTIPART,
            415,
            "unsupported_media_type",
            WITH_CURL,
        ),
        (&[("Content-Encoding", "br")], "{}", 415, "unsupported_encoding", "send gzip, zstd or none"),
        (&[("Content-Encoding", "gzip, zstd")], "{}", 415, "unsupported_encoding", "send gzip, zstd or none"),
        (FORM, "payload=%7B%22a%22%3A1%7D", 400, "not_json", WITH_CURL),
        (JSON, "{\"a\":1}\n{\"a\":\n", 400, "not_json", "application/x-ndjson"),
        (JSON, "{\"a\":1}\n7\n", 400, "not_json", "application/x-ndjson"),
        (&[ZSTD], "{}", 400, "not_zstd", "not complete zstd data"),
        (&[("Content-Encoding", "gzip")], "{}", 400, "not_gzip", "not complete gzip data"),
    ];
    let topic = shared().topic();
    let served = serve(&topic, &[]);
    for (headers, body, status, error, hint) in cases {
        let answer = post(&served, PATH, headers, body.as_bytes());
        let said = answer.json();
        assert_eq!((answer.status, said["error"].as_str()), (status, Some(error)), "{headers:?}: {said}");
        assert!(said["message"].as_str().is_some_and(|message| message.contains(hint)), "{said}");
        let accepted = [answer.header("accept-post"), answer.header("accept-encoding")];
        let expected = match error {
            "unsupported_media_type" => [Some("application/x-ndjson"), None],
            "unsupported_encoding" => [None, Some("gzip, zstd")],
            _ => [None, None],
        };
        for (accepted, expected) in accepted.into_iter().zip(expected) {
            assert_eq!(accepted.is_some(), expected.is_some(), "{headers:?}");
            assert!(accepted.unwrap_or_default().contains(expected.unwrap_or_default()), "{accepted:?}");
        }
    }
    assert_eq!(topic.count(), 0, "nothing of it is in Kafka");
}
