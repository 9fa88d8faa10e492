//! Receives events over HTTP, publishes them to Kafka and logs them to a file, with plain OS threads.
//!
//! ```text
//! simulate ──POST──▶ producer ──▶ Kafka topic `events` ──▶ consumer ──▶ logs/events.log
//! ```
//!
//! To read the code, follow an event: [`event`] (what an event is), [`producer`] (socket to queue to batch),
//! [`broker`] (the only module that knows Kafka's protocol), [`consumer`] (topic to file). [`simulate`]
//! plays the outside world: it sends load to the producer and audits the file. `live` shows all of it on a page.
//!
//! The programs share [`config`], [`logging`], [`metrics`], [`readiness`], [`retry`], [`shutdown`],
//! [`status_page`], [`thread`], [`thread_limit`], [`sockets`], [`linux`], `acceptor`, `transport`, `health_check` and
//! `decompress`;
//! `producer`, `consumer`, `simulate` and `live` never import each other.

mod acceptor;
pub mod access;
pub mod broker;
pub mod config;
pub mod consumer;
mod decompress;
pub mod echo;
pub mod event;
mod health_check;
mod hex;
pub mod linux;
#[cfg(feature = "live")]
pub mod live;
pub mod logging;
pub mod metrics;
pub mod printer;
pub mod producer;
pub mod readiness;
pub mod retry;
#[cfg(feature = "lake")]
mod sha256;
pub mod shutdown;
pub mod simulate;
pub mod sockets;
pub mod status_page;
#[cfg(feature = "postgres")]
pub mod tables;
pub mod thread;
pub mod thread_limit;
mod transport;

/// Measures how slow this machine currently is, so that tests can judge time limits. Used by unit tests as
/// well.
#[cfg(test)]
#[allow(dead_code, reason = "parts of it are used only by the integration tests")]
#[path = "../tests/it/support/control.rs"]
mod control;
