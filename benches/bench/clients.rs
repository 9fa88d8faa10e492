//! Measures the `broker` module alone, without HTTP and files: writes records to a topic, or reads a whole
//! topic. Usage: `clients produce BATCH SECONDS | fill BATCH EVENTS | fetch EVENTS`; broker, topic and client
//! come from the environment.
//!
//! Prints the number of acknowledged or read events as JSON. `fill` sends events that all differ; `fetch`
//! ends once it has read the given number.

use std::time::{Duration, Instant};
use std::{env, process};

use clap::{Args, Command, FromArgMatches};
use event_pipeline::broker::{self, Bounds, KafkaSink, Position, Record, Sink, Source};
use event_pipeline::config::{KafkaConfig, SendConfig};

const LIMIT: Duration = Duration::from_secs(10);
const STALLED: Duration = Duration::from_secs(20);
/// As long as the load tool's event with its timestamp.
const VALUE: &[u8] = br#"{"event": "purchase", "user_id": 203, "timestamp": "2025-07-08T00:12:01.781Z"}"#;

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let command = SendConfig::augment_args(KafkaConfig::augment_args(Command::new("clients")));
    let settings = command.get_matches_from(["clients"]);
    let config = KafkaConfig::from_arg_matches(&settings).expect("KAFKA_BROKERS and KAFKA_TOPIC");
    let send = SendConfig::from_arg_matches(&settings).expect("KAFKA_COMPRESSION");
    let sink = || broker::open_sink(&config, &send).expect("threads");
    let began = Instant::now();
    let (records, calls) = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["produce", batch, seconds] => {
            produce(sink(), number(batch), Duration::from_secs(number(seconds) as u64))
        }
        ["fill", batch, events] => fill(sink(), number(batch), number(events)),
        ["fetch", events] => fetch(&config, number(events)),
        _ => {
            report("usage: clients produce BATCH SECONDS | fill BATCH EVENTS | fetch EVENTS");
            process::exit(2);
        }
    };
    let seconds = began.elapsed().as_secs_f64();
    report(&format!(r#"{{"events": {records}, "calls": {calls}, "seconds": {seconds:.6}}}"#));
}

#[expect(clippy::print_stdout, reason = "the output of this program")]
fn report(text: &str) {
    println!("{text}");
}

fn number(text: &str) -> usize {
    text.parse().expect("a number")
}

/// Sends batches one after the other; each batch goes to one partition.
fn produce(mut sink: KafkaSink, batch: usize, duration: Duration) -> (usize, usize) {
    let records = vec![Record::new(None, VALUE); batch];
    let (began, mut sent, mut calls) = (Instant::now(), 0, 0);
    while began.elapsed() < duration {
        send(&mut sink, &records);
        (sent, calls) = (sent + batch, calls + 1);
    }
    (sent, calls)
}

/// The n-th of `events` events, of which no two have the same user. The users have no order and time moves on as
/// in a real topic, because equal or counted values would compress far better.
fn filled_event(n: usize, events: usize) -> String {
    // A prime larger than any topic here, so that each remainder occurs once.
    let user = n * 2_147_483_647 % events;
    let (second, milli) = (n / 10_000, n / 10 % 1_000);
    let (hour, minute, second) = (second / 3600 % 24, second / 60 % 60, second % 60);
    format!(
        r#"{{"event": "purchase", "user_id": {user:>3}, "timestamp": "2025-07-08T{hour:02}:{minute:02}:{second:02}.{milli:03}Z"}}"#
    )
}

fn fill(mut sink: KafkaSink, batch: usize, events: usize) -> (usize, usize) {
    for first in (0..events).step_by(batch) {
        let values: Vec<String> =
            (first..events.min(first + batch)).map(|n| filled_event(n, events)).collect();
        let records: Vec<Record<'_>> =
            values.iter().map(|value| Record::new(None, value.as_bytes())).collect();
        send(&mut sink, &records);
    }
    (events, events.div_ceil(batch))
}

fn send(sink: &mut impl Sink, records: &[Record<'_>]) {
    for outcome in sink.send(records, LIMIT) {
        outcome.expect("acknowledged");
    }
}

fn fetch(config: &KafkaConfig, wanted: usize) -> (usize, usize) {
    let mut source = broker::open_source(config).expect("threads");
    let partitions = source.partitions().expect("partitions");
    let start = |bounds: Bounds| Position { partition: bounds.partition, offset: bounds.earliest };
    let bounds = source.bounds(&partitions).expect("bounds");
    let mut positions: Vec<Position> =
        bounds.into_iter().map(|bounds| start(bounds.expect("a leader"))).collect();
    let (mut read, mut calls, mut last) = (0, 0, Instant::now());
    while read < wanted {
        for fetched in source.fetch(&positions).expect("readable") {
            let page = fetched.page.expect("readable");
            let at = positions.iter_mut().find(|at| at.partition == fetched.partition).expect("asked for");
            at.offset = page.next_offset;
            read += page.records().filter(|(_, value)| !value.is_empty()).count();
            if !page.is_empty() {
                last = Instant::now();
            }
        }
        calls += 1;
        assert!(last.elapsed() < STALLED, "{read} of {wanted} records, then nothing for {STALLED:?}");
    }
    (read, calls)
}
