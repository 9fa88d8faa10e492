//! Answers after which the connection ends: nothing behind them is carried out, and they cost nobody else anything.

use std::net::{SocketAddr, TcpStream};

use event_pipeline::linux::raise_open_files_limit;

use crate::producer::{Served, serve};
use crate::support::http::{Client, is_on_edge, request_bytes};
use crate::support::kafka::shared;
use crate::support::topic::Topic;
use crate::support::wait::{eventually, eventually_some, secs};

/// Heads that are refused, with the status.
const REFUSED: [(&str, &str); 11] = [
    ("Transfer-Encoding: chunked\r\n", "411"),
    ("Transfer-Encoding: chunked\r\nContent-Length: 90\r\n", "400"),
    ("Transfer-Encoding: gzip, chunked\r\nContent-Length: 5000\r\n", "400"),
    ("Content-Length: abc\r\n", "400"),
    ("Content-Length: 70, 70\r\n", "400"),
    ("Content-Length: -1\r\n", "400"),
    ("Content-Length: 2\r\nContent-Length: 3\r\n", "400"),
    ("Content-Length: 5000\r\nContent-Length: 3\r\n", "400"),
    ("Content-Length: 9000000\r\n", "413"),
    ("Content-Length: 99999999999999999999999999\r\n", "413"),
    ("Content-Length: 1000000000000000\r\n", "413"),
];

fn smuggled() -> Vec<u8> {
    request_bytes("POST", "/register_event", &[], br#"{"smuggled": true}"#)
}

#[test]
fn nothing_behind_an_answer_that_closes_is_carried_out_or_answered() {
    let topic = shared().topic();
    let served = serve(&topic, &[]);
    for round in 0..12 {
        for (headers, status) in REFUSED {
            // `edge` reads chunked bodies.
            if is_on_edge() && status == "411" {
                continue;
            }
            let head = format!("POST /register_event HTTP/1.1\r\nHost: x\r\n{headers}\r\n").into_bytes();
            let before: &[u8] = [&b""[..], b"{}", b"2\r\n{}\r\n0\r\n\r\n"][round % 3];
            let behind = [before, &smuggled().repeat(1 + round % 4)].concat();
            let mut client = served.client();
            if round % 2 == 0 {
                client.send_raw(&[head, behind].concat()).expect("sent");
            } else {
                client.send_raw(&head).expect("sent");
                // It may be too late, which is as well.
                let _ = client.send_raw(&behind);
            }
            let all = client.read_what_comes();
            assert!(all.starts_with(&format!("HTTP/1.1 {status} ")), "round {round}, {headers:?}: {all}");
            assert!(all.contains("Connection: close\r\n"), "round {round}, {headers:?}: {all}");
            assert_eq!(all.matches("HTTP/1.1 ").count(), 1, "round {round}, {headers:?}: {all}");
        }
    }
    served.assert_serves();
    assert_eq!(topic.count(), 1, "only the proof is in the topic");
}

#[test]
fn an_address_that_is_used_again_after_such_an_answer_is_served() {
    let topic = shared().topic();
    let served = serve(&topic, &[]);
    // Several at once, because a connection that comes before the last one is forgotten must be served too.
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let mut local = ([127, 0, 0, 1], 0).into();
                for round in 0..40 {
                    local = post_and_be_refused(&served, local, round);
                }
            });
        }
    });
    assert_eq!(topic.count(), 8 * 40);
}

/// Sends an event and then a refused request from the address `local`, and returns the address.
fn post_and_be_refused(served: &Served, local: SocketAddr, round: usize) -> SocketAddr {
    let mut client =
        eventually_some(secs(30), "the address is free", || Client::connect_from(local, served.address).ok());
    let local = client.stream().local_addr().expect("an address");
    let answer = client.post_event(b"{}").expect("an answer");
    assert_eq!(answer.status, 200, "round {round}");
    let refused = b"POST /register_event HTTP/1.1\r\nHost: x\r\nContent-Length: abc\r\n\r\n";
    client.send_raw(refused).expect("sent");
    let all = client.read_what_comes();
    assert!(all.starts_with("HTTP/1.1 400 "), "round {round}: {all}");
    local
}

/// A producer with so many idle connections.
fn with_idle(topic: &Topic, count: usize) -> (Served, Vec<TcpStream>) {
    let served = serve(topic, &[("HTTP_IDLE_TIMEOUT_SECS", "1800")]);
    let idle = (0..count).map(|_| TcpStream::connect(served.address).expect("connects")).collect();
    eventually(secs(60), "all are accepted", || served.metric("pipeline_http_connections") >= count as f64);
    (served, idle)
}

/// Ticks of processor time that so many refusals cost, one after the other, each on its own connection.
fn refuse(served: &Served, request: &[u8], times: usize) -> u64 {
    let before = served.program.cpu_ticks();
    for _ in 0..times {
        let mut client = served.client();
        client.send_raw(request).expect("sent");
        assert!(client.read_response().expect("an answer").status >= 400);
    }
    served.program.cpu_ticks() - before
}

#[test]
fn what_a_refusal_costs_does_not_depend_on_the_number_of_connections() {
    // `edge` has no need to search for a connection.
    if is_on_edge() {
        return;
    }
    raise_open_files_limit().expect("allowed");
    let topic = shared().topic();
    let ((few, _few_idle), (many, _many_idle)) = (with_idle(&topic, 20), with_idle(&topic, 1500));
    let unread = format!("{{\"a\": \"{}\"}}", "x".repeat(3000));
    let requests = [
        request_bytes("POST", "/nope", &[], b"{}"),
        request_bytes("POST", "/nope", &[], unread.as_bytes()),
        b"POST /register_event HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec(),
    ];
    for (kind, request) in requests.iter().enumerate() {
        // Other work on the machine makes it more while it lasts: what holds once is not a matter of connections.
        let mut ticks = Vec::new();
        let is_alike = (0..3).any(|_| {
            let (at_few, at_many) = (refuse(&few, request, 1000), refuse(&many, request, 1000));
            assert!(at_few >= 5, "kind {kind}: {at_few} ticks are too few to compare");
            ticks.push((at_few, at_many));
            at_many < at_few * 4
        });
        assert!(is_alike, "kind {kind}: ticks with 20 connections and with 1,500: {ticks:?}");
    }
}
