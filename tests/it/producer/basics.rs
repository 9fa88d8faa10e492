//! The contract of the HTTP interface, row by row.

use std::sync::Mutex;
use std::time::Duration;

use crate::producer::{at_once, serve};
use crate::support::control::Watch;
use crate::support::http::{self, Client, request_bytes};
use crate::support::kafka::{Cluster, shared};
use crate::support::process::Program;
use crate::support::wait::{eventually, secs, within};

#[test]
fn the_originals_event_is_in_kafka_at_its_receipt() {
    let topic = shared().topic();
    let served = serve(&topic, &[]);
    let answer = served.post(r#"{"event": "login", "user_id": 42}"#);
    assert_eq!(answer.status, 200);
    let receipt = answer.json();
    assert_eq!((&receipt["status"], &receipt["topic"]), (&"ok".into(), &topic.name.as_str().into()));
    let records = topic.records();
    assert_eq!(records.len(), 1);
    assert_eq!(
        (receipt["partition"].as_i64(), receipt["offset"].as_i64()),
        (Some(records[0].partition.into()), Some(records[0].offset))
    );
    let line = records[0].text();
    let stamped = line.strip_prefix(r#"{"event": "login", "user_id": 42, "timestamp": ""#);
    let stamp = stamped.and_then(|rest| rest.strip_suffix(r#""}"#)).unwrap_or_else(|| panic!("{line}"));
    assert!(stamp.len() == 24 && stamp.ends_with('Z'), "{stamp}");
}

#[test]
fn every_row_of_the_table_of_answers() {
    let topic = shared().topic();
    let served = serve(&topic, &[("MAX_EVENT_BYTES", "1000"), ("MAX_BODY_BYTES", "2000")]);
    let deep = format!("{}1{}", r#"{"a":"#.repeat(100), "}".repeat(100));
    let long = format!(r#"{{"a": "{}"}}"#, "x".repeat(1000));
    let huge = "x".repeat(3000);
    type Case<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)], &'a str, u16);
    let cases: [Case<'_>; 14] = [
        ("POST", "/register_event", &[], "nonsense", 400),
        ("POST", "/register_event", &[], "7", 400),
        ("POST", "/register_event", &[], "", 400),
        ("POST", "/register_event", &[], &deep, 400),
        ("POST", "/register_event", &[], &long, 413),
        ("POST", "/register_event", &[], &huge, 413),
        ("POST", "/register_event", &[("Content-Type", "text/html")], "{}", 415),
        ("POST", "/register_event", &[("Content-Encoding", "br")], "{}", 415),
        ("PUT", "/register_event", &[], "{}", 405),
        ("GET", "/register_event", &[], "", 405),
        ("DELETE", "/livez", &[], "", 405),
        ("GET", "/nothing", &[], "", 404),
        ("GET", "/livez", &[], "", 200),
        ("GET", "/version", &[], "", 200),
    ];
    for (method, path, headers, body, status) in cases {
        let answer = served.client().request(method, path, headers, body.as_bytes()).expect("an answer");
        assert_eq!(answer.status, status, "{method} {path} {headers:?} {body:.40}: {}", answer.text());
        assert!(answer.header("date").is_some_and(|date| date.ends_with("GMT")));
        if status >= 400 {
            let error = answer.json();
            assert!(error["error"].is_string() && error["message"].is_string(), "{error}");
            assert_eq!(error["retryable"], false, "{error}");
        }
        assert_eq!(answer.header("allow").is_some(), status == 405);
    }
    assert_eq!(topic.count(), 0, "nothing refused is in Kafka");
    served.assert_serves();
}

#[test]
fn a_connection_is_kept_and_ended_as_the_client_asks() {
    let topic = shared().topic();
    let served = serve(&topic, &[]);
    let mut client = served.client();
    for _ in 0..20 {
        assert_eq!(client.post_event(b"{}").expect("answer").status, 200);
    }
    let close = [("Connection", "close"), ("X-Request-Id", "abc-1")];
    let answer = client.request("POST", "/register_event", &close, b"{}").expect("answer");
    assert_eq!((answer.status, answer.header("x-request-id")), (200, Some("abc-1")));
    assert_eq!(answer.header("connection"), Some("close"), "or a proxy's pool would use it again");
    assert_eq!(client.read_to_end().expect("the end").len(), 0);
    let mut old = served.client();
    old.send_raw(b"POST /register_event HTTP/1.0\r\nContent-Length: 2\r\n\r\n{}").expect("sent");
    let text = String::from_utf8(old.read_to_end().expect("the end")).expect("text");
    assert!(text.starts_with("HTTP/1.1 200 OK") && text.contains("\"offset\""), "{text}");
    assert!(text.contains("Connection: close\r\n"), "{text}");
    let mut old_kept = served.client();
    for _ in 0..2 {
        let request =
            b"POST /register_event HTTP/1.0\r\nConnection: Keep-Alive\r\nContent-Length: 2\r\n\r\n{}";
        old_kept.send_raw(request).expect("sent");
        let answer = old_kept.read_response().expect("answer");
        assert_eq!(answer.status, 200);
        assert_ne!(answer.header("connection"), Some("close"));
    }
    let mut head = served.client();
    head.send_raw(&request_bytes("HEAD", "/livez", &[("Connection", "close")], b"")).expect("sent");
    let text = String::from_utf8(head.read_to_end().expect("the end")).expect("text");
    assert!(text.ends_with("\r\n\r\n") && text.contains("Content-Length: 3"), "{text}");
}

#[test]
fn a_key_field_picks_the_partition() {
    let topic = shared().topic();
    let served = serve(&topic, &[("KAFKA_KEY_FIELD", "user_id")]);
    for user in 0..20 {
        for _ in 0..2 {
            assert_eq!(served.post(&format!(r#"{{"user_id": {user}}}"#)).status, 200);
        }
    }
    let records = topic.records();
    assert_eq!(records.len(), 40);
    let partitions: Vec<_> = (0..20)
        .map(|user: i32| {
            let key = user.to_string().into_bytes();
            let of_user: Vec<_> = records.iter().filter(|record| record.key.as_ref() == Some(&key)).collect();
            assert_eq!(of_user.len(), 2, "user {user}");
            assert_eq!(of_user[0].partition, of_user[1].partition);
            of_user[0].partition
        })
        .collect();
    assert!((0..3).all(|partition| partitions.contains(&partition)), "{partitions:?}");
}

#[test]
fn without_a_broker_it_starts_says_so_and_heals() {
    let cluster = Cluster::start(1);
    let topic = cluster.topic();
    cluster.kill(1);
    let mut program =
        Program::producer().env("KAFKA_BROKERS", cluster.brokers()).env("KAFKA_TOPIC", &topic.name).start();
    let address = program.address();
    let get = |path| http::get(address, path).expect("an answer").status;
    assert_eq!((get("/livez"), get("/readyz")), (200, 503));
    let answer = within(secs(1), "a refusal", || http::post_event(address, b"{}").expect("an answer"));
    assert_eq!((answer.status, answer.json()["retryable"].as_bool()), (503, Some(true)));
    assert!(answer.header("retry-after").is_some());
    cluster.restart(1);
    eventually(secs(60), "ready once Kafka is up", || get("/readyz") == 200);
    assert_eq!(http::post_event(address, b"{}").expect("an answer").status, 200);
    assert_eq!(topic.count(), 1);
}

#[test]
fn kafka_4_ends_it_with_a_reason_when_the_crate_is_forced_and_is_served_by_default() {
    let cluster = Cluster::start_with(1, &[("KAFKA_VERSION", "4.3.1")]);
    let program =
        |client| Program::producer().env("KAFKA_BROKERS", cluster.brokers()).env("KAFKA_CLIENT", client);
    let end = program("crate").run(secs(60));
    assert_eq!(end.status.code(), Some(2), "{}", end.stderr);
    assert!(end.stderr.contains("KAFKA_CLIENT=auto"), "{}", end.stderr);
    let mut served = program("auto").start();
    let address = served.address();
    let get = |path: &str| http::get(address, path).map_or(0, |answer| answer.status);
    eventually(secs(60), "ready", || get("/readyz") == 200);
    assert_eq!(http::post_event(address, b"{}").expect("an answer").status, 200);
}

#[test]
fn the_address_that_is_logged_is_the_one_that_was_given() {
    let mut program = Program::producer().env("HTTP_ADDR", "0.0.0.0:0").start();
    let address = program.address();
    assert_eq!(address.ip().to_string(), "0.0.0.0");
    assert_eq!(http::get(address, "/livez").expect("an answer").status, 200);
    let taken = Program::producer().env("HTTP_ADDR", address.to_string()).run(secs(30));
    assert_eq!(taken.status.code(), Some(1), "{}", taken.stderr);
    assert!(taken.stderr.contains(&format!("cannot start: HTTP_ADDR={address}: Address already in use")));
    // Of a range that is kept for documentation, so no machine has it.
    let foreign = Program::producer().env("HTTP_ADDR", "192.0.2.1:5000").run(secs(30));
    assert!(foreign.stderr.contains("no network interface here has this address"), "{}", foreign.stderr);
}

#[test]
fn settings_are_checked_before_anything_starts() {
    let end = Program::producer().env("QUEUE_MAX_EVENTS", "many").run(secs(60));
    assert_eq!(end.status.code(), Some(2));
    assert!(end.stderr.contains("many") && end.stderr.contains("queue-max-events"), "{}", end.stderr);
    let end =
        Program::producer().env("MAX_EVENT_BYTES", "5000").args(&["--max-body-bytes", "2000"]).run(secs(60));
    assert_eq!(end.status.code(), Some(2));
    let end = Program::producer().args(&["--check-config"]).run(secs(60));
    assert_eq!((end.status.code(), end.stdout.as_str()), (Some(0), "configuration ok\n"));
    let end = Program::producer().env("KAFKA_TOPIC", "other").args(&["--print-config"]).run(secs(60));
    assert!(end.stdout.contains("KAFKA_TOPIC=other  # environment or .env"), "{}", end.stdout);
    let end = Program::producer().args(&["--help"]).run(secs(60));
    assert!(end.status.success() && end.stdout.contains("QUEUE_MAX_BYTES"), "{}", end.stdout);
}

#[test]
fn two_hundred_clients_that_come_at_once_are_all_answered_every_time() {
    let topic = shared().topic();
    let served = serve(&topic, &[]);
    let post = |client: &mut Client| {
        let answer = client.post_event(b"{}").expect("an answer");
        assert_eq!(answer.status, 200, "{}", answer.text());
    };
    for round in 0..20 {
        // A client whose connection is served already is the control: only what new ones wait longer is judged.
        let served_already = Mutex::new(Client::connect(served.address).expect("connects"));
        post(&mut served_already.lock().expect("no panic"));
        let watch = Watch::start();
        let times = at_once(200, |index| {
            if index == 0 {
                post(&mut served_already.lock().expect("no panic"));
            } else {
                post(&mut Client::connect(served.address).expect("connects"));
            }
            watch.elapsed()
        });
        let (control, slowest) = (times[0], times.iter().max().expect("200 of them"));
        // A connection that finds no room in the queue of the listener is asked for again by the kernel after 1 s.
        let allowed = watch.allows(Duration::from_millis(700)) + 3 * control;
        assert!(*slowest < allowed, "round {round}: {slowest:?}, allowed {allowed:?}, control {control:?}");
    }
    assert_eq!(topic.count(), 4020);
}
