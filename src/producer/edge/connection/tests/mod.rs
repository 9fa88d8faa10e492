//! Tests of whole connections: what a client sends, and what it gets.

use std::time::Duration;

use super::limits::Limits;
use super::owner::{Owner, Seen};
use super::refusal::Refusal;
use super::signals::{Expired, Socket};

const SECOND: Duration = Duration::from_secs(1);

fn owner() -> Owner {
    Owner::start(Limits::default())
}

/// What becomes of `input` in one piece.
fn sent(input: &str) -> Owner {
    let mut owner = owner();
    owner.send(input.as_bytes());
    owner
}

fn post(body: &str) -> String {
    format!("POST /e HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

fn served(method: &str, target: &str, body: &str) -> Seen {
    Seen::Served(method.into(), target.into(), body.into())
}

#[test]
fn requests_are_served_in_order_and_the_connection_stays() {
    let chunked =
        "POST /c HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n2;x\r\nhi\r\n0\r\nA: b\r\n\r\n";
    let owner = sent(&format!("\r\n{}\r\n{chunked}GET /g HTTP/1.1\r\nHost: h\r\n\r\n", post("abc")));
    assert_eq!(
        owner.seen,
        [served("POST", "/e", "abc"), served("POST", "/c", "hi"), served("GET", "/g", "")]
    );
    assert_eq!((owner.statuses(), owner.socket), (vec![200; 3], Socket::Keep));
}

#[test]
fn an_answer_to_head_has_no_body() {
    let owner = sent("HEAD /g HTTP/1.1\r\nHost: h\r\n\r\n");
    let text = String::from_utf8_lossy(&owner.received).into_owned();
    assert!(text.contains("Content-Length: 3\r\n") && text.ends_with("\r\n\r\n"), "{text}");
}

#[test]
fn a_client_may_shut_its_side_and_still_gets_its_answer() {
    let mut owner = owner();
    owner.is_lazy = true;
    owner.send(post("abc").as_bytes());
    owner.connection.end_of_input();
    owner.work();
    assert_eq!((owner.statuses(), owner.socket), (vec![], Socket::Keep));
    owner.answer_next();
    assert_eq!((owner.statuses(), owner.socket), (vec![200], Socket::Close));
}

#[test]
fn a_request_cut_short_is_answered() {
    for (input, refusal) in [
        ("GET / HT", Refusal::BadHead("the connection ended within a head")),
        ("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nabc", Refusal::SlowBody),
    ] {
        let mut owner = sent(input);
        owner.end();
        assert_eq!(owner.seen, [Seen::Broken(refusal)]);
        assert_eq!((owner.statuses(), owner.socket), (vec![refusal.answer().status.code()], Socket::Close));
    }
}

#[test]
fn http_1_0_closes_unless_asked_to_stay() {
    let owner = sent("GET / HTTP/1.0\r\n\r\nGET / HTTP/1.0\r\n\r\n");
    assert_eq!((owner.seen.len(), owner.socket), (1, Socket::ShutWrite));
    let owner = sent("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET / HTTP/1.0\r\n\r\n");
    assert_eq!((owner.seen.len(), owner.socket), (2, Socket::Close));
    let text = String::from_utf8_lossy(&owner.received).into_owned();
    assert!(text.contains("Connection: keep-alive\r\nKeep-Alive: timeout=75\r\n"), "{text}");
}

#[test]
fn every_refusal_is_json_says_close_and_ends_parsing() {
    let head = |lines: &str| format!("POST / HTTP/1.1\r\nHost: h\r\n{lines}\r\n\r\n");
    for (input, status) in [
        (head("Content-Length: 1\r\nContent-Length: 1"), 400),
        (head("Content-Length: 1\r\nTransfer-Encoding: chunked"), 400),
        (head("Content-Length: x"), 400),
        (head("a : b"), 400),
        (head("a: b\r\n c"), 400),
        (head("a: \x01"), 400),
        (head("Transfer-Encoding: chunked") + "x\r\n", 400),
        (head("Transfer-Encoding: gzip"), 501),
        (head("Expect: something"), 417),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".into(), 505),
        (head(&"a: b\r\n".repeat(101)), 431),
        (head(&"x".repeat(40_000)), 431),
        (format!("GET /{} HTTP/1.1\r\nHost: h\r\n\r\n", "x".repeat(9000)), 414),
    ] {
        let mut owner = sent(&(input.clone() + &post("smuggled")));
        let text = String::from_utf8_lossy(&owner.received).into_owned();
        assert_eq!((owner.statuses(), owner.seen.len()), (vec![status], 1), "{input:.80}: {text}");
        let (head, body) = text.split_once("\r\n\r\n").expect("an answer");
        assert!(head.contains("Connection: close") && head.contains("application/json"), "{text}");
        assert!(serde_json::from_str::<serde_json::Value>(body).is_ok_and(|body| body["error"].is_string()));
        assert_eq!(owner.socket, Socket::ShutWrite, "it lingers");
        owner.send(post("smuggled").as_bytes());
        assert_eq!((owner.statuses().len(), owner.seen.len()), (1, 1));
        owner.end();
        assert_eq!(owner.socket, Socket::Close);
    }
}

#[test]
fn a_client_that_expects_continue_is_told_so_only_if_its_body_is_wanted() {
    let head = |target: &str, version: &str| {
        format!(
            "POST {target} HTTP/{version}\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n"
        )
    };
    let mut owner = sent(&head("/e", "1.1"));
    assert_eq!(owner.statuses(), [100]);
    owner.send(b"abc");
    assert_eq!((owner.statuses(), owner.socket), (vec![100, 200], Socket::Keep));
    assert_eq!(sent(&(head("/e", "1.1") + "abc")).statuses(), [200], "the body was there");
    assert_eq!(sent(&head("/e", "1.0")).statuses(), [0_u16; 0]);
    let refused = sent(&head("/refused", "1.1"));
    assert_eq!((refused.statuses(), refused.socket), (vec![404], Socket::ShutWrite));
}

#[test]
fn the_body_of_a_refused_request_is_skipped_if_it_is_small() {
    let refused =
        |length: usize| format!("POST /refused HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n\r\n");
    let mut owner = sent(&(refused(5) + "ab"));
    owner.send(b"cde");
    owner.send(post("x").as_bytes());
    assert_eq!((owner.statuses(), owner.socket), (vec![404, 200], Socket::Keep));
    let mut owner = sent(&refused(100_000));
    assert_eq!((owner.statuses(), owner.socket), (vec![404], Socket::ShutWrite));
    assert!(String::from_utf8_lossy(&owner.received).contains("Connection: close"));
    owner.send(&[b'x'; 100_000]);
    owner.end();
    assert_eq!((owner.seen.len(), owner.socket), (1, Socket::Close));
}

#[test]
fn a_body_beyond_its_room_is_refused_while_it_is_read() {
    let chunk = format!("{:x}\r\n{}\r\n", 1000, "x".repeat(1000));
    let input =
        "POST /c HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned() + &chunk.repeat(5);
    let mut owner = sent(&input);
    assert_eq!((owner.statuses(), owner.socket), (vec![413], Socket::ShutWrite));
    owner.send(&[b'x'; 1 << 20]);
    assert_eq!(owner.socket, Socket::ShutWrite);
    for _ in 0..40 {
        owner.send(&[b'x'; 1 << 20]);
    }
    assert_eq!(owner.socket, Socket::Close, "not without end");
}

#[test]
fn a_client_that_pipelines_waits_instead_of_being_cut() {
    let mut owner = Owner::start(Limits { pipelined: 3, ..Limits::default() });
    owner.is_lazy = true;
    owner.send(post("x").repeat(10).as_bytes());
    assert_eq!(owner.seen.len(), 3);
    assert!(!owner.connection.wants_input());
    assert_eq!(owner.wait(60 * SECOND), None, "it is not the client that is slow");
    owner.answer_next();
    assert_eq!((owner.seen.len(), owner.statuses().len()), (4, 1));
    while owner.answer_next() {}
    assert_eq!((owner.seen.len(), owner.statuses(), owner.socket), (10, vec![200; 10], Socket::Keep));
    assert!(owner.connection.wants_input());
}

#[test]
fn requests_in_progress_hold_only_what_their_answers_need() {
    let mut owner = owner();
    owner.is_lazy = true;
    let id = "x".repeat(30_000);
    let request = format!("POST /e HTTP/1.1\r\nHost: h\r\nX-Request-Id: {id}\r\nContent-Length: 1\r\n\r\nx");
    for _ in 0..60 {
        owner.send(request.as_bytes());
    }
    assert_eq!(owner.seen.len(), 60);
    let held = owner.connection.held_bytes();
    assert!(held < 60_000, "{held} bytes");
}

#[test]
fn a_client_that_does_not_read_is_first_not_read_and_then_cut() {
    let mut owner = Owner::start(Limits { output_bytes: 2000, ..Limits::default() });
    owner.reads = false;
    let mut requests = 0;
    while owner.connection.wants_input() {
        owner.send(post("x").as_bytes());
        requests += 1;
        assert!(requests < 100);
    }
    assert_eq!(owner.wait(19 * SECOND), None);
    assert_eq!(owner.wait(SECOND), Some(Expired::Unread));
    assert_eq!(owner.socket, Socket::Close);
}

#[test]
fn each_wait_has_its_time() {
    let mut idle = owner();
    assert_eq!(idle.wait(74 * SECOND), None);
    idle.send(b"\r\n");
    assert_eq!(idle.wait(SECOND), Some(Expired::Idle), "an empty line is no sign of life");
    assert_eq!((idle.statuses(), idle.socket), (vec![], Socket::Close));

    let mut used = sent(&post("abc"));
    assert_eq!(used.wait(74 * SECOND), None);
    used.send(post("abc").as_bytes());
    assert_eq!(used.wait(74 * SECOND), None);
    assert_eq!(used.wait(SECOND), Some(Expired::Idle));

    let mut slow = owner();
    for _ in 0..20 {
        slow.send(b"G");
        assert_eq!(slow.wait(SECOND - Duration::from_millis(1)), None);
    }
    assert_eq!(slow.wait(SECOND), Some(Expired::Slow(Refusal::SlowHead)));
    assert_eq!((slow.statuses(), slow.socket), (vec![408], Socket::ShutWrite));
    assert_eq!(slow.wait(SECOND / 2), None);
    assert_eq!(slow.wait(SECOND / 2), Some(Expired::Discarded));
    assert_eq!(slow.socket, Socket::Close);

    let mut upload = sent("POST /e HTTP/1.1\r\nHost: h\r\nContent-Length: 163840\r\n\r\n");
    assert_eq!(upload.wait(29 * SECOND), None, "16 KiB/s are 10 s more");
    assert_eq!(upload.wait(SECOND), Some(Expired::Slow(Refusal::SlowBody)));
    assert_eq!(upload.statuses(), [408]);

    let mut waiting = owner();
    waiting.is_lazy = true;
    waiting.send(post("abc").as_bytes());
    assert_eq!(waiting.wait(600 * SECOND), None, "it is our turn");
}

#[test]
fn a_connection_that_retires_ends_after_its_last_answer() {
    let mut idle = sent(&post("abc"));
    idle.connection.retire();
    idle.work();
    assert_eq!(idle.socket, Socket::Close);
    let mut busy = owner();
    busy.is_lazy = true;
    busy.send(post("abc").repeat(2).as_bytes());
    busy.connection.retire();
    busy.work();
    assert_eq!(busy.socket, Socket::Keep);
    while busy.answer_next() {}
    assert_eq!((busy.statuses(), busy.socket), (vec![200, 200], Socket::Close));
    assert_eq!(String::from_utf8_lossy(&busy.received).matches("Connection: close").count(), 1);
}
