//! Opens a client for each broker: one that the settings allow and that the broker supports.
//!
//! The choice is made for every new connection, so brokers can be upgraded to 4.x while the program runs.

use std::io;

use parking_lot::Mutex;

use crate::broker::client::{BatchInDoubt, Client};
use crate::broker::error::Result;
use crate::broker::kafka_crate::CrateConnector;
use crate::broker::preflight::{self, Served};
use crate::broker::protocol::{Call, Versions};
#[cfg(feature = "wire")]
use crate::broker::wire::WireConnector;
#[cfg(feature = "tls")]
use crate::config::SecurityProtocol;
use crate::config::{Compression, KafkaClient, KafkaConfig, SendConfig};

/// The client to use. Only our own supports TLS, authentication, and what `send` asks for.
fn wanted(config: &KafkaConfig, send: &SendConfig) -> KafkaClient {
    #[cfg(feature = "wire")]
    if send.only_ours().is_some() {
        return KafkaClient::Wire;
    }
    let _ = send;
    #[cfg(feature = "tls")]
    if config.security.protocol != SecurityProtocol::Plaintext {
        return KafkaClient::Wire;
    }
    config.client
}

/// The client that was chosen last. For operators only; a process talks to one cluster.
static CHOSEN: Mutex<Option<Served>> = Mutex::new(None);

/// Name of the client that was chosen for the latest connection, as in `KAFKA_CLIENT`; `None` before the first one.
pub fn client_in_use() -> Option<&'static str> {
    CHOSEN.lock().map(|served| match served {
        Served::Crate => "crate",
        #[cfg(feature = "wire")]
        Served::Wire => "wire",
    })
}

/// Opens clients of either kind, for one thread.
pub struct Connector {
    wanted: KafkaClient,
    compression: Compression,
    the_crate: CrateConnector,
    #[cfg(feature = "wire")]
    wire: WireConnector,
}

impl Connector {
    /// Creates a connector for the topic and the client that `config` names, to send records as `send` says.
    ///
    /// # Errors
    /// Fails if the system cannot start another thread.
    pub fn new(config: &KafkaConfig, send: &SendConfig) -> io::Result<Self> {
        let wanted = wanted(config, send);
        Ok(Self {
            wanted,
            compression: send.compression,
            the_crate: CrateConnector::new(cfg!(feature = "wire") && wanted == KafkaClient::Auto)?,
            #[cfg(feature = "wire")]
            wire: WireConnector::new(send.compression),
        })
    }

    /// Checks whether a client can serve a broker that supports `versions`.
    ///
    /// # Errors
    /// Fails with `BrokerError::Unsupported`, which says what to run or set instead.
    pub fn check(&self, host: &str, versions: &Versions) -> Result<()> {
        self.choose(host, versions).map(drop)
    }

    fn choose(&self, host: &str, versions: &Versions) -> Result<Served> {
        #[cfg(feature = "wire")]
        let wanted = if self.the_crate.has_given_way() { KafkaClient::Wire } else { self.wanted };
        #[cfg(not(feature = "wire"))]
        let wanted = self.wanted;
        let served = preflight::choose(wanted, self.compression, host, versions)?;
        log::debug!("chose a client: broker={host} client={served:?}");
        *CHOSEN.lock() = Some(served);
        Ok(served)
    }

    /// The batches that may have been written without our knowing. Always empty for the kafka crate, whose
    /// requests have no sequence numbers.
    pub fn in_doubt(&self) -> Vec<BatchInDoubt> {
        #[cfg(feature = "wire")]
        return self.wire.sequences().in_doubt();
        #[cfg(not(feature = "wire"))]
        Vec::new()
    }

    /// Forgets the batch in doubt of `partition`, because its records are not sent again.
    pub fn abandon(&self, partition: i32) {
        #[cfg(feature = "wire")]
        self.wire.sequences().abandon(partition);
        #[cfg(not(feature = "wire"))]
        let _ = partition;
    }

    /// Opens the client for the broker of `on`, which leads partitions of the topic.
    ///
    /// # Errors
    /// Fails with `BrokerError::Retryable` or `BrokerError::Unsupported`.
    pub fn open(&self, on: &mut Call<'_>) -> Result<Box<dyn Client>> {
        match self.choose(on.connection.host(), on.versions)? {
            Served::Crate => self.the_crate.open(on),
            #[cfg(feature = "wire")]
            Served::Wire => Ok(self.wire.client()),
        }
    }
}
