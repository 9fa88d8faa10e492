//! Bodies that take long to arrive: the client's time is not Kafka's.

use std::io::Write;
use std::thread;
use std::time::{Duration, Instant};

use flate2::Compression;
use flate2::write::GzEncoder;

use crate::producer::{Served, at_once, serve};
use crate::support::http::Response;
use crate::support::kafka::shared;
use crate::support::wait::secs;

const UPLOAD: Duration = secs(6);

/// An event of about 4 KB that stays larger than 1 KiB when compressed.
fn event(n: usize) -> String {
    let mut random = n as u64 + 1;
    let mut hex = String::new();
    while hex.len() < 4000 {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        hex.push_str(&format!("{:08x}", random >> 32));
    }
    format!("{{\"n\": {n}, \"hex\": \"{hex}\"}}")
}

/// Posts `body` in forty parts over the whole of [`UPLOAD`].
fn trickle(served: &Served, headers: &str, body: &[u8]) -> Response {
    let mut client = served.client();
    let head = format!(
        "POST /register_event HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n{headers}\r\n",
        body.len()
    );
    client.send_raw(head.as_bytes()).expect("sent");
    if headers.contains("Expect") {
        assert_eq!(client.read_response().expect("interim").status, 100);
    }
    let (began, step) = (Instant::now(), body.len().div_ceil(40));
    for part in body.chunks(step) {
        thread::sleep(UPLOAD / 40);
        client.send_raw(part).expect("sent");
    }
    assert!(began.elapsed() >= UPLOAD - secs(1));
    client.read_response().expect("an answer")
}

#[test]
fn an_upload_that_takes_longer_than_a_delivery_may_is_acknowledged() {
    let topic = shared().topic();
    let served = serve(&topic, &[("DELIVERY_TIMEOUT_MS", "4000"), ("HTTP_REQUEST_TIMEOUT_SECS", "60")]);
    let answers = at_once(3, |n| {
        let body = event(n);
        match n {
            0 => trickle(&served, "", body.as_bytes()),
            1 => trickle(&served, "Expect: 100-continue\r\n", body.as_bytes()),
            _ => {
                let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
                encoder.write_all(body.as_bytes()).expect("packed");
                trickle(&served, "Content-Encoding: gzip\r\n", &encoder.finish().expect("packed"))
            }
        }
    });
    for (n, answer) in answers.iter().enumerate() {
        assert_eq!(answer.status, 200, "upload {n}: {}", answer.text());
    }
    assert_eq!(topic.count(), 3);
    let waited = served.metric("pipeline_queue_wait_seconds_sum");
    assert!(waited < UPLOAD.as_secs_f64(), "the uploads are no wait in the queue: {waited} s");
}
