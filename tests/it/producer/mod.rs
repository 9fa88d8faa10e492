//! The producer as its clients, its operator and its attackers see it.

pub mod access;
mod attack;
mod basics;
mod batches;
mod clients;
mod closing;
mod confined;
mod drain;
mod edge;
mod faults;
mod haproxy;
mod ids;
mod load;
mod media;
mod metrics;
mod moved;
mod nginx;
mod openapi;
mod overload;
mod pipelining;
mod quiet;
mod quotas;
mod record_headers;
mod sick;
mod uploads;
mod verdicts;

use std::net::SocketAddr;
use std::thread;

use crate::support::http::{self, Client, Response};
use crate::support::process::{Program, Running};
use crate::support::topic::Topic;
use crate::support::wait::{eventually, secs};

/// A producer that is ready to publish to `topic`.
pub struct Served {
    pub program: Running,
    pub address: SocketAddr,
}

/// Starts a producer for `topic` with further settings and waits until it is ready.
#[track_caller]
pub fn serve(topic: &Topic, settings: &[(&str, &str)]) -> Served {
    serve_via(&topic.brokers(), topic, settings)
}

/// The same through other addresses, such as a proxy's.
#[track_caller]
pub fn serve_via(brokers: &str, topic: &Topic, settings: &[(&str, &str)]) -> Served {
    let mut program = Program::producer().env("KAFKA_BROKERS", brokers).env("KAFKA_TOPIC", &topic.name);
    for (name, value) in settings {
        program = program.env(name, value);
    }
    let mut program = program.start();
    let address = program.address();
    let served = Served { program, address };
    served.wait_ready();
    served
}

impl Served {
    /// Waits until `/readyz` is 200.
    #[track_caller]
    pub fn wait_ready(&self) {
        eventually(secs(60), "the producer is ready", || self.readyz() == 200);
    }

    /// Status of `/readyz`, 0 when nobody answers.
    pub fn readyz(&self) -> u16 {
        http::get(self.address, "/readyz").map_or(0, |response| response.status)
    }

    /// One event on a connection of its own.
    #[track_caller]
    pub fn post(&self, body: &str) -> Response {
        http::post_event(self.address, body.as_bytes()).expect("an answer")
    }

    /// A kept-alive connection.
    #[track_caller]
    pub fn client(&self) -> Client {
        Client::connect(self.address).expect("connects")
    }

    /// Value of one sample of `/metrics`, labels included in its name.
    #[track_caller]
    pub fn metric(&self, sample: &str) -> f64 {
        let text = http::get(self.address, "/metrics").expect("metrics").text();
        let line = text.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
        line.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no sample {sample} in\n{text}"))
    }

    /// Proves that it still serves.
    #[track_caller]
    pub fn assert_serves(&self) {
        assert_eq!(self.post(r#"{"event": "still there"}"#).status, 200);
    }
}

/// Runs `each` in `count` threads and returns what they return, in order.
pub fn at_once<T: Send>(count: usize, each: impl Fn(usize) -> T + Sync) -> Vec<T> {
    thread::scope(|scope| {
        let each = &each;
        let threads: Vec<_> = (0..count).map(|index| scope.spawn(move || each(index))).collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
    })
}
