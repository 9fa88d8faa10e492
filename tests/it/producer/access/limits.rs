//! Limits of clients: what passes is the rate, and nobody else notices.

use std::time::Instant;

use crate::producer::access::{KeyFile, SERVERS, post, request};
use crate::producer::at_once;
use crate::support::kafka::shared;
use crate::support::wait::secs;

#[test]
fn a_request_past_the_limit_is_refused_whole_and_told_when_to_come_again() {
    for server in SERVERS {
        let topic = shared().topic();
        let mut file = KeyFile::new();
        let key = file.add("shop", "secret", "events/s=1 burst=100");
        let served = file.serve(&topic, server, &[("MAX_REQUEST_EVENTS", "100")]);
        let post = |events: usize| {
            let headers = [("X-Api-Key", key.as_str()), ("Content-Type", "application/x-ndjson")];
            request(served.address, "POST", "/register_event", &headers, "{}\n".repeat(events).as_bytes())
        };
        assert_eq!(post(60).status, 200);
        let refused = post(60);
        assert_eq!((refused.status, refused.json()["error"].as_str()), (429, Some("rate_limited")));
        assert!(refused.text().contains("events/s=1"), "{}", refused.text());
        assert_eq!(refused.header("ratelimit-policy"), Some("\"events/s\";q=100;w=100"));
        let left = refused.header("ratelimit").expect("a header");
        assert!(left.starts_with("\"events/s\";r=4"), "{left}");
        let wait: u64 = refused.header("retry-after").and_then(|wait| wait.parse().ok()).expect("seconds");
        assert!((1..=21).contains(&wait), "{wait}");
        assert_eq!(topic.count(), 60, "whole or not at all");
        assert_eq!(post(40).status, 200);
    }
}

#[test]
fn at_twice_the_limit_the_limit_passes_and_other_clients_are_untouched() {
    for server in SERVERS {
        let topic = shared().topic();
        let mut file = KeyFile::new();
        let noisy = file.add("noisy", "secret", "events/s=100 burst=100");
        let quiet = file.add("quiet", "secret", "");
        let served = file.serve(&topic, server, &[("MAX_REQUEST_EVENTS", "100")]);
        let began = Instant::now();
        let counts = at_once(5, |thread| {
            let mut client = served.client();
            let (mut taken, mut refused) = (0_u32, 0);
            let mut next = began;
            while began.elapsed() < secs(10) {
                let key = if thread == 4 { &quiet } else { &noisy };
                let headers = [("X-Api-Key", key.as_str())];
                match client.request("POST", "/register_event", &headers, b"{}").expect("an answer").status {
                    200 => taken += 1,
                    429 => refused += 1,
                    status => panic!("{status}"),
                }
                // 50 a second from each thread.
                next += std::time::Duration::from_millis(20);
                std::thread::sleep(next.saturating_duration_since(Instant::now()));
            }
            (taken, refused)
        });
        let seconds = began.elapsed().as_secs_f64();
        let (quiet, noisy) = counts.split_last().expect("five");
        let taken: u32 = noisy.iter().map(|(taken, _)| taken).sum();
        let refused: u32 = noisy.iter().map(|(_, refused)| refused).sum();
        let most = 100.0 + 100.0 * seconds;
        assert!(f64::from(taken) <= most * 1.02, "{server}: {taken} of {most}");
        // A busy machine sends less than twice the limit; what it sent beyond the limit was refused.
        assert!(
            refused == 0 || f64::from(taken) >= most * 0.9,
            "{server}: {taken} of {most}, {refused} refused"
        );
        assert_eq!(quiet.1, 0, "{server}: nobody else is refused");
    }
}

#[test]
fn bytes_are_limited_before_the_body_is_read_and_for_chunked_bodies_too() {
    for server in SERVERS {
        let topic = shared().topic();
        let mut file = KeyFile::new();
        let key = file.add("shop", "secret", "bytes/s=1");
        // The burst is the largest body.
        let settings = [("MAX_BODY_BYTES", "2000"), ("MAX_EVENT_BYTES", "2000")];
        let served = file.serve(&topic, server, &settings);
        let event = format!("{{\"a\": \"{}\"}}", "x".repeat(1500));
        let headers = [("X-Api-Key", key.as_str())];
        let first = match server {
            "edge" => {
                let mut client = served.client();
                let head = format!("POST /register_event HTTP/1.1\r\nHost: h\r\nX-Api-Key: {key}\r\n");
                let body =
                    format!("Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{event}\r\n0\r\n\r\n", event.len());
                client.send_raw((head + &body).as_bytes()).expect("sent");
                client.read_response().expect("an answer")
            }
            _ => request(served.address, "POST", "/register_event", &headers, event.as_bytes()),
        };
        assert_eq!(first.status, 200, "{server}: {}", first.text());
        let mut client = served.client();
        let announced = format!(
            "POST /register_event HTTP/1.1\r\nHost: h\r\nX-Api-Key: {key}\r\nContent-Length: 1500\r\n\r\n"
        );
        client.send_raw(announced.as_bytes()).expect("sent");
        let refused = client.read_response().expect("an answer without the body");
        assert_eq!(
            (refused.status, refused.json()["error"].as_str()),
            (429, Some("rate_limited")),
            "{server}"
        );
        assert!(refused.text().contains("bytes/s=1"), "{}", refused.text());
        assert_eq!(post(&served, &headers).status, 200, "a small one fits");
    }
}
