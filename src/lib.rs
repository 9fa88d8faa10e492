//! Events over HTTP into Kafka, and from Kafka into one log file, on plain OS threads.
//!
//! ```text
//! simulate ──POST──▶ producer ──▶ Kafka topic `events` ──▶ consumer ──▶ logs/events.log
//! ```
//!
//! Read along the way of an event: [`event`] (what it is), [`producer`] (socket to queue to batch),
//! [`broker`] (the only room that knows Kafka's protocol), [`consumer`] (topic to file). [`simulate`]
//! is the outside world: it loads the producer and audits the file.
//!
//! The three programs share [`config`], [`logging`], [`metrics`], [`readiness`], [`retry`], [`shutdown`],
//! [`thread`], [`thread_limit`], [`sockets`] and [`linux`]; `producer`, `consumer` and `simulate` never import
//! each other.

pub mod broker;
pub mod config;
pub mod consumer;
pub mod echo;
pub mod event;
pub mod linux;
pub mod logging;
pub mod metrics;
pub mod printer;
pub mod producer;
pub mod readiness;
pub mod retry;
pub mod shutdown;
pub mod simulate;
pub mod sockets;
pub mod thread;
pub mod thread_limit;

/// What time limits are judged beside, in the unit tests too.
#[cfg(test)]
#[allow(dead_code, reason = "some of it only the outer tests need")]
#[path = "../tests/it/support/control.rs"]
mod control;
