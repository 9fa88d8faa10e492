//! The HTTP server of our own: RFC 9112, and every limit of a connection.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use crate::consumer::load::event_lines;
use crate::producer::{Served, at_once, serve};
use crate::support::http::{self, Client, request_bytes};
use crate::support::kafka::shared;
use crate::support::process::Program;
use crate::support::topic::Topic;
use crate::support::wait::{eventually, secs};

const EDGE: (&str, &str) = ("HTTP_SERVER", "edge");

fn serve_edge(topic: &Topic) -> Served {
    serve(topic, &[EDGE])
}

/// Everything that comes for `request`, until the server ends the connection.
fn say(served: &Served, request: &[u8]) -> String {
    let mut client = served.client();
    client.send_raw(request).expect("sent");
    String::from_utf8_lossy(&client.read_to_end().expect("the end, and no reset")).into_owned()
}

fn post(headers: &str, body: &str) -> Vec<u8> {
    format!("POST /register_event HTTP/1.1\r\nHost: x\r\n{headers}\r\n{body}").into_bytes()
}

#[test]
fn it_says_that_it_runs() {
    let topic = shared().topic();
    let mut served = serve_edge(&topic);
    assert_eq!(http::get(served.address, "/version").expect("an answer").json()["http_server"], "edge");
    assert_eq!(served.metric("pipeline_http_server_info{server=\"edge\"}"), 1.0);
    served.program.stderr_after("with edge");
    let mut open = Program::producer().env("HTTP_ADDR", "0.0.0.0:0").start();
    let expected =
        if http::given_server().is_some_and(|name| name == "tiny_http") { "tiny_http" } else { "edge" };
    open.stderr_after(&format!("with {expected}"));
}

#[test]
fn what_tiny_http_refuses_is_served() {
    let topic = shared().topic();
    let served = serve_edge(&topic);
    let chunks = "1;a=b\r\n{\r\n0001\r\n}\r\n0\r\nX-Sum: 1\r\n\r\n";
    for (headers, body) in [
        ("Transfer-Encoding: chunked\r\nConnection: close\r\n", chunks),
        (
            "Connection: Upgrade, HTTP2-Settings, close\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\nContent-Length: 2\r\n",
            "{}",
        ),
        ("cf-ipcity: S\u{e3}o Paulo\r\nConnection: close\r\nContent-Length: 2\r\n", "{}"),
        ("Expect: 100-continue\r\nConnection: close\r\nContent-Length: 2\r\n", "{}"),
    ] {
        let answer = say(&served, &post(headers, body));
        assert!(answer.starts_with("HTTP/1.1 200 "), "{headers}: {answer}");
    }
    let absolute = "POST http://x/register_event HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}";
    assert!(say(&served, absolute.as_bytes()).starts_with("HTTP/1.1 200 "));
    let mut kept = served.client();
    for _ in 0..2 {
        kept.send_raw(&[&post("Content-Length: 2\r\n", "{}")[..], b"\r\n"].concat()).expect("sent");
        let answer = kept.read_response().expect("an answer");
        assert_eq!((answer.status, answer.header("keep-alive")), (200, Some("timeout=75")));
    }
    assert_eq!(topic.count(), 7);
}

#[test]
fn what_could_be_smuggling_is_refused_counted_and_closed() {
    let topic = shared().topic();
    let served = serve_edge(&topic);
    let get = |lines: &str| format!("GET /livez HTTP/1.1\r\nHost: x\r\n{lines}\r\n").into_bytes();
    let cases = [
        (post("Content-Length: 2\r\nTransfer-Encoding: chunked\r\n", "{}"), 400),
        (post("Content-Length: 2\r\nContent-Length: 2\r\n", "{}"), 400),
        (post("Content-Length: 2, 2\r\n", "{}"), 400),
        (post("Content-Length : 2\r\n", "{}"), 400),
        (post("X: a\r\n b\r\n", ""), 400),
        (post("X: a\x01b\r\n", ""), 400),
        (post("X: a\n", ""), 400),
        (post("Transfer-Encoding: chunked\r\n", "0x2\r\n{}\r\n0\r\n\r\n"), 400),
        (post("Transfer-Encoding: chunked\r\n", "2\n{}\r\n0\r\n\r\n"), 400),
        (b"GET /livez HTTP/1.1\r\n\r\n".to_vec(), 400),
        (b"GET /\xc3\xa3 HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(), 400),
        (get(&format!("X: {}\r\n", "a".repeat(33_000))), 431),
        (get(&"X: a\r\n".repeat(101)), 431),
        (format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(9000)).into_bytes(), 414),
        (post("Expect: more\r\nContent-Length: 2\r\n", "{}"), 417),
        (post("Transfer-Encoding: gzip, chunked\r\n", "2\r\n{}\r\n0\r\n\r\n"), 501),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), 505),
    ];
    let smuggled = request_bytes("POST", "/register_event", &[], br#"{"smuggled": true}"#);
    for (request, status) in &cases {
        let answer = say(&served, &[&request[..], &smuggled].concat());
        let shown = String::from_utf8_lossy(&request[..request.len().min(80)]).into_owned();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{shown}: {answer}");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
        assert!(head.contains("Connection: close"), "{shown}: {answer}");
        let body: serde_json::Value = serde_json::from_str(body).expect("JSON, and nothing behind it");
        assert!(body["error"].is_string(), "{shown}: {answer}");
    }
    let refused = |limit| served.metric(&format!("pipeline_http_refused_total{{limit=\"{limit}\"}}"));
    assert_eq!((refused("framing"), refused("max_head_bytes")), (14.0, 3.0));
    assert_eq!(served.metric("pipeline_http_requests_total{code=\"505\",route=\"unknown\"}"), 1.0);
    assert_eq!(topic.count(), 0);
}

#[test]
fn a_head_that_grows_for_20_seconds_is_cut_before_64_kib() {
    let topic = shared().topic();
    let served = serve_edge(&topic);
    served.assert_serves();
    let before = served.program.size().resident_bytes;
    let (line, mut sent, mut answer) = ([b"X: ", &[b'a'; 1000][..], b"\r\n"].concat(), 0, [0; 16]);
    let mut stream = TcpStream::connect(served.address).expect("connects");
    stream.set_read_timeout(Some(Duration::from_millis(100))).expect("set");
    stream.write_all(b"GET / HTTP/1.1\r\n").expect("sent");
    let began = Instant::now();
    // A line, and a moment for an answer to it.
    while stream.read_exact(&mut answer).is_err() {
        assert!(began.elapsed() < secs(20), "no answer to {sent} bytes");
        stream.write_all(&line).expect("not cut without an answer");
        sent += line.len();
    }
    assert!(sent < 64 << 10 && answer.starts_with(b"HTTP/1.1 431"), "{sent} bytes, {answer:?}");
    let grown = served.program.size().resident_bytes.saturating_sub(before);
    assert!(grown < 1 << 20, "{grown} bytes");
    served.assert_serves();
}

#[test]
fn endless_heads_cost_no_memory() {
    let topic = shared().topic();
    let served = serve_edge(&topic);
    served.assert_serves();
    let before = served.program.size().resident_bytes;
    at_once(4, |_| {
        let mut stream = TcpStream::connect(served.address).expect("connects");
        stream.write_all(b"GET / HTTP/1.1\r\n").expect("sent");
        let line = [b"X: ", &[b'a'; 1000][..], b"\r\n"].concat();
        // 64 MiB and more, or until the server has read enough and resets it.
        let sent = (0..64 << 10).take_while(|_| stream.write_all(&line).is_ok()).count();
        assert!(sent < 64 << 10, "it is cut");
    });
    let grown = served.program.size().resident_bytes.saturating_sub(before);
    assert!(grown < 4 << 20, "{grown} bytes");
    served.assert_serves();
}

#[test]
fn a_client_that_sends_too_much_can_read_why() {
    let topic = shared().topic();
    let served = serve_edge(&topic);
    for headers in ["Content-Length: 20000000\r\n", "Transfer-Encoding: chunked\r\n"] {
        let mut client = served.client();
        client.send_raw(&post(headers, "")).expect("sent");
        let chunk = [b"f4240\r\n", &vec![b' '; 1_000_000][..], b"\r\n"].concat();
        for _ in 0..20 {
            client.send_raw(&chunk).expect("the server reads on");
        }
        assert_eq!(client.read_response().expect("an answer").status, 413, "{headers}");
    }
}

#[test]
fn a_chunked_body_has_the_same_limit_as_any_other() {
    let topic = shared().topic();
    let served = serve(&topic, &[EDGE, ("MAX_BODY_BYTES", "1024"), ("MAX_EVENT_BYTES", "512")]);
    let chunked = |length: usize| {
        let body = format!("{length:x}\r\n[{{}}{}]\r\n0\r\n\r\n", " ".repeat(length - 4));
        say(&served, &post("Transfer-Encoding: chunked\r\nConnection: close\r\n", &body))
    };
    assert!(chunked(1024).starts_with("HTTP/1.1 200 "));
    assert!(chunked(1025).starts_with("HTTP/1.1 413 "));
}

#[test]
fn uploads_that_never_arrive_leave_room_for_others() {
    let topic = shared().topic();
    let served = serve_edge(&topic);
    let head = post("Content-Length: 8000000\r\n", "");
    let silent: Vec<Client> = (0..1500)
        .map(|_| {
            let mut client = served.client();
            client.send_raw(&head).expect("sent");
            client
        })
        .collect();
    // These send most of their bodies, and then nothing.
    let most = [&head[..], &vec![b' '; 7_000_000]].concat();
    let held = at_once(8, |_| {
        let mut client = served.client();
        let _ = client.send_raw(&most);
        client
    });
    for _ in 0..20 {
        served.assert_serves();
    }
    let large = format!("{{\"big\": \"{}\"}}", "x".repeat(100_000));
    assert_eq!(served.post(&large).status, 200);
    let size = served.program.size();
    assert!(size.resident_bytes < 128 << 20, "{size:?}");
    drop((silent, held));
}

#[test]
fn answers_much_larger_than_their_requests_do_not_pile_up() {
    let topic = shared().topic();
    let served = serve(&topic, &[EDGE, ("HTTP_EVENT_LOOPS", "1")]);
    served.assert_serves();
    // 2,000 rejected events in 4,000 bytes: the answer is seventy times as large.
    let body = "1\n".repeat(2000);
    let headers = format!("Content-Type: application/x-ndjson\r\nContent-Length: {}\r\n", body.len());
    let requests = post(&headers, &body).repeat(32);
    at_once(60, |_| {
        let mut deaf = served.client();
        let _ = deaf.stream().set_write_timeout(Some(secs(2)));
        let _ = deaf.send_raw(&requests);
        // Nothing is read, and the connection stays until all have sent what they can.
        thread::sleep(secs(2));
    });
    let peak = served.program.peak_bytes();
    assert!(peak < 128 << 20, "{peak} bytes");
    served.assert_serves();
}

/// Sends `body` in parts of equal size over `time`, and returns the status.
fn upload(served: &Served, body: &[u8], time: Duration) -> u16 {
    const PARTS: usize = 60;
    let mut client = served.client();
    let headers = format!("Content-Type: application/x-ndjson\r\nContent-Length: {}\r\n", body.len());
    client.send_raw(&post(&headers, "")).expect("sent");
    for part in body.chunks(body.len().div_ceil(PARTS)) {
        thread::sleep(time / PARTS as u32);
        client.send_raw(part).expect("sent");
    }
    client.read_response().expect("an answer").status
}

#[test]
fn slow_uploads_are_served() {
    let topic = shared().topic();
    let served = serve_edge(&topic);
    let small = event_lines(1, 4000);
    // As much as a body may have, at 4 Mbit/s.
    let large = event_lines(20, 419_000);
    let large_time = Duration::from_secs_f64(large.len() as f64 * 8.0 / 4e6);
    assert!(large_time > secs(16), "{large_time:?}");
    let statuses = at_once(5, |index| match index {
        4 => upload(&served, large.as_bytes(), large_time),
        _ => upload(&served, small.as_bytes(), [5, 8, 12, 18].map(secs)[index]),
    });
    assert_eq!(statuses, [200; 5]);
    assert_eq!(topic.count(), 4 + 20);
}

#[test]
fn out_of_descriptors_it_waits_and_goes_on() {
    let topic = shared().topic();
    let producer = env!("CARGO_BIN_EXE_producer");
    let script = format!("ulimit -n 120 && exec {producer}");
    let program = Program::new("producer", "/usr/bin/env").args(&["bash", "-c", &script]);
    let program = program.env("HTTP_ADDR", "127.0.0.1:0").env(EDGE.0, EDGE.1);
    let mut program = program.env("KAFKA_BROKERS", topic.brokers()).env("KAFKA_TOPIC", &topic.name).start();
    let address = program.address();
    let served = Served { program, address };
    served.wait_ready();
    let mut kept = served.client();
    assert_eq!(kept.post_event(b"{}").expect("an answer").status, 200);
    let greedy: Vec<TcpStream> = (0..200).filter_map(|_| TcpStream::connect(address).ok()).collect();
    eventually(secs(60), "it says so", || served.program.stderr().contains("cannot accept connections"));
    assert_eq!(kept.post_event(b"{}").expect("a connection from before").status, 200);
    drop(greedy);
    eventually(secs(60), "it serves again", || {
        http::post_event(address, b"{}").is_ok_and(|answer| answer.status == 200)
    });
}

#[test]
fn a_client_that_pipelines_without_reading_is_not_cut() {
    let topic = shared().topic();
    let served = serve(&topic, &[EDGE, ("HTTP_MAX_PIPELINED", "8")]);
    let mut client: Client = served.client();
    client.send_raw(&request_bytes("POST", "/register_event", &[], b"{}").repeat(2000)).expect("sent");
    for n in 0..2000 {
        assert_eq!(client.read_response().unwrap_or_else(|error| panic!("{n}: {error}")).status, 200);
    }
    assert_eq!(topic.count(), 2000);
}
