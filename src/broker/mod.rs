//! Kafka access for the rest of the crate: a [`Sink`] publishes records, a [`Source`] reads pages of them.
//!
//! Two clients do the work: the `kafka` crate (`kafka_crate`) and our own (`wire`). A value is plain bytes
//! here. Each `Sink` or `Source` call is a single attempt, bounded in time; the caller decides whether and
//! how long to retry.

#![cfg_attr(not(feature = "wire"), allow(dead_code, reason = "some shared code is used only by `wire`"))]

mod client;
mod cluster;
mod commit;
mod connector;
mod error;
mod headers;
mod kafka_crate;
mod member;
mod page;
mod preflight;
mod protocol;
mod read;
mod record;
mod secure;
mod send;
mod topic;
mod trail;
#[cfg(feature = "wire")]
mod wire;

use std::io;

use cluster::Cluster;
use connector::Connector;

#[cfg(fuzzing)]
pub use wire::fuzzed;

pub use connector::client_in_use;
pub use error::{BrokerError, Parting};
pub use headers::Headers;
pub use page::Page;
pub use read::source::KafkaSource;
pub use record::{Bounds, Committed, Compared, Fetched, Found, Position, Receipt, Record};
pub use send::sink::KafkaSink;
pub use topic::{Sink, Source};
#[cfg(test)]
pub(crate) use trail::{First, LeaderLog};
pub use trail::{Trail, Trails};

use crate::config::{KafkaConfig, SendConfig};

/// Opens a sink for the topic that `config` names, which sends records as `send` says. It connects on first use.
///
/// # Errors
/// Fails if the system cannot start another thread.
pub fn open_sink(config: &KafkaConfig, send: &SendConfig) -> io::Result<KafkaSink> {
    open(config, send).map(KafkaSink::new)
}

/// Opens a source for the topic that `config` names. It connects on first use.
///
/// # Errors
/// Fails if the system cannot start another thread.
pub fn open_source(config: &KafkaConfig) -> io::Result<KafkaSource> {
    open(config, &SendConfig::default()).map(KafkaSource::new)
}

fn open(config: &KafkaConfig, send: &SendConfig) -> io::Result<Cluster> {
    Ok(Cluster::new(config.clone(), Connector::new(config, send)?))
}
