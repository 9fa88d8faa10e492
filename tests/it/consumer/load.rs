//! A steady load on a topic while the consumer is harmed.

use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam::channel::{RecvTimeoutError, Sender, bounded};
use event_pipeline::broker::{Record, Sink, open_sink};
use event_pipeline::config::{KafkaConfig, SecurityConfig, SendConfig};

use crate::support::kafka::client;
use crate::support::topic::Topic;

const EVENTS_A_BATCH: usize = 200;
const PAUSE: Duration = Duration::from_millis(10);
const SEND_LIMIT: Duration = Duration::from_secs(5);

/// Sends until it is finished.
pub struct Load {
    stop: Sender<()>,
    thread: JoinHandle<usize>,
}

impl Load {
    /// Sends values that are unlike each other.
    pub fn start(topic: &Topic) -> Self {
        Self::of(topic, events)
    }

    /// Sends batch after batch of what `values` makes of its number.
    pub fn of(topic: &Topic, values: fn(usize) -> Vec<String>) -> Self {
        Self::begin(topic, values, false)
    }

    /// The same, and each value goes to the same partition again.
    pub fn keyed(topic: &Topic, values: fn(usize) -> Vec<String>) -> Self {
        Self::begin(topic, values, true)
    }

    fn begin(topic: &Topic, values: fn(usize) -> Vec<String>, is_keyed: bool) -> Self {
        let config = KafkaConfig {
            brokers: topic.brokers().split(',').map(str::to_owned).collect(),
            topic: topic.name.clone(),
            connect_timeout_ms: 1000,
            request_timeout_ms: 5000,
            client: client(),
            security: SecurityConfig::default(),
        };
        let (stop, stopped) = bounded::<()>(0);
        let thread = thread::spawn(move || {
            let mut sink = open_sink(&config, &SendConfig::default()).expect("a sink");
            let mut acknowledged = 0;
            for batch in 0.. {
                if stopped.recv_timeout(PAUSE) == Err(RecvTimeoutError::Disconnected) {
                    break;
                }
                acknowledged += send(&mut sink, &values(batch), is_keyed);
            }
            acknowledged
        });
        Self { stop, thread }
    }

    /// Ends the load; returns how many events were acknowledged.
    pub fn finish(self) -> usize {
        drop(self.stop);
        self.thread.join().expect("the load does not panic")
    }
}

fn events(batch: usize) -> Vec<String> {
    let event =
        |number| format!(r#"{{"event": "purchase", "user_id": 203, "batch": {batch}, "number": {number}}}"#);
    (0..EVENTS_A_BATCH).map(event).collect()
}

fn send(sink: &mut impl Sink, values: &[String], is_keyed: bool) -> usize {
    let values = values.iter().map(String::as_bytes);
    let records: Vec<Record<'_>> =
        values.map(|value| Record::new(is_keyed.then_some(value), value)).collect();
    sink.send(&records, SEND_LIMIT).iter().filter(|outcome| outcome.is_ok()).count()
}

/// `count` events of about `size` bytes, one a line, for kcat.
pub fn event_lines(count: usize, size: usize) -> String {
    let padding = "x".repeat(size.saturating_sub(40));
    (0..count).map(|number| format!("{{\"number\": {number}, \"padding\": \"{padding}\"}}\n")).collect()
}

/// The same in two parts, for tests that do something in between.
#[cfg(feature = "lake")]
pub fn event_halves(count: usize, size: usize) -> [String; 2] {
    let lines = event_lines(count, size);
    let middle = lines.len() / 2;
    let middle = middle + lines[middle..].find('\n').expect("a line") + 1;
    [lines[..middle].to_owned(), lines[middle..].to_owned()]
}
