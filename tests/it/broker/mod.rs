//! `KafkaSink` and `KafkaSource` against a real Kafka, read back and written by `kcat`, harmed by signals and the proxy.

mod bombs;
mod cluster;
mod compressed;
mod faults;
mod foreign;
mod headers;
mod hostile;
mod java;
mod mangled;
mod once;
#[cfg(feature = "tls")]
mod security;
mod sink;
mod source;

use std::time::{Duration, Instant};

use event_pipeline::broker::{
    BrokerError, Fetched, KafkaSink, KafkaSource, Position, Receipt, Record, Sink, Source, open_sink,
    open_source,
};
use event_pipeline::config::{KafkaClient, KafkaConfig, SecurityConfig, SendConfig};

use crate::support::kafka::client;
use crate::support::topic::Topic;
use crate::support::wait::{self, secs};

/// What a call may take beside its limit. A forgotten limit shows: without one a request takes `request_timeout_ms`.
const LATE: Duration = Duration::from_millis(500);

fn config(brokers: &str, topic: &str) -> KafkaConfig {
    KafkaConfig {
        brokers: brokers.split(',').map(str::to_owned).collect(),
        topic: topic.to_owned(),
        connect_timeout_ms: 1000,
        request_timeout_ms: 5000,
        client: client(),
        security: SecurityConfig::default(),
    }
}

/// The same with our own client, whichever is under test.
fn wire(config: KafkaConfig) -> KafkaConfig {
    KafkaConfig { client: KafkaClient::Wire, ..config }
}

/// A sink that sends records as they are.
fn plain_sink(config: &KafkaConfig) -> KafkaSink {
    open_sink(config, &SendConfig::default()).expect("a thread")
}

fn sink_to(brokers: &str, topic: &Topic) -> KafkaSink {
    plain_sink(&config(brokers, &topic.name))
}

fn source_of(topic: &Topic) -> KafkaSource {
    open_source(&config(&topic.brokers(), &topic.name)).expect("a thread")
}

type Outcomes = Vec<Result<Receipt, BrokerError>>;

fn send(sink: &mut KafkaSink, values: &[impl AsRef<[u8]>], limit: Duration) -> Outcomes {
    let records: Vec<Record<'_>> = values.iter().map(|value| Record::new(None, value.as_ref())).collect();
    sink.send(&records, limit)
}

/// Sends and asserts that every record was acknowledged.
#[track_caller]
fn send_all(sink: &mut KafkaSink, values: &[impl AsRef<[u8]>]) -> Vec<Receipt> {
    send(sink, values, secs(60)).into_iter().map(|outcome| outcome.expect("acknowledged")).collect()
}

#[track_caller]
fn assert_all_retryable(outcomes: &Outcomes) {
    let wrong = outcomes.iter().find(|outcome| !outcome.as_ref().is_err_and(BrokerError::is_retryable));
    assert!(wrong.is_none(), "{wrong:?}");
}

/// Runs `call` and asserts that it kept `limit`.
#[track_caller]
fn within<T>(limit: Duration, call: impl FnOnce() -> T) -> T {
    wait::within(limit + LATE, "the call", call)
}

fn from_start(partitions: i32) -> Vec<Position> {
    (0..partitions).map(|partition| Position { partition, offset: 0 }).collect()
}

/// Offset and value of each record from `from` on, until the partition ends at `end` or fails.
fn read_on(source: &mut KafkaSource, from: Position, end: i64) -> (Vec<(i64, Vec<u8>)>, Option<BrokerError>) {
    let start = Instant::now();
    let (mut position, mut records) = (from, Vec::new());
    while position.offset < end {
        assert!(
            start.elapsed() < secs(120),
            "stuck at {position:?} of {end} after {} records",
            records.len()
        );
        let fetched = source.fetch(&[position]).map(|mut answers| answers.pop().expect("an answer"));
        let page = match fetched {
            Ok(Fetched { page: Ok(page), .. }) => page,
            Ok(Fetched { page: Err(error), .. }) | Err(error) => return (records, Some(error)),
        };
        records.extend(page.records().map(|(offset, value)| (offset, value.to_vec())));
        position.offset = page.next_offset;
    }
    (records, None)
}

/// The values of partition 0 from its start to its end, each once and in order.
#[track_caller]
fn read_all(topic: &Topic) -> Vec<String> {
    let end = topic.end_offset(0);
    let (mut source, mut records, start) = (source_of(topic), Vec::new(), Instant::now());
    loop {
        let from = records.last().map_or(0, |(offset, _)| offset + 1);
        let (more, error) = read_on(&mut source, Position { partition: 0, offset: from }, end);
        records.extend(more);
        match error {
            // A busy broker may not answer in time, and is asked again.
            Some(BrokerError::Retryable(_)) if start.elapsed() < secs(120) => {}
            error => break assert_eq!(error, None),
        }
    }
    assert!(records.windows(2).all(|pair| pair[0].0 < pair[1].0), "offsets rise");
    records.into_iter().map(|(_, value)| String::from_utf8(value).expect("UTF-8")).collect()
}

fn numbered(prefix: &str, count: usize) -> Vec<String> {
    (0..count).map(|number| format!("{prefix}{number}")).collect()
}
