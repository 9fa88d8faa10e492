//! The last events of the topic on the page.

use serde_json::Value;

use crate::live::{Live, serve, wait_for};
use crate::support::kafka::{clients, shared};
use crate::support::topic::Topic;

fn serve_topic(topic: &Topic, client: &str) -> Live {
    let brokers = topic.brokers();
    serve(&[
        ("LIVE_EVENTS", "on"),
        ("KAFKA_BROKERS", &*brokers),
        ("KAFKA_TOPIC", &*topic.name),
        ("KAFKA_CLIENT", client),
    ])
}

fn texts(snapshot: &Value) -> Vec<String> {
    let list = snapshot["events"]["list"].as_array().expect("events").iter();
    list.map(|event| event["text"].as_str().expect("text").to_owned()).collect()
}

/// A probe per second until the tail reads, which begins at the end.
fn wait_tailing(live: &Live, topic: &Topic) {
    wait_for(live, "the tail reads", |snapshot| {
        topic.kcat(&["-P"], b"{\"probe\": 1}\n");
        texts(snapshot).iter().any(|text| text.contains("probe"))
    });
}

#[test]
fn events_are_shown_from_the_end_and_only_a_few_of_many() {
    for client in clients() {
        let topic = shared().topic();
        topic.kcat(&["-P"], b"{\"event\": \"before\"}\n");
        let live = serve_topic(&topic, client);
        wait_tailing(&live, &topic);
        let foreign = "{\"event\": \"<script>alert(1)</script>\"}";
        topic.kcat(&["-P"], format!("{foreign}\n").as_bytes());
        wait_for(&live, "the event is shown as it is", |snapshot| {
            texts(snapshot).iter().any(|text| text == foreign)
        });
        assert!(
            !texts(&live.snapshot()).iter().any(|text| text.contains("before")),
            "what came before is not read"
        );
        let mut viewer = live.viewer();
        viewer.next();
        let many: String = (0..3000)
            .map(|index| format!("{{\"many\": {index}, \"x\": \"{}\"}}\n", "y".repeat(1000)))
            .collect();
        topic.kcat(&["-P"], many.as_bytes());
        let (mut seen, mut shown) = (0, 0);
        while seen < 3000 {
            let snapshot = viewer.next();
            let list = texts(&snapshot);
            assert!(list.len() <= 20, "{client}: {}", list.len());
            assert!(list.iter().all(|text| text.len() <= 512), "{client}");
            seen += snapshot["events"]["seen"].as_u64().expect("a count");
            shown += list.iter().filter(|text| text.contains("many")).count();
        }
        assert!(shown > 0 && shown < 300, "{client}: {shown} of {seen}");
        let whole = live.snapshot();
        assert!(whole["events"]["list"].as_array().is_some_and(|list| list.len() <= 50));
    }
}

#[test]
fn without_events_kafka_is_not_asked_and_without_kafka_the_page_goes_on() {
    let off = serve(&[("KAFKA_BROKERS", "127.0.0.1:1")]);
    let snapshot = off.snapshot();
    assert_eq!((&snapshot["events"]["is_on"], &snapshot["events"]["problem"]), (&false.into(), &Value::Null));
    let away = serve(&[("LIVE_EVENTS", "on"), ("KAFKA_BROKERS", "127.0.0.1:1")]);
    let shown = wait_for(&away, "the problem is shown", |snapshot| snapshot["events"]["problem"].is_string());
    assert!(shown["events"]["problem"].as_str().is_some_and(|why| why.contains("127.0.0.1:1")), "{shown}");
}
