//! The live page and the programs that it shows do not hurt each other.

use std::thread;

use crate::consumer;
use crate::live::{serve, wait_for};
use crate::producer;
use crate::support::kafka::shared;
use crate::support::wait::{eventually, secs};

/// Metrics of the producer that must not move while something happens to the live page.
const TROUBLES: [&str; 3] = [
    "pipeline_events_failed_total{cause=\"timeout\"}",
    "pipeline_http_refused_total{limit=\"max_connections\"}",
    "pipeline_thread_panics_total",
];

#[test]
fn what_happens_to_the_live_page_changes_no_metric_of_the_pipeline() {
    let topic = shared().topic();
    // A Kafka that is slow because the machine is busy is not what this is about.
    let served = producer::serve(&topic, &[("DELIVERY_TIMEOUT_MS", "60000")]);
    let dir = tempfile::tempdir().expect("a directory");
    let mut logging = consumer::program(&topic, dir.path(), &[]).start();
    consumer::wait_ready(&mut logging);
    let (producers, consumers) = (served.address.to_string(), logging.address().to_string());
    let settings = [("LIVE_PRODUCERS", &*producers), ("LIVE_CONSUMERS", &*consumers), ("LIVE_EVENTS", "on")];
    let brokers = topic.brokers();
    let kafka = [("KAFKA_BROKERS", &*brokers), ("KAFKA_TOPIC", &*topic.name)];
    let mut live = serve(&[&settings[..], &kafka].concat());
    wait_for(&live, "both programs are ready", |snapshot| {
        let programs = snapshot["programs"].as_array().expect("programs");
        programs.len() == 2 && programs.iter().all(|program| program["state"] == "ready")
    });
    let before = TROUBLES.map(|name| served.metric(name));
    let mut client = served.client();
    let mut post = |count: usize| {
        for _ in 0..count {
            let answer = client.post_event(br#"{"event": "x"}"#).expect("an answer");
            assert_eq!(answer.status, 200, "{}", answer.text());
        }
    };
    post(50);
    live.program.signal(libc::SIGSTOP);
    post(50);
    thread::sleep(secs(3));
    post(50);
    live.program.signal(libc::SIGCONT);
    post(50);
    live.program.kill();
    post(50);
    assert_eq!(TROUBLES.map(|name| served.metric(name)), before);
    assert_eq!(served.metric("pipeline_events_acknowledged_total"), 250.0);
    assert_eq!(served.readyz(), 200);
    eventually(secs(60), "all is logged", || {
        consumer::metric(&mut logging, "pipeline_log_events_total") == 250.0
    });
    assert_eq!(consumer::metric(&mut logging, "pipeline_log_write_errors_total"), 0.0);
}

#[test]
fn a_program_that_is_stopped_or_dead_is_shown_and_the_others_go_on() {
    let topic = shared().topic();
    let served = producer::serve(&topic, &[]);
    let other = producer::serve(&topic, &[]);
    let producers = format!("{},{},127.0.0.1:1", served.address, other.address);
    let live = serve(&[("LIVE_PRODUCERS", &*producers)]);
    let states = |snapshot: &serde_json::Value| -> Vec<String> {
        let programs = snapshot["programs"].as_array().expect("programs").iter();
        programs.map(|program| program["state"].as_str().expect("a state").to_owned()).collect()
    };
    let first = wait_for(&live, "the dead one is silent", |snapshot| {
        states(snapshot) == ["ready", "ready", "silent"]
    });
    let failure = first["programs"][2]["failure"].as_str().expect("why");
    assert!(failure.contains("refused"), "{failure}");
    assert_eq!(first["programs"][0]["http_server"], first["programs"][1]["http_server"]);
    assert_ne!(first["programs"][0]["kafka_client"], "", "{first}");
    other.program.signal(libc::SIGSTOP);
    served.post(r#"{"event": "x"}"#);
    served.post("not JSON");
    let stopped = wait_for(&live, "the stopped one is silent", |snapshot| {
        states(snapshot) == ["ready", "silent", "silent"] && snapshot["totals"]["received"] == 2.0
    });
    assert_eq!(stopped["totals"]["acknowledged"], 1.0);
    assert_eq!(
        (&stopped["refused"][0]["what"], &stopped["refused"][0]["reason"]),
        (&"event".into(), &"not_json".into())
    );
    other.program.signal(libc::SIGCONT);
    wait_for(&live, "it is back", |snapshot| states(snapshot) == ["ready", "ready", "silent"]);
}

#[test]
fn problems_of_a_program_are_shown_as_readyz_says_them() {
    // No Kafka is there.
    let settings = [("KAFKA_BROKERS", "127.0.0.1:1")];
    let dir = tempfile::tempdir().expect("a directory");
    let topic = shared().topic();
    let mut logging = consumer::program(&topic, dir.path(), &settings).start();
    let consumers = logging.address().to_string();
    let live = serve(&[("LIVE_CONSUMERS", &*consumers), ("LIVE_PRODUCERS", "")]);
    let shown = wait_for(&live, "it is not ready", |snapshot| snapshot["programs"][0]["state"] == "unready");
    assert!(shown["programs"][0]["problems"].to_string().contains("127.0.0.1:1"), "{shown}");
    eventually(secs(60), "the page has the words of /readyz", || {
        let (_, body) = consumer::ready_status(&mut logging);
        let said: serde_json::Value = serde_json::from_str(&body).expect("JSON");
        live.snapshot()["programs"][0]["problems"] == said["problems"]
    });
}
