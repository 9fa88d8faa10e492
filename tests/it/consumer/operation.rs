//! A normal day: the exact line, the group's offsets, the stop in order, the figures.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use event_pipeline::broker::Source;

use crate::consumer::load::{Load, event_lines};
use crate::consumer::{Site, metric, payload, source_of, wait_metric, wait_ready};
use crate::support::http;
use crate::support::kafka::{is_kafka_4, shared};
use crate::support::process::Program;
use crate::support::wait::{eventually, secs};

#[test]
fn an_event_becomes_the_line_of_the_original() {
    let topic = shared().topic();
    let site = Site::new(&topic);
    let event = r#"{"event": "purchase", "user_id": 203, "timestamp": "2025-07-08T00:12:01.781Z"}"#;
    let mut consumer = site.start_ready(&[]);
    topic.kcat(&["-P"], format!("{event}\n").as_bytes());
    site.wait_caught_up();
    let lines = site.lines();
    assert_eq!((lines.len(), payload(&lines[0])), (1, event));
    eventually(secs(60), "the original's line on stdout", || {
        consumer.stdout() == format!("📥 Received event: {event}\n")
    });
    assert!(consumer.terminate(secs(60)).success());
}

#[test]
fn sigterm_under_load_finishes_the_batch_and_the_group_knows_it() {
    let topic = shared().topic();
    let site = Site::new(&topic);
    let load = Load::start(&topic);
    for round in 1..=3 {
        let mut consumer = site.start_ready(&[]);
        eventually(secs(60), "something is logged", || site.covered() > round * 1000);
        assert!(consumer.terminate(secs(60)).success());
        let checkpoint = site.checkpoint("events.log.checkpoint").expect("checkpoint");
        assert_eq!(checkpoint["stopped"], true);
        let bytes = std::fs::metadata(site.path("logs/events.log")).expect("log").len();
        assert_eq!(checkpoint["log"]["bytes"], bytes, "nothing uncovered is left");
    }
    load.finish();
    let mut consumer = site.start_ready(&[]);
    site.wait_caught_up();
    assert!(consumer.terminate(secs(60)).success());
    site.audit();
    let mut source = source_of(&topic);
    let group = format!("group-of-{}", topic.name);
    let committed = source.committed(&group, &[0, 1, 2]).expect("committed");
    let ends: Vec<Option<i64>> = (0..3).map(|partition| Some(topic.end_offset(partition))).collect();
    let offsets: Vec<Option<i64>> =
        committed.into_iter().map(|committed| committed.map(|committed| committed.offset)).collect();
    assert_eq!(offsets, ends);
}

#[test]
fn without_a_checkpoint_reading_goes_on_from_the_groups_offsets() {
    let topic = shared().topic();
    let site = Site::new(&topic);
    let mut consumer = site.start_ready(&[]);
    topic.kcat(&["-P"], event_lines(100, 100).as_bytes());
    site.wait_caught_up();
    assert!(consumer.terminate(secs(60)).success());
    std::fs::remove_file(site.path("logs/events.log.checkpoint")).expect("remove");
    let _consumer = site.start_ready(&[]);
    topic.kcat(&["-P"], b"{\"n\": \"after\"}\n");
    site.wait_caught_up();
    site.audit();
}

#[test]
fn the_figures_add_up_and_the_page_answers() {
    let topic = shared().topic();
    let site = Site::new(&topic);
    topic.kcat(&["-P"], event_lines(500, 100).as_bytes());
    topic.kcat(&["-P", "-p", "0"], b"not JSON\n");
    let mut consumer = site.start(&[]);
    wait_ready(&mut consumer);
    site.wait_caught_up();
    eventually(secs(60), "the figures follow", || {
        metric(&mut consumer, "pipeline_consumer_records_total") == 501.0
    });
    wait_metric(&mut consumer, "pipeline_log_events_total", 500.0);
    wait_metric(&mut consumer, "pipeline_consumer_rejected_total{reason=\"not_json\"}", 1.0);
    let bytes = std::fs::metadata(site.path("logs/events.log")).expect("log").len();
    wait_metric(&mut consumer, "pipeline_log_bytes_total", bytes as f64);
    for partition in 0..3 {
        let sample = |name: &str| format!("pipeline_consumer_{name}{{partition=\"{partition}\"}}");
        assert_eq!(metric(&mut consumer, &sample("lag_records")), 0.0);
        wait_metric(&mut consumer, &sample("offset"), topic.end_offset(partition) as f64);
    }
    eventually(secs(60), "the checkpoint is young", || {
        now() - metric(&mut consumer, "pipeline_checkpoint_timestamp_seconds") < 5.0
    });
    assert!(metric(&mut consumer, "pipeline_log_fsync_duration_seconds_count") >= 1.0);
    for (path, status) in [("/livez", 200), ("/version", 200), ("/healthz", 200), ("/nothing", 404)] {
        assert_eq!(http::get(consumer.address(), path).expect("answer").status, status, "{path}");
    }
}

#[test]
fn memory_that_a_backlog_needed_is_given_back() {
    let topic = shared().topic();
    let site = Site::new(&topic);
    topic.kcat(&["-P"], event_lines(40_000, 600).as_bytes());
    let consumer = site.start_ready(&[]);
    site.wait_caught_up();
    let at_most = 4 << 20;
    let backlog = consumer.anonymous_bytes();
    assert!(backlog > 2 * at_most, "{backlog} bytes show nothing");
    let mut number = 0;
    eventually(secs(60), "memory is given back", || {
        number += 1;
        topic.kcat(&["-P"], format!("{{\"later\": {number}}}\n").as_bytes());
        consumer.anonymous_bytes() < at_most
    });
    site.wait_caught_up();
    site.audit();
}

/// Seconds since 1970.
fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs_f64()
}

#[test]
fn how_old_records_are_once_they_are_covered_is_counted_where_their_time_is_known() {
    let topic = shared().topic();
    topic.kcat(&["-P"], (event_lines(500, 100) + "not JSON\n").as_bytes());
    let times: Vec<f64> = topic.records().iter().map(|record| record.timestamp_ms as f64 / 1000.0).collect();
    for (client, counted) in [("wire", times.len()), ("crate", 0)] {
        if client == "crate" && is_kafka_4() {
            continue;
        }
        let site = Site::new(&topic);
        let began = now();
        let group = format!("{client}-of-{}", topic.name);
        let mut consumer = site.start_ready(&[("KAFKA_CLIENT", client), ("KAFKA_GROUP", &group)]);
        site.wait_caught_up();
        eventually(secs(60), "the figures follow", || {
            metric(&mut consumer, "pipeline_consumer_records_total") == times.len() as f64
        });
        let sample =
            |consumer: &mut _, name: &str| metric(consumer, &format!("pipeline_end_to_end_seconds_{name}"));
        assert_eq!(sample(&mut consumer, "count"), counted as f64, "{client}");
        let sum_at = |moment: f64| times.iter().take(counted).map(|time| moment - time).sum::<f64>();
        let sum = sample(&mut consumer, "sum");
        // The time is told in whole milliseconds.
        let slack = 0.001 * counted as f64;
        assert!((sum_at(began) - slack..=sum_at(now()) + slack).contains(&sum), "{client}: {sum}");
    }
}

#[test]
fn the_figures_are_what_prometheus_expects() {
    let topic = shared().topic();
    let site = Site::new(&topic);
    topic.kcat(&["-P"], b"{\"n\": 1}\nnot JSON\n");
    let mut consumer = site.start_ready(&[]);
    site.wait_caught_up();
    let text = http::get(consumer.address(), "/metrics").expect("metrics").text();
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool starts (Debian: apt-get install prometheus)");
    promtool.stdin.take().expect("piped").write_all(text.as_bytes()).expect("written");
    let output = promtool.wait_with_output().expect("promtool ends");
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && said.trim().is_empty(), "{said}");
}

#[test]
fn both_programs_list_what_is_wrong_in_one_shape() {
    for program in [Program::consumer(), Program::producer()] {
        let mut program = program.env("KAFKA_BROKERS", "127.0.0.1:1").start();
        let address = program.address();
        let mut answer = None;
        eventually(secs(30), "not ready because of Kafka", || {
            answer = http::get(address, "/readyz").ok().filter(|answer| answer.status == 503);
            answer.as_ref().is_some_and(|answer| answer.text().contains("127.0.0.1:1"))
        });
        let answer = answer.expect("just found");
        assert!(answer.header("retry-after").is_some());
        let body = answer.json();
        assert_eq!((&body["error"], &body["retryable"]), (&"not_ready".into(), &true.into()), "{body}");
        let problems = body["problems"].as_array().unwrap_or_else(|| panic!("not a list: {body}"));
        let message = |problem: &serde_json::Value| problem["message"].as_str().expect("a text").to_owned();
        let kafka = problems.iter().find(|problem| message(problem).contains("127.0.0.1:1"));
        let kafka = kafka.unwrap_or_else(|| panic!("no such problem: {body}"));
        assert!(
            kafka["what"].is_string() && body["message"].as_str().expect("a text").contains(&message(kafka))
        );
        assert_eq!(kafka.as_object().expect("an object").len(), 2, "{body}");
    }
}
