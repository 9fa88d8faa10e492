//! Ids of events: those that clients put into their events, and those that requests give to them. Each is read back
//! from Kafka.

use std::fmt::Write;

use serde_json::Value;

use crate::producer::access::{KeyFile, SERVERS, request};
use crate::producer::{Served, serve};
use crate::support::http::Response;
use crate::support::kafka::{clients, shared};
use crate::support::topic::Topic;

const IDS: (&str, &str) = ("EVENT_ID_FIELD", "event_id");

fn post(served: &Served, headers: &[(&str, &str)], body: &str) -> Response {
    request(served.address, "POST", "/register_event", headers, body.as_bytes())
}

fn value(line: &str) -> Value {
    serde_json::from_str(line).expect("JSON")
}

/// The number `n` of each event in the topic and its id as text, in order; an event without an id has an empty one.
pub fn ids(topic: &Topic) -> Vec<(i64, String)> {
    let records = topic.records();
    let mut ids: Vec<_> = records
        .iter()
        .map(|record| {
            let event = value(record.text());
            let id = match &event["event_id"] {
                Value::Null => String::new(),
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            (event["n"].as_i64().expect("a number"), id)
        })
        .collect();
    ids.sort();
    ids
}

fn expect(topic: &Topic, ids_by_number: &[(i64, &str)], server: &str) {
    let expected: Vec<_> = ids_by_number.iter().map(|(number, id)| (*number, (*id).to_owned())).collect();
    assert_eq!(ids(topic), expected, "{server}");
}

#[test]
fn an_idempotency_key_gives_each_event_of_its_request_an_id() {
    for server in SERVERS {
        let topic = shared().topic();
        let served = serve(&topic, &[("HTTP_SERVER", server), IDS]);
        let keyed = |key: &str, body: &str| post(&served, &[("idempotency-key", key)], body);
        let answers = [keyed("a", r#"{"n": 1}"#), keyed("a", r#"{"n": 1}"#)].map(|answer| {
            assert_eq!(answer.status, 200, "{}", answer.text());
            (answer.json()["partition"].clone(), answer.json()["offset"].clone())
        });
        assert_ne!(answers[0], answers[1], "each has its own receipt");
        let line = topic.records().swap_remove(0).text().to_owned();
        assert!(line.starts_with(r#"{"n": 1, "event_id": "a", "timestamp": ""#), "{line}");
        assert_eq!(keyed(r#""q\"uo\\ted""#, r#"{"n": 2}"#).status, 200);
        let own =
            keyed("b", r#"[{"n": 3}, {"n": 4, "event_id": "own"}, 7, {"n": 5, "event_id": -1.5}, {"n": 6}]"#);
        assert_eq!((own.status, own.json()["accepted"].as_i64()), (207, Some(4)), "{}", own.text());
        assert_eq!(own.json()["errors"][0]["index"], 2);
        assert_eq!(keyed("c", r#"[{"n": 7}]"#).status, 200);
        let ndjson = [("Idempotency-Key", "d"), ("Content-Type", "application/x-ndjson")];
        assert_eq!(post(&served, &ndjson, "{\"n\": 8}\n\n{\"n\": 9}\n").status, 200);
        // A body that another thread reads.
        let mut long = String::from(r#"{"n": 10, "text": ""#);
        (0..1000).for_each(|number| write!(long, "{number} ").expect("memory"));
        assert_eq!(keyed("e", &format!("{long}\"}}")).status, 200);
        assert_eq!(post(&served, &[], r#"{"n": 11}"#).status, 200);
        assert_eq!(keyed("f", r#"{"n": 12, "event_id": null}"#).status, 200);
        let expected = [
            (1, "a"),
            (1, "a"),
            (2, r#"q"uo\ted"#),
            (3, "b/0"),
            (4, "own"),
            (5, "-1.5"),
            (6, "b/4"),
            (7, "c/0"),
            (8, "d/0"),
            (9, "d/1"),
            (10, "e"),
            (11, ""),
            (12, ""),
        ];
        expect(&topic, &expected, server);
        let null = r#"{"n": 12, "event_id": null, "timestamp""#;
        assert!(topic.records().iter().any(|record| record.text().starts_with(null)), "nothing is added");
    }
}

#[test]
fn a_cloud_event_is_known_by_its_source_and_id() {
    for server in SERVERS {
        let topic = shared().topic();
        let served = serve(&topic, &[("HTTP_SERVER", server), IDS]);
        let event = |number: usize| {
            format!(
                r#"{{"specversion": "1.0", "type": "t", "source": "/shop", "id": "id {number}", "n": {number}}}"#
            )
        };
        let typed = |kind| [("Content-Type", kind), ("Idempotency-Key", "k")];
        let [single, batch] =
            ["application/cloudevents+json; charset=utf-8", "application/cloudevents-batch+json"];
        assert_eq!(post(&served, &typed(single), &event(1)).status, 200);
        let two = format!("[{}, {}, {{\"n\": 4, \"source\": \"/shop\"}}]", event(2), event(3));
        assert_eq!(post(&served, &typed(batch), &two).status, 200);
        assert_eq!(post(&served, &typed("application/json"), &event(5)).status, 200);
        assert_eq!(post(&served, &[], r#"{"n": 6, "source": "/shop", "id": "6"}"#).status, 200);
        let expected =
            [(1, "/shop id 1"), (2, "/shop id 2"), (3, "/shop id 3"), (4, "k/2"), (5, "/shop id 5"), (6, "")];
        expect(&topic, &expected, server);
        let long = post(&served, &[], &event(7).replace("id 7", &"x".repeat(250)));
        assert_eq!((long.status, long.json()["error"].as_str()), (400, Some("bad_event_id")));
    }
}

#[test]
fn what_cannot_be_an_id_is_refused() {
    for server in SERVERS {
        let topic = shared().topic();
        let served = serve(&topic, &[("HTTP_SERVER", server), IDS]);
        let mut client = served.client();
        let mut post = |headers: &[(&str, &str)], body: &str| {
            let answer = client.request("POST", "/register_event", headers, body.as_bytes());
            answer.expect("the connection is still good")
        };
        let long = format!("\"{}\"", "x".repeat(256));
        for id in ["true", "[]", "{}", "\"\"", &long, &"1".repeat(256)] {
            let answer = post(&[("Idempotency-Key", "a")], &format!("{{\"event_id\": {id}}}"));
            let said = answer.json();
            assert_eq!((answer.status, said["error"].as_str()), (400, Some("bad_event_id")), "{id}: {said}");
            assert!(said["message"].as_str().is_some_and(|message| message.contains("`event_id`")), "{said}");
        }
        let mixed = post(&[], "[{\"event_id\": 1}, {\"event_id\": []}]");
        let said = mixed.json();
        assert_eq!((mixed.status, &said["errors"][0]["index"]), (207, &1.into()), "{said}");
        assert_eq!(said["errors"][0]["error"], "bad_event_id");
        let rejected = "pipeline_events_rejected_total{reason=\"bad_event_id\"}";
        assert_eq!(served.metric(rejected), 7.0);
        for key in ["", "\"\"", "\"open", "\"a\"b", "\"\\a\"", &"x".repeat(249)] {
            for body in ["{}", "[{}, {\"event_id\": 2}]"] {
                let answer = post(&[("Idempotency-Key", key)], body);
                let said = answer.json();
                assert_eq!(
                    (answer.status, said["error"].as_str()),
                    (400, Some("bad_event_id")),
                    "{key}: {said}"
                );
                let message = said["message"].as_str().expect("a message");
                assert!(message.contains("Idempotency-Key") && !message.contains("open"), "{message}");
            }
        }
        assert_eq!(post(&[("Idempotency-Key", &"x".repeat(248))], "{}").status, 200);
        assert_eq!(topic.count(), 2, "nothing of what was refused is in Kafka");
    }
}

#[test]
fn without_the_setting_keys_and_ids_mean_nothing() {
    for server in SERVERS {
        let topic = shared().topic();
        let served = serve(&topic, &[("HTTP_SERVER", server), ("EVENT_ID_FIELD", "")]);
        for (number, key) in ["a", "\"open"].into_iter().enumerate() {
            let body = format!("{{\"n\": {number}}}");
            assert_eq!(post(&served, &[("Idempotency-Key", key)], &body).status, 200);
        }
        assert_eq!(post(&served, &[], r#"{"n": 2, "event_id": [true]}"#).status, 200);
        expect(&topic, &[(0, ""), (1, ""), (2, "[true]")], server);
    }
}

#[test]
fn an_id_can_be_the_key_so_that_repeated_events_meet_in_one_partition() {
    for client in clients() {
        let topic = shared().topic();
        let served = serve(&topic, &[("KAFKA_CLIENT", client), IDS, ("KAFKA_KEY_FIELD", "event_id")]);
        for number in 0..9 {
            let key = format!("key {number}");
            for _ in 0..2 {
                assert_eq!(post(&served, &[("Idempotency-Key", &key)], "[{}, {}]").status, 200);
            }
        }
        assert_eq!(post(&served, &[], r#"{"event_id": "own"}"#).status, 200);
        let mut places: Vec<_> = topic
            .records()
            .iter()
            .map(|record| {
                let id = value(record.text())["event_id"].as_str().expect("an id").to_owned();
                assert_eq!(record.key.as_deref(), Some(id.as_bytes()), "{client}");
                (id, record.partition)
            })
            .collect();
        assert_eq!(places.len(), 37);
        places.sort();
        places.dedup();
        assert_eq!(places.len(), 19, "{client}: {places:?}");
        assert!((0..3).all(|partition| places.iter().any(|place| place.1 == partition)), "{places:?}");
    }
}

#[test]
fn the_name_of_the_client_is_in_its_events_and_no_other_can_be_claimed() {
    for server in SERVERS {
        let topic = shared().topic();
        let mut file = KeyFile::new();
        let keys = ["shop", "app"].map(|client| file.add(client, "secret", ""));
        let served = file.serve(&topic, server, &[("EVENT_CLIENT_FIELD", "by"), IDS]);
        for (number, key) in keys.iter().enumerate() {
            let headers = [("X-Api-Key", key.as_str()), ("Idempotency-Key", "k")];
            assert_eq!(post(&served, &headers, &format!("{{\"n\": {number}}}")).status, 200);
        }
        let shop = [("X-Api-Key", keys[0].as_str())];
        for claim in [r#"{"by": "app"}"#, r#"{"by": null}"#, r#"{"\u0062y": "shop"}"#] {
            let answer = post(&served, &shop, claim);
            let said = answer.json();
            assert_eq!((answer.status, said["error"].as_str()), (400, Some("reserved_field")), "{said}");
        }
        let batch = post(&served, &shop, r#"[{"by": "app"}, {"n": 2}]"#);
        assert_eq!((batch.status, &batch.json()["errors"][0]["error"]), (207, &"reserved_field".into()));
        let mut lines: Vec<_> = topic.records().iter().map(|record| record.text().to_owned()).collect();
        lines.sort();
        let starts = [
            r#"{"n": 0, "event_id": "k", "by": "shop", "timestamp": "#,
            r#"{"n": 1, "event_id": "k", "by": "app", "timestamp": "#,
            r#"{"n": 2, "by": "shop", "timestamp": "#,
        ];
        assert!(lines.iter().zip(starts).all(|(line, start)| line.starts_with(start)), "{lines:#?}");
        assert_eq!(lines.len(), starts.len());
    }
}
