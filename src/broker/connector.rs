//! Opens clients: each broker gets the one that the setting allows and that the broker serves.
//!
//! Chosen anew at each connection, so that brokers may be upgraded to 4.x under a running program.

use std::io;
use std::time::Instant;

use super::client::Client;
use super::connection::Connection;
use super::control::Versions;
use super::kafka_crate::CrateConnector;
use super::preflight::{self, Served};
#[cfg(feature = "wire")]
use super::wire::WireConnector;
use super::{BrokerError, Record};
#[cfg(feature = "tls")]
use crate::config::SecurityProtocol;
use crate::config::{KafkaClient, KafkaConfig};

/// The client to use: only our own gets into brokers that ask for TLS or a password.
fn wanted(config: &KafkaConfig) -> KafkaClient {
    #[cfg(feature = "tls")]
    if config.security.protocol != SecurityProtocol::Plaintext {
        return KafkaClient::Wire;
    }
    config.client
}

/// Opens either client, for one thread.
pub(super) struct Connector {
    wanted: KafkaClient,
    the_crate: CrateConnector,
    #[cfg(feature = "wire")]
    wire: WireConnector,
}

impl Connector {
    /// For the topic and the client that `config` names.
    ///
    /// # Errors
    /// When the system has no thread left.
    pub fn new(config: &KafkaConfig) -> io::Result<Self> {
        Ok(Self {
            wanted: wanted(config),
            the_crate: CrateConnector::new(config.topic.clone())?,
            #[cfg(feature = "wire")]
            wire: WireConnector::new(config.topic.clone()),
        })
    }

    /// Whether a client can serve a broker that serves `versions`.
    ///
    /// # Errors
    /// Unsupported, with what to run or set instead.
    pub fn check(&self, host: &str, versions: &Versions) -> Result<(), BrokerError> {
        let served = preflight::choose(self.wanted, host, versions)?;
        log::debug!("broker {host}: client {served:?}");
        Ok(())
    }

    /// True while `records` may be written to `partition` as one batch, and sending it there again would not write
    /// them twice. The requests of the kafka crate have no numbers that would tell.
    pub fn is_in_doubt(&self, partition: i32, records: &[Record<'_>]) -> bool {
        #[cfg(feature = "wire")]
        let is_in_doubt = self.wire.is_in_doubt(partition, records);
        #[cfg(not(feature = "wire"))]
        let is_in_doubt = {
            let _ = (partition, records);
            false
        };
        is_in_doubt
    }

    /// The client of `host`, which serves `versions` and leads partitions of the topic; `control` is a connection
    /// to the same broker.
    ///
    /// # Errors
    /// Retryable, or unsupported.
    pub fn open(
        &self,
        host: &str,
        versions: &Versions,
        control: &mut Connection,
        deadline: Instant,
    ) -> Result<Box<dyn Client>, BrokerError> {
        match preflight::choose(self.wanted, host, versions)? {
            Served::Crate => self.the_crate.open(host, versions, control, deadline),
            #[cfg(feature = "wire")]
            Served::Wire => Ok(self.wire.open(host, versions)),
        }
    }
}
