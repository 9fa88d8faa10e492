//! Requests sent ahead of their answers: all answered, in order, never a deadlock.

use std::net::Shutdown;
use std::thread;
use std::time::Duration;

use crate::producer::{at_once, serve, serve_via};
use crate::support::http::{Client, is_on_edge, request_bytes};
use crate::support::kafka::{Cluster, shared};
use crate::support::wait::secs;

/// What request `n` of a connection is, and which answer it must get while Kafka is well.
fn request(n: usize) -> (Vec<u8>, u16) {
    match n % 5 {
        0 => (request_bytes("POST", "/register_event", &[], b"nonsense"), 400),
        1 => (request_bytes("GET", "/livez", &[], b""), 200),
        2 => (request_bytes("GET", "/nothing", &[], b""), 404),
        _ => (request_bytes("POST", "/register_event", &[], format!("{{\"n\":{n}}}").as_bytes()), 200),
    }
}

/// Sends 100 requests in one go, then reads 100 answers; returns the statuses.
fn pipeline(client: &mut Client) -> Vec<u16> {
    let all: Vec<u8> = (0..100).flat_map(|n| request(n).0).collect();
    client.send_raw(&all).expect("sent");
    (0..100)
        .map(|n| client.read_response().unwrap_or_else(|error| panic!("answer {n}: {error}")).status)
        .collect()
}

#[test]
fn fifty_connections_with_a_hundred_requests_each() {
    let topic = shared().topic();
    let served = serve(&topic, &[]);
    let expected: Vec<u16> = (0..100).map(|n| request(n).1).collect();
    for statuses in at_once(50, |_| pipeline(&mut served.client())) {
        assert_eq!(statuses, expected);
    }
    assert_eq!(topic.count(), 50 * 40);
    served.assert_serves();
}

#[test]
fn the_same_while_the_broker_stops_and_goes_on() {
    let cluster = Cluster::start(1);
    let topic = cluster.topic();
    let settings = [("KAFKA_REQUEST_TIMEOUT_MS", "1000"), ("DELIVERY_TIMEOUT_MS", "3000")];
    let served = serve_via(&cluster.brokers(), &topic, &settings);
    let all = thread::scope(|scope| {
        let clients = scope.spawn(|| at_once(50, |_| pipeline(&mut served.client())));
        thread::sleep(Duration::from_millis(20));
        cluster.pause(1);
        thread::sleep(secs(4));
        cluster.resume(1);
        clients.join().expect("all answered")
    });
    let mut acknowledged = 0;
    for statuses in all {
        for (n, status) in statuses.into_iter().enumerate() {
            let expected = request(n).1;
            // An event may get 503 instead, and a bad one too: it is refused before it is read.
            assert!(status == expected || status == 503 && n % 5 != 1 && n % 5 != 2, "request {n}: {status}");
            acknowledged += usize::from(status == 200 && n % 5 > 2);
        }
    }
    served.wait_ready();
    assert!(topic.count() >= acknowledged, "{} in the topic, {acknowledged} acknowledged", topic.count());
    served.assert_serves();
}

#[test]
fn a_flood_on_one_connection_is_cut_and_memory_stays() {
    let topic = shared().topic();
    let served = serve(&topic, &[]);
    let flood: Vec<u8> = request_bytes("POST", "/register_event", &[], b"{}").repeat(20_000);
    at_once(20, |_| {
        let mut client = served.client();
        // The connection is cut while it sends; which call notices is a matter of timing.
        let _ = client.send_raw(&flood);
        // `edge` would wait for more.
        let _ = client.stream().shutdown(Shutdown::Write);
        let _ = client.read_to_end();
    });
    // `edge` lets such a client wait, and cuts it off only if it does not read its answers.
    assert!(is_on_edge() || served.metric("pipeline_http_refused_total{limit=\"max_pipelined\"}") >= 1.0);
    let size = served.program.size();
    assert!(size.resident_bytes < 128 << 20, "{size:?}");
    served.assert_serves();
}
