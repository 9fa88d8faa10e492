//! Events that Kafka itself rejects: a verdict on one record is never taken for the state of Kafka.

use std::time::Duration;

use serde_json::{Value, json};

use crate::producer::{Served, serve, serve_via};
use crate::support::kafka::{clients, shared};
use crate::support::proxy::{Mode, Proxy};
use crate::support::topic::Topic;
use crate::support::wait::{eventually, secs};

/// A compacted topic rejects a record without a key.
fn compacted(client: &str) -> (Topic, Served) {
    let topic = shared().topic_with(3, &[("cleanup.policy", "compact")]);
    let served = serve(&topic, &[("KAFKA_CLIENT", client), ("KAFKA_KEY_FIELD", "user")]);
    (topic, served)
}

#[test]
fn an_event_that_kafka_rejects_is_answered_alone_and_the_producer_stays_ready() {
    for client in clients() {
        let (topic, served) = compacted(client);
        for round in 0..5 {
            assert_eq!(served.post(&format!("{{\"user\": {round}}}")).status, 200, "{client}");
            let rejected = served.post("{\"user\": null}");
            let body = rejected.json();
            assert_eq!(rejected.status, 400, "{client}: {body}");
            assert_eq!((&body["error"], &body["retryable"]), (&json!("rejected_by_kafka"), &json!(false)));
            let message = body["message"].as_str().expect("a message").to_lowercase();
            assert!(message.contains("key"), "{client}: the broker's reason is missing: {message}");
            assert_eq!(served.readyz(), 200, "{client}");
        }
        assert_eq!(topic.count(), 5, "{client}");
        assert_eq!(served.metric("pipeline_events_failed_total{cause=\"rejected\"}"), 5.0);
    }
}

#[test]
fn rejected_events_of_a_batch_are_named_and_their_neighbours_taken() {
    for client in clients() {
        let (topic, served) = compacted(client);
        let lines = |rejected: &[usize]| -> String {
            let line = |n| {
                if rejected.contains(&n) {
                    format!("{{\"n\": {n}}}\n")
                } else {
                    format!("{{\"user\": \"u\", \"n\": {n}}}\n")
                }
            };
            (0..1000).map(line).collect()
        };
        let post = |body: &str| {
            let headers = [("Content-Type", "application/x-ndjson")];
            served.client().request("POST", "/register_event", &headers, body.as_bytes()).expect("an answer")
        };
        for rejected in [&[500][..], &[0, 1, 999]] {
            let answer = post(&lines(rejected));
            let body = answer.json();
            assert_eq!((answer.status, &body["status"]), (207, &json!("partial")), "{client}: {body}");
            assert_eq!(body["accepted"], json!(1000 - rejected.len()), "{client}");
            assert_eq!(
                (&body["unacknowledged"], &body["retryable"]),
                (&Value::Null, &json!(false)),
                "{client}"
            );
            let named: Vec<_> =
                body["errors"].as_array().expect("errors").iter().map(|e| &e["index"]).collect();
            assert_eq!(json!(named), json!(rejected), "{client}");
        }
        let all = post("{\"n\": 1}\n{\"n\": 2}\n");
        assert_eq!(
            (all.status, &all.json()["status"]),
            (400, &json!("rejected")),
            "{client}: {}",
            all.text()
        );
        assert_eq!(served.readyz(), 200, "{client}");
        assert_eq!(topic.count(), 1996, "{client}");
    }
}

#[test]
fn an_event_that_is_too_old_for_its_topic_is_answered_alone_and_the_producer_stays_ready() {
    let settings = [("message.timestamp.type", "CreateTime"), ("message.timestamp.before.max.ms", "1")];
    for client in clients() {
        let topic = shared().topic_with(1, &settings);
        // Every request arrives later than the topic allows.
        let proxies = Proxy::kafka(&topic.brokers());
        proxies.iter().for_each(|proxy| proxy.set(Mode::Delay(Duration::from_millis(50))));
        let served = serve_via(&proxies[0].address().to_string(), &topic, &[("KAFKA_CLIENT", client)]);
        let answer = served.post("{\"n\": 1}");
        if *client == "crate" {
            // Its records have no time, so the broker has none to judge.
            assert_eq!((answer.status, topic.count()), (200, 1));
            continue;
        }
        let body = answer.json();
        assert_eq!(answer.status, 400, "{body}");
        assert_eq!((&body["error"], &body["retryable"]), (&json!("rejected_by_kafka"), &json!(false)));
        let message = body["message"].as_str().expect("a message").to_lowercase();
        assert!(message.contains("timestamp"), "the broker's reason is missing: {message}");
        assert_eq!((served.readyz(), topic.count()), (200, 0));
        topic.alter("message.timestamp.before.max.ms", "60000");
        eventually(secs(60), "the topic accepts events", || served.post("{\"n\": 2}").status == 200);
        assert_eq!(served.readyz(), 200);
    }
}
