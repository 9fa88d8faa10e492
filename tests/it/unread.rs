//! A supervisor that stops reading our stderr: everything goes on, and what it missed is counted and said later.

use std::fs;
use std::io::{PipeReader, Read};
use std::net::{SocketAddr, TcpListener};

use crate::support::http;
use crate::support::kafka::shared;
use crate::support::process::{Program, Running};
use crate::support::topic::Topic;
use crate::support::wait::{eventually, secs};

fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port")
}

fn get(address: SocketAddr, path: &str) -> (u16, String) {
    http::get(address, path).map_or((0, String::new()), |answer| (answer.status, answer.text()))
}

fn dropped(address: SocketAddr) -> u64 {
    let (_, text) = get(address, "/metrics");
    let line = text.lines().find_map(|line| line.strip_prefix("pipeline_stderr_lines_dropped_total "));
    line.map_or(0, |value| value.parse().expect("a number"))
}

fn on(topic: &Topic, program: Program) -> Program {
    program.env("KAFKA_BROKERS", topic.brokers()).env("KAFKA_TOPIC", &topic.name).env("LOG_LEVEL", "debug")
}

/// Reads on until a line says how many were dropped.
fn read_notice(mut stderr: PipeReader) -> u64 {
    let mut text = String::new();
    let mut chunk = [0; 4096];
    loop {
        let count = stderr.read(&mut chunk).expect("readable");
        assert!(count > 0, "it ended without a word about what was dropped: {text}");
        text.push_str(&String::from_utf8_lossy(&chunk[..count]));
        let said = text
            .split_inclusive('\n')
            .find(|line| line.ends_with(" log lines were dropped: stderr was not read in time\n"));
        if let Some(line) = said {
            let words = line.split(' ').collect::<Vec<_>>();
            let at = words.iter().position(|word| *word == "log").expect("the words above");
            return words[at - 1].parse().expect("a number");
        }
    }
}

fn assert_ends(mut program: Running) {
    let status = program.terminate(secs(60));
    assert!(status.success(), "{status}");
}

#[test]
fn the_consumer_goes_on_when_nobody_reads_its_stderr() {
    let topic = shared().topic_with(1, &[]);
    let address = free_address();
    let program = on(&topic, Program::consumer()).env("METRICS_ADDR", address.to_string());
    let (consumer, stderr) = program.env("KAFKA_GROUP", &topic.name).start_unread();
    let log = consumer.dir().join("logs/events.log");
    // A warning for each batch.
    eventually(secs(120), "lines were dropped", || {
        topic.kcat(&["-P"], b"not JSON\n");
        dropped(address) > 0
    });
    topic.kcat(&["-P"], b"{\"the\": \"last\"}\n");
    eventually(secs(60), "the event is in the log", || {
        fs::read_to_string(&log).is_ok_and(|text| text.ends_with(" - {\"the\": \"last\"}\n"))
    });
    assert_eq!(get(address, "/readyz").0, 200);
    assert!(read_notice(stderr) > 0);
    assert_ends(consumer);
}

#[test]
fn the_producer_starts_serves_and_ends_when_nobody_reads_its_stderr() {
    let topic = shared().topic();
    let address = free_address();
    let program = on(&topic, Program::producer()).env("HTTP_ADDR", address.to_string());
    let (producer, mut stderr) = program.start_unread_full();
    eventually(secs(60), "it is ready", || get(address, "/readyz").0 == 200);
    assert_eq!(http::post_event(address, b"{}").expect("an answer").status, 200);
    assert_eq!(dropped(address), 0, "a few lines can wait");
    assert_ends(producer);
    let mut text = String::new();
    stderr.read_to_string(&mut text).expect("text");
    assert!(!text.contains("listening on"), "the pipe was full all the time: {text}");
}

#[test]
fn last_words_are_read_and_delay_nobody_when_they_are_not() {
    let refused = || Program::consumer().env("KAFKA_BROKERS", "a;b");
    assert!(refused().run(secs(60)).stderr.starts_with("error: "));
    let simulate = || Program::simulate().args(&["--audit", "nowhere", "--verify", "nothing"]);
    assert!(simulate().run(secs(60)).stderr.starts_with("error: "));
    for program in [refused(), simulate()] {
        let (mut program, stderr) = program.start_unread_full();
        assert_eq!(program.wait(secs(60)).code(), Some(2));
        drop(stderr);
    }
}
