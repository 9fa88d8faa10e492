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

/// A request, with its times in seconds.
#[derive(Clone, Copy)]
struct Try {
    sent: f64,
    answered: f64,
    is_taken: bool,
}

/// How much of `burst` and of `rate` a second was used in the time before a refusal that explains it best, for the
/// refusal that is explained worst. Where the moment of a decision is not known, the one in favour is assumed.
fn used_before_a_refusal(tries: &[Try], rate: f64, burst: f64) -> f64 {
    let taken: Vec<&Try> = tries.iter().filter(|one| one.is_taken).collect();
    let explained = |refused: &Try| {
        let used_since = |start: f64| {
            let used =
                taken.iter().filter(|one| one.answered >= start && one.sent <= refused.answered).count();
            used as f64 / (burst + rate * (refused.sent - start).max(0.0))
        };
        taken.iter().map(|one| used_since(one.sent)).fold(0.0, f64::max)
    };
    // A sample of them, since each is compared with all requests.
    tries.iter().filter(|one| !one.is_taken).step_by(20).map(explained).fold(1.0, f64::min)
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
        let mut tries = at_once(5, |thread| {
            let mut client = served.client();
            let mut tries = Vec::new();
            let mut next = began;
            while began.elapsed() < secs(10) {
                let key = if thread == 4 { &quiet } else { &noisy };
                let headers = [("X-Api-Key", key.as_str())];
                let sent = began.elapsed().as_secs_f64();
                let answer = client.request("POST", "/register_event", &headers, b"{}").expect("an answer");
                assert!(matches!(answer.status, 200 | 429), "{}", answer.text());
                let answered = began.elapsed().as_secs_f64();
                tries.push(Try { sent, answered, is_taken: answer.status == 200 });
                // 50 a second from each thread.
                next += std::time::Duration::from_millis(20);
                std::thread::sleep(next.saturating_duration_since(Instant::now()));
            }
            tries
        });
        let seconds = began.elapsed().as_secs_f64();
        let quiet = tries.pop().expect("five");
        let noisy = tries.concat();
        let taken = noisy.iter().filter(|one| one.is_taken).count() as f64;
        let most = 100.0 + 100.0 * seconds;
        assert!(taken <= most * 1.02, "{server}: {taken} of {most}");
        // A busy machine sends less at times, and what is not used beyond the burst is lost.
        let share = used_before_a_refusal(&noisy, 100.0, 100.0);
        assert!(
            share >= 0.9,
            "{server}: refused when {share} of the limit was used; {taken} of {most} in all"
        );
        assert!(quiet.iter().all(|one| one.is_taken), "{server}: nobody else is refused");
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
