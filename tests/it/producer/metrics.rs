//! `/metrics`: legal, complete, and the sums come out.

use std::io::Write;
use std::process::{Command, Stdio};

use crate::producer::{Served, serve};
use crate::support::http;
use crate::support::kafka::shared;

fn sum(served: &Served, family: &str) -> f64 {
    let text = http::get(served.address, "/metrics").expect("metrics").text();
    let samples = text.lines().filter(|line| line.starts_with(family) && !line.starts_with('#'));
    samples
        .map(|line| line.rsplit(' ').next().and_then(|value| value.parse::<f64>().ok()).expect("a value"))
        .sum()
}

#[test]
fn promtool_finds_nothing_to_mend() {
    let topic = shared().topic();
    let served = serve(&topic, &[]);
    served.assert_serves();
    let text = http::get(served.address, "/metrics").expect("metrics").text();
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| {
            panic!("promtool does not start: {error}; install it (Debian: apt-get install prometheus)")
        });
    promtool.stdin.take().expect("piped").write_all(text.as_bytes()).expect("written");
    let output = promtool.wait_with_output().expect("it ends");
    let said =
        String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.is_empty(), "{said}");
}

#[test]
fn what_is_received_is_accepted_or_rejected_and_what_is_accepted_is_settled() {
    let topic = shared().topic_with(1, &[("max.message.bytes", "3000")]);
    let served = serve(&topic, &[("MAX_EVENT_BYTES", "8000")]);
    let big = format!("{{\"big\": \"{}\"}}", "x".repeat(5000));
    for body in ["{}", "nonsense", "[{}, 7, {}]", "", &big, "[1,2]", "{\"a\":1}"] {
        served.post(body);
    }
    let [received, accepted, rejected, acknowledged, failed] =
        ["received", "accepted", "rejected", "acknowledged", "failed"]
            .map(|word| sum(&served, &format!("pipeline_events_{word}_total")));
    assert_eq!((received, accepted, rejected), (10.0, 5.0, 5.0));
    assert_eq!((acknowledged, failed), (4.0, 1.0));
    assert_eq!(received, accepted + rejected);
    assert_eq!(accepted, acknowledged + failed + served.metric("pipeline_queue_events"));
    assert_eq!(topic.count(), 4);
    assert_eq!(served.metric("pipeline_events_failed_total{cause=\"too_large\"}"), 1.0);
    assert_eq!(served.metric("pipeline_http_requests_total{code=\"200\",route=\"/register_event\"}"), 2.0);
    assert!(served.metric("pipeline_kafka_batch_events_count") >= 3.0);
    assert_eq!(served.metric("pipeline_kafka_connected"), 1.0);
    assert!(served.metric("pipeline_kafka_last_success_timestamp_seconds") > 1.6e9);
}
