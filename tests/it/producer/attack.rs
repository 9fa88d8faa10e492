//! What a hostile or broken client can do with a few bytes: the producer goes on serving, and gives back what it took.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::process::Command;
use std::time::Duration;

use socket2::SockRef;

use crate::producer::{Served, at_once, serve};
use crate::support::control::Watch;
use crate::support::http::{self, Client, is_on_edge, request_bytes};
use crate::support::kafka::shared;
use crate::support::process::Program;
use crate::support::wait::{eventually, secs, within};

const QUICK: [(&str, &str); 2] = [("HTTP_IDLE_TIMEOUT_SECS", "2"), ("HTTP_REQUEST_TIMEOUT_SECS", "2")];

/// Sends `bytes` on a fresh connection and reads until the server ends it.
fn say(served: &Served, bytes: &[u8]) -> String {
    let mut client = served.client();
    client.stream().set_read_timeout(Some(secs(60))).expect("set");
    client.send_raw(bytes).expect("sent");
    String::from_utf8_lossy(&client.read_to_end().expect("the server ends the connection")).into_owned()
}

/// Runs `attack`, then proves that the producer serves and that threads, descriptors and memory came back.
#[track_caller]
fn survives(served: &Served, attack: impl FnOnce()) {
    served.assert_serves();
    // tiny_http's idle threads end after five seconds; what is there before the attack is the measure.
    let before = served.program.size();
    attack();
    served.assert_serves();
    eventually(secs(60), &format!("threads and descriptors are given back, as before: {before:?}"), || {
        let now = served.program.size();
        now.threads <= before.threads + 14 && now.open_fds <= before.open_fds + 12
    });
    let grown = served.program.size().resident_bytes.saturating_sub(before.resident_bytes);
    assert!(grown < 32 << 20, "{grown} bytes more than before");
    assert!(served.readyz() == 200);
}

fn post_with(headers: &str) -> Vec<u8> {
    format!("POST /register_event HTTP/1.1\r\nHost: x\r\n{headers}\r\n").into_bytes()
}

#[test]
fn lengths_that_lie_are_refused_and_the_connection_ended() {
    let topic = shared().topic();
    let served = serve(&topic, &QUICK);
    survives(&served, || {
        for (headers, status) in [
            ("Content-Length: 9000000\r\n", "413"),
            ("Content-Length: 60000000\r\n", "413"),
            ("Content-Length: abc\r\n", "400"),
            ("Content-Length: +2\r\n", "400"),
            ("Content-Length: -1\r\n", "400"),
            ("Content-Length: 2\r\nContent-Length: 3\r\n", "400"),
            ("Content-Length: 2\r\nTransfer-Encoding: chunked\r\n", "400"),
            ("Transfer-Encoding: chunked\r\n", "411"),
            ("Connection: upgrade\r\nUpgrade: h2c\r\nContent-Length: 2\r\n", "400"),
            ("Connection: keep-alive, Upgrade\r\n", "400"),
            ("Content-Length: 99999999999999999999999999\r\n", "413"),
            ("Content-Length: 18446744073709551616\r\n", "413"),
        ] {
            // The other server serves these; `edge` has its own tests.
            if is_on_edge() && (status == "411" || headers.contains("pgrade")) {
                continue;
            }
            let mut request = post_with(headers);
            request.extend(b"{}");
            let answer = say(&served, &request);
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{headers:?}: {answer}");
            assert!(answer.contains("Connection: close\r\n"), "{headers:?}: {answer}");
        }
    });
    assert_eq!(topic.count(), 2, "only the two proofs are in Kafka");
    assert!(
        served.metric("pipeline_http_refused_total{limit=\"framing\"}")
            >= if is_on_edge() { 5.0 } else { 7.0 }
    );
    assert!(served.metric("pipeline_http_refused_total{limit=\"max_body_bytes\"}") >= 2.0);
}

#[test]
fn a_length_that_would_abort_tiny_http_costs_one_thread_and_is_counted() {
    if is_on_edge() {
        return;
    }
    let topic = shared().topic();
    let served = serve(&topic, &QUICK);
    for length in ["1000000000000000", "18446744073709551615", "4000000000"] {
        let answer = say(&served, &post_with(&format!("Content-Length: {length}\r\n")));
        assert!(answer.starts_with("HTTP/1.1 413 "), "{length}: {answer}");
        served.assert_serves();
    }
    eventually(secs(60), "the lost threads are counted", || {
        served.metric("pipeline_http_leaked_connections") == 3.0
    });
    served.assert_serves();
}

#[test]
fn slow_heads_slow_bodies_and_silence_are_cut() {
    let topic = shared().topic();
    let served = serve(&topic, &QUICK);
    survives(&served, || {
        let beginnings: [&[u8]; 5] = [
            b"",
            b"POST /register_event HTTP/1.1\r\nHost",
            &post_with("Content-Length: 900\r\n"),
            &post_with("Content-Length: 5000\r\n"),
            &post_with("Content-Length: 5000\r\nExpect: 100-continue\r\n"),
        ];
        at_once(beginnings.len() * 4, |index| {
            let mut client = served.client();
            client.stream().set_read_timeout(Some(secs(60))).expect("set");
            client.send_raw(beginnings[index % beginnings.len()]).expect("sent");
            let watch = Watch::start();
            let mut answer = Vec::new();
            let mut stream = client.stream();
            let _ = stream.read_to_end(&mut answer);
            let text = String::from_utf8_lossy(&answer).into_owned();
            assert!(index % beginnings.len() < 3 || text.contains("HTTP/1.1 408 "), "{index}: {text}");
            watch.assert_within(secs(5), &format!("{index} is cut"));
        });
    });
    for limit in ["idle_timeout", "request_timeout"] {
        assert!(
            served.metric(&format!("pipeline_http_refused_total{{limit=\"{limit}\"}}")) >= 4.0,
            "{limit}"
        );
    }
    assert_eq!(topic.count(), 2);
}

#[test]
fn a_trickled_head_is_cut_though_it_never_falls_silent() {
    let topic = shared().topic();
    let served = serve(&topic, &QUICK);
    let mut client = served.client();
    let mut sent = client.send_raw(b"POST /register_event HTTP/1.1\r\nX-Slow: ");
    let watch = Watch::start();
    while sent.is_ok() {
        watch.assert_within(secs(6), "the connection is cut");
        std::thread::sleep(Duration::from_millis(100));
        sent = client.send_raw(b"a");
    }
    served.assert_serves();
}

#[test]
fn garbage_resets_and_half_closed_connections() {
    let topic = shared().topic();
    let served = serve(&topic, &QUICK);
    survives(&served, || {
        for garbage in [
            &b"\0\x01\x02\xff\xfe\r\n\r\n"[..],
            b"GET\r\n\r\n",
            b"\r\n\r\n\r\n",
            b"\x16\x03\x01\x02\x00\x01",
            b"GET / HTTP/9.9\r\n\r\n",
        ] {
            let mut client = served.client();
            let _ = client.send_raw(garbage);
            let _ = client.stream().shutdown(Shutdown::Write);
            let _ = client.read_to_end();
        }
        for _ in 0..300 {
            let stream = TcpStream::connect(served.address).expect("connects");
            SockRef::from(&stream).set_linger(Some(Duration::ZERO)).expect("set");
        }
    });
    let mut half = served.client();
    half.send("POST", "/register_event", &[], b"{}").expect("sent");
    half.stream().shutdown(Shutdown::Write).expect("shut");
    assert_eq!(half.read_response().expect("an answer all the same").status, 200);
}

#[test]
fn expect_100_is_honoured_and_large_bodies_do_not_starve_small_ones() {
    let topic = shared().topic();
    let served = serve(&topic, &[("HTTP_BODY_THREADS", "2"), ("HTTP_REQUEST_TIMEOUT_SECS", "20")]);
    let body = format!("{{\"big\": \"{}\"}}", "x".repeat(5000));
    let mut client = served.client();
    client
        .send_raw(&post_with(&format!("Content-Length: {}\r\nExpect: 100-continue\r\n", body.len())))
        .expect("sent");
    assert_eq!(client.read_response().expect("interim").status, 100);
    client.send_raw(body.as_bytes()).expect("sent");
    assert_eq!(client.read_response().expect("final").status, 200);
    let slow: Vec<Client> = (0..200)
        .map(|_| {
            let mut client = served.client();
            client.send_raw(&post_with("Content-Length: 5000\r\n")).expect("sent");
            client
        })
        .collect();
    for _ in 0..50 {
        within(Duration::from_millis(500), "a small one beside slow ones", || served.assert_serves());
    }
    let refused = served.metric("pipeline_http_refused_total{limit=\"body_threads\"}");
    assert!(refused == 0.0, "{refused} of 200 did not fit into the lane");
    eventually(secs(60), "the lane is free again", || {
        served
            .client()
            .request("POST", "/register_event", &[], body.as_bytes())
            .is_ok_and(|answer| answer.status == 200)
    });
    drop(slow);
}

#[test]
fn too_many_connections_cost_the_newest() {
    let topic = shared().topic();
    let served = serve(&topic, &[("HTTP_MAX_CONNECTIONS", "50")]);
    let mut first: Vec<Client> = (0..40).map(|_| served.client()).collect();
    for client in &mut first {
        assert_eq!(client.post_event(b"{}").expect("an answer").status, 200);
    }
    eventually(secs(60), "they are known", || served.metric("pipeline_http_connections") >= 40.0);
    let more: Vec<TcpStream> =
        (0..60).map(|_| TcpStream::connect(served.address).expect("connects")).collect();
    eventually(secs(60), "the newest are closed", || {
        let is_closed = |stream: &&TcpStream| {
            let mut stream = *stream;
            stream.set_nonblocking(true).expect("set");
            matches!(stream.read(&mut [0; 1]), Ok(0))
        };
        more.iter().filter(is_closed).count() >= 45
    });
    for client in &mut first {
        assert_eq!(client.post_event(b"{}").expect("the old ones are served").status, 200);
    }
    let limit = "pipeline_http_refused_total{limit=\"max_connections\"}";
    drop((more, first));
    eventually(secs(60), "there is room again", || {
        http::get(served.address, "/livez").is_ok_and(|answer| answer.status == 200)
            && served.metric(limit) >= 45.0
    });
}

#[test]
fn a_thousand_idle_and_fifty_slow_clients_do_not_keep_fifty_others_from_posting() {
    let topic = shared().topic();
    let served = serve(&topic, &[]);
    let idle: Vec<TcpStream> =
        (0..1000).map(|_| TcpStream::connect(served.address).expect("connects")).collect();
    let slow: Vec<TcpStream> = (0..50)
        .map(|_| {
            let mut stream = TcpStream::connect(served.address).expect("connects");
            stream.write_all(b"POST /register_event HTTP/1.1\r\nX-Slow: ").expect("sent");
            stream
        })
        .collect();
    at_once(50, |_| {
        let mut client = served.client();
        for _ in 0..40 {
            assert_eq!(client.post_event(b"{}").expect("an answer").status, 200);
            for mut stream in &slow {
                let _ = stream.write_all(b"a");
            }
        }
    });
    assert_eq!(topic.count(), 2000);
    let size = served.program.size();
    assert!(size.resident_bytes < 128 << 20, "{size:?}");
    drop(idle);
}

#[test]
fn out_of_descriptors_the_accept_loop_dies_and_is_built_anew() {
    if is_on_edge() {
        return;
    }
    let topic = shared().topic();
    let mut program = Program::new("producer", "/usr/bin/env");
    let producer = env!("CARGO_BIN_EXE_producer");
    let script = format!("ulimit -n 120 && exec {producer}");
    program = program.args(&["bash", "-c", &script]).env("HTTP_ADDR", "127.0.0.1:0");
    let mut program = program.env("KAFKA_BROKERS", topic.brokers()).env("KAFKA_TOPIC", &topic.name).start();
    let address = program.address();
    let served = Served { program, address };
    served.wait_ready();
    let mut kept = served.client();
    assert_eq!(kept.post_event(b"{}").expect("an answer").status, 200);
    let greedy: Vec<TcpStream> = (0..200).filter_map(|_| TcpStream::connect(address).ok()).collect();
    eventually(secs(60), "the accept loop is rebuilt", || {
        served.program.stderr().contains("rebuilt the accept loop")
    });
    assert_eq!(kept.post_event(b"{}").expect("a connection from before").status, 200);
    drop(greedy);
    eventually(secs(60), "it serves again", || {
        http::post_event(address, b"{}").is_ok_and(|answer| answer.status == 200)
    });
    assert_eq!(kept.post_event(b"{}").expect("a connection from before").status, 200);
    assert!(served.metric("pipeline_http_accept_restarts_total") >= 1.0);
}

#[test]
fn past_the_leak_budget_it_drains_and_ends_with_a_code_of_its_own() {
    if is_on_edge() {
        return;
    }
    let topic = shared().topic();
    let settings = [QUICK[0], QUICK[1], ("HTTP_LEAK_BUDGET", "10")];
    let mut served = serve(&topic, &settings);
    for _ in 0..20 {
        let mut client = served.client();
        client.send_raw(b"GET / HTTP/2.0\r\n\r\n").expect("sent");
    }
    let status = served.program.wait(secs(60));
    assert_eq!(status.code(), Some(70), "{}", served.program.stderr());
    assert!(served.program.stderr().contains("HTTP_LEAK_BUDGET"));
}

#[test]
fn slowhttptest_in_its_four_modes_leaves_the_service_available() {
    let topic = shared().topic();
    let served = serve(&topic, &QUICK);
    let url = format!("http://{}/register_event", served.address);
    for mode in [&["-H"][..], &["-B", "-t", "POST"], &["-R"], &["-X"]] {
        let mut command = Command::new("slowhttptest");
        command.args(mode).args(["-c", "300", "-r", "200", "-i", "1", "-l", "8", "-u", &url]);
        let mut attack = command.stdout(std::process::Stdio::null()).spawn().unwrap_or_else(|error| {
            panic!("slowhttptest does not start: {error}; install it (Debian, Ubuntu: apt-get install slowhttptest)")
        });
        let mut answered = 0;
        while attack.try_wait().expect("its state").is_none() {
            within(secs(1), &format!("an event in {mode:?}"), || served.assert_serves());
            answered += 1;
        }
        assert!(answered > 2, "{mode:?}: {answered}");
    }
    survives(&served, || {});
}

#[test]
fn a_client_that_never_reads_its_answers_holds_nobody_else() {
    let topic = shared().topic();
    let served = serve(&topic, &[]);
    let ask = request_bytes("GET", "/metrics", &[], b"");
    at_once(4, |_| {
        let mut deaf = served.client();
        let _ = deaf.stream().set_write_timeout(Some(secs(1)));
        for _ in 0..2000 {
            if deaf.send_raw(&ask).is_err() {
                break;
            }
        }
    });
    for _ in 0..20 {
        within(secs(3), "an event beside deaf clients", || served.assert_serves());
    }
    let size = served.program.size();
    assert!(size.resident_bytes < 128 << 20, "{size:?}");
}
