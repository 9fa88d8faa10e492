//! A producer whose quota in Kafka is exceeded waits: nothing twice, ready all the time, and an honest answer.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::json;

use crate::producer::{Served, serve};
use crate::support::admin::alter_quota;
use crate::support::http::Response;
use crate::support::kafka::{Cluster, clients};
use crate::support::topic::Topic;
use crate::support::wait::{eventually, secs};

const QUOTA: &str = "producer_byte_rate";

/// Posts the events `first` and following, of about 150 bytes each in Kafka, in one request.
fn post(served: &Served, first: usize, count: usize) -> Response {
    let padding = "x".repeat(60);
    let body: String =
        (first..first + count).map(|n| format!("{{\"n\":{n},\"p\":\"{padding}\"}}\n")).collect();
    let headers = [("Content-Type", "application/x-ndjson")];
    served.client().request("POST", "/register_event", &headers, body.as_bytes()).expect("an answer")
}

/// Posts each of `requests`, first event and number of events, and asserts that all are accepted.
fn post_all(served: &Served, requests: &[(usize, usize)], client: &str) {
    for &(first, count) in requests {
        let answer = post(served, first, count);
        assert_eq!((answer.status, &answer.json()["accepted"]), (200, &json!(count)), "{client}");
    }
}

/// Runs `work` and asserts that the producer says all the while that it is ready.
fn staying_ready<T>(served: &Served, work: impl FnOnce() -> T) -> T {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let mut unready = Vec::new();
            while !done.load(Ordering::Relaxed) {
                let status = served.readyz();
                if status != 200 {
                    unready.push(status);
                }
                thread::sleep(Duration::from_millis(50));
            }
            unready
        });
        let outcome = work();
        done.store(true, Ordering::Relaxed);
        let unready = watch.join().expect("no panic");
        assert!(unready.is_empty(), "not ready while a quota is exceeded: {unready:?}");
        outcome
    })
}

fn values_once(topic: &Topic) -> usize {
    let records = topic.records();
    let distinct: HashSet<&str> = records.iter().map(|record| record.text()).collect();
    assert_eq!(distinct.len(), records.len(), "events that are twice in the topic");
    distinct.len()
}

#[test]
fn a_quota_that_is_exceeded_is_waited_for_and_nothing_is_written_twice() {
    // Of its own: a quota outlives the test.
    let cluster = Cluster::start_on(1, |_| Vec::new());
    for client in clients() {
        let topic = cluster.topic();
        let settings = [("KAFKA_CLIENT", *client), ("DELIVERY_TIMEOUT_MS", "90000")];
        let served = serve(&topic, &settings);
        // Set under a running producer. 1,000 events are as much as a minute and a half of it may hold.
        alter_quota(cluster.address(1), QUOTA, Some(10_000.0));
        staying_ready(&served, || {
            post_all(&served, &[(0, 1000), (1000, 600), (1600, 1)], client);
        });
        assert_eq!(values_once(&topic), 1601, "{client}");
        assert!(served.metric("pipeline_kafka_errors_total{kind=\"throttled\"}") >= 1.0, "{client}");
        alter_quota(cluster.address(1), QUOTA, None);
    }
}

#[test]
fn what_a_quota_cannot_take_in_time_is_refused_with_the_real_wait() {
    // Of its own: a quota outlives the test.
    let cluster = Cluster::start_on(1, |_| Vec::new());
    for client in clients() {
        let topic = cluster.topic();
        let settings = [
            ("KAFKA_CLIENT", *client),
            ("DELIVERY_TIMEOUT_MS", "3000"),
            ("KAFKA_CONNECT_TIMEOUT_MS", "1000"),
        ];
        let served = serve(&topic, &settings);
        alter_quota(cluster.address(1), QUOTA, Some(10_000.0));
        // As long as the broker has not seen the quota yet, more of it is taken.
        let mut taken = 0;
        eventually(secs(30), "the quota is exceeded for long", || {
            taken += post(&served, taken, 3000).json()["accepted"].as_u64().unwrap_or(0) as usize;
            let answer = served.post("{\"n\": -1}");
            answer.status == 503 && answer.json()["error"] == "overloaded"
        });
        staying_ready(&served, || {
            let answer = served.post("{\"n\": -1}");
            let body = answer.json();
            assert_eq!(
                (answer.status, &body["error"], &body["retryable"]),
                (503, &json!("overloaded"), &json!(true))
            );
            let wait: u64 = answer.header("retry-after").expect("Retry-After").parse().expect("seconds");
            assert!(wait > 3 && body["message"].as_str().expect("text").contains("quota"), "{wait}: {body}");
        });
        assert!(values_once(&topic) >= taken, "{client}");
        alter_quota(cluster.address(1), QUOTA, None);
    }
}

#[test]
fn a_quota_on_requests_is_waited_for_and_nothing_is_written_twice() {
    const REQUEST_TIME: &str = "request_percentage";
    // Of its own: a quota outlives the test.
    let cluster = Cluster::start_on(1, |_| Vec::new());
    for client in clients() {
        let topic = cluster.topic();
        let settings = [("KAFKA_CLIENT", *client), ("DELIVERY_TIMEOUT_MS", "90000")];
        let served = serve(&topic, &settings);
        // Every request exceeds it, and each time a broker mutes the connection for at most a second.
        alter_quota(cluster.address(1), REQUEST_TIME, Some(0.0001));
        staying_ready(&served, || {
            let requests: Vec<(usize, usize)> = (0..8).map(|n| (n * 100, 100)).collect();
            post_all(&served, &requests, client);
        });
        assert_eq!(values_once(&topic), 800, "{client}");
        assert!(served.metric("pipeline_kafka_errors_total{kind=\"throttled\"}") >= 1.0, "{client}");
        alter_quota(cluster.address(1), REQUEST_TIME, None);
    }
}

#[test]
fn each_broker_of_a_cluster_keeps_its_own_quota() {
    // Of its own: a quota outlives the test.
    let cluster = Cluster::start_on(2, |_| Vec::new());
    for client in clients() {
        let topic = cluster.topic_on(&[&[1], &[2]]);
        let settings = [("KAFKA_CLIENT", *client), ("DELIVERY_TIMEOUT_MS", "90000")];
        let served = serve(&topic, &settings);
        alter_quota(cluster.address(1), QUOTA, Some(10_000.0));
        staying_ready(&served, || {
            let requests: Vec<(usize, usize)> = (0..6).map(|n| (n * 700, 700)).collect();
            post_all(&served, &requests, client);
        });
        assert_eq!(values_once(&topic), 4200, "{client}");
        for partition in 0..2 {
            assert!(topic.end_offset(partition) >= 700, "{client}: partition {partition} was left out");
        }
        assert!(served.metric("pipeline_kafka_errors_total{kind=\"throttled\"}") >= 1.0, "{client}");
        alter_quota(cluster.address(1), QUOTA, None);
    }
}
