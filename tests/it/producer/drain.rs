//! How it ends: what was taken is in Kafka or was told otherwise, and the exit code says which.

use std::sync::Mutex;
use std::thread;

use crate::producer::load::{Ledger, Load};
use crate::producer::{Served, at_once, serve, serve_via};
use crate::support::control::Watch;
use crate::support::http::{Client, Response};
use crate::support::kafka::{Cluster, shared};
use crate::support::topic::Topic;
use crate::support::wait::{eventually, secs};

/// Full load of 50 clients, then `signal`; the clients go on until each has met the closed port.
fn drained(signal: i32, topic: &Topic) -> (Ledger, Served) {
    let mut served = serve(topic, &[("SHUTDOWN_TIMEOUT_SECS", "60")]);
    let load = Load::full(served.address, 50);
    load.wait_acknowledged(2000);
    let watch = Watch::start();
    served.program.signal(signal);
    let status = served.program.wait(secs(60));
    watch.assert_within(secs(10), "the drain ends long before its limit");
    load.wait_refused(100);
    let ledger = load.finish();
    assert_eq!(status.code(), Some(0), "{}", served.program.stderr());
    (ledger, served)
}

#[test]
fn under_full_load_every_200_is_in_kafka_and_what_was_refused_is_not() {
    for signal in [libc::SIGTERM, libc::SIGINT] {
        let topic = shared().topic();
        let (ledger, served) = drained(signal, &topic);
        let stderr = served.program.stderr();
        assert!(stderr.contains("drained"), "{stderr}");
        // On a busy machine the broker may have been silent for a moment before the signal.
        let allowed = |status: u16, error: &str| {
            matches!((status, error), (200 | 0, "") | (503, "draining" | "kafka_unavailable"))
        };
        for ((status, error), count) in ledger.summary() {
            assert!(allowed(status, &error), "{count} times {status} {error}");
        }
        // `assert_kept` also proves that what got one of these 503 is absent.
        assert_eq!(ledger.assert_kept(&topic), 0, "no fault, no duplicate");
        // A connection that ended without a byte of answer: its event was not taken either.
        assert_eq!(topic.count(), ledger.count(200));
    }
}

#[test]
fn while_it_drains_what_is_inside_is_answered_and_what_comes_is_told_so() {
    let cluster = Cluster::start(1);
    let topic = cluster.topic();
    let mut served = serve_via(&cluster.brokers(), &topic, &[]);
    let (mut open, mut half) = (served.client(), served.client());
    assert_eq!(open.get("/readyz").expect("an answer").status, 200);
    half.send_raw(b"POST /register_event HTTP/1.1\r\nHost: test\r\nContent-Length: 5000\r\n\r\n{")
        .expect("sent");
    cluster.pause(1);
    let answer = thread::scope(|scope| {
        let inside = scope.spawn(|| served.post(r#"{"n": 1}"#));
        eventually(secs(60), "it is taken", || served.metric("pipeline_queue_events") == 1.0);
        served.program.signal(libc::SIGTERM);
        eventually(secs(60), "no new connection is accepted", || Client::connect(served.address).is_err());
        let late = open.post_event(br#"{"n": 2}"#).expect("an answer");
        assert_eq!((late.status, late.json()["error"].as_str()), (503, Some("draining")));
        assert!(late.header("retry-after").is_some());
        assert_eq!(open.get("/readyz").expect("an answer").status, 503);
        assert_eq!(open.get("/livez").expect("an answer").status, 200);
        cluster.resume(1);
        inside.join().expect("no panic")
    });
    assert_eq!((answer.status, served.program.wait(secs(60)).code()), (200, Some(0)));
    let records = topic.records();
    assert_eq!(records.len(), 1, "neither the late one nor the half one");
    assert!(records[0].text().starts_with(r#"{"n": 1,"#));
}

/// Connections that are open before the broker stops: what they post must be taken before its silence is noticed.
fn twenty_clients(served: &Served) -> Vec<Mutex<Client>> {
    (0..20).map(|_| Mutex::new(served.client())).collect()
}

/// Posts one event on each of them.
fn post_at_once(clients: Vec<Mutex<Client>>) -> Vec<Option<Response>> {
    at_once(clients.len(), |index| clients[index].lock().expect("one thread each").post_event(b"{}").ok())
}

#[test]
fn with_the_broker_stopped_it_ends_in_time_and_says_how_many_are_unsent() {
    let cluster = Cluster::start(1);
    let topic = cluster.topic();
    let settings = [("SHUTDOWN_TIMEOUT_SECS", "2")];
    let mut served = serve_via(&cluster.brokers(), &topic, &settings);
    let clients = twenty_clients(&served);
    cluster.pause(1);
    thread::scope(|scope| {
        let clients = scope.spawn(|| post_at_once(clients));
        eventually(secs(60), "all are taken", || served.metric("pipeline_queue_events") == 20.0);
        let watch = Watch::start();
        served.program.signal(libc::SIGTERM);
        assert!(clients.join().expect("no panic").iter().all(Option::is_none), "nobody got a 200");
        watch.assert_within(secs(4), "it gives up after SHUTDOWN_TIMEOUT_SECS");
    });
    assert_eq!(served.program.wait(secs(60)).code(), Some(1));
    let stderr = served.program.stderr();
    assert!(stderr.contains("20 events were not acknowledged"), "{stderr}");
    cluster.resume(1);
}

#[test]
fn with_the_broker_stopped_those_answered_503_count_as_unsent_too() {
    let cluster = Cluster::start(1);
    let topic = cluster.topic();
    let settings = [("SHUTDOWN_TIMEOUT_SECS", "20"), ("DELIVERY_TIMEOUT_MS", "2000")];
    let mut served = serve_via(&cluster.brokers(), &topic, &settings);
    let clients = twenty_clients(&served);
    cluster.pause(1);
    thread::scope(|scope| {
        let clients = scope.spawn(|| post_at_once(clients));
        eventually(secs(60), "all are taken", || served.metric("pipeline_queue_events") == 20.0);
        served.program.signal(libc::SIGTERM);
        let answers = clients.join().expect("no panic");
        assert!(answers.iter().all(|answer| answer.as_ref().is_some_and(|answer| answer.status == 503)));
    });
    assert_eq!(served.program.wait(secs(60)).code(), Some(1));
    let stderr = served.program.stderr();
    assert!(stderr.contains("20 events were not acknowledged"), "{stderr}");
    cluster.resume(1);
}

#[test]
fn a_second_signal_ends_it_at_once_and_says_how_many_are_unsent() {
    let cluster = Cluster::start(1);
    let topic = cluster.topic();
    let mut served = serve_via(&cluster.brokers(), &topic, &[]);
    let clients = twenty_clients(&served);
    cluster.pause(1);
    thread::scope(|scope| {
        let clients = scope.spawn(|| post_at_once(clients));
        eventually(secs(60), "all are taken", || served.metric("pipeline_queue_events") == 20.0);
        served.program.signal(libc::SIGTERM);
        eventually(secs(60), "the drain begins", || served.program.stderr().contains("draining"));
        let watch = Watch::start();
        served.program.signal(libc::SIGINT);
        assert!(clients.join().expect("no panic").iter().all(Option::is_none));
        watch.assert_within(secs(1), "the second signal ends it");
    });
    assert_eq!(served.program.wait(secs(60)).code(), Some(1));
    let stderr = served.program.stderr();
    assert!(stderr.contains("second signal: 20 events unsent"), "{stderr}");
    cluster.resume(1);
}
