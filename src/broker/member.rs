//! Opens and holds the connections to one broker of a cluster.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::time::Instant;

use crate::broker::client::Client;
use crate::broker::connector::Connector;
use crate::broker::error::{BrokerError, Result};
use crate::broker::protocol::{Connection, MUTING_PRODUCE, PRODUCE_KEY, Versions};
use crate::broker::secure;
use crate::config::KafkaConfig;

/// A broker that we are connected to.
pub struct Broker {
    pub control: Connection,
    pub versions: Versions,
    /// Opened on first use, because a bootstrap broker may lead nothing.
    pub client: Option<Box<dyn Client>>,
    /// Number of this pair of connections, which changes when either is reopened. 0 without a client.
    pub session: u64,
}

/// Returns the broker at `host` from `brokers`, connecting if necessary.
///
/// # Errors
/// Fails with [`BrokerError::Retryable`], [`BrokerError::Refused`] or [`BrokerError::Unsupported`].
pub fn open_broker<'a>(
    brokers: &'a mut HashMap<String, Broker>,
    connector: &Connector,
    config: &KafkaConfig,
    host: &str,
    deadline: Instant,
) -> Result<&'a mut Broker> {
    // Finds a dead connection before it is used, instead of by losing a request.
    if brokers.get(host).is_some_and(|broker| !broker.control.is_usable()) {
        brokers.remove(host);
    }
    match brokers.entry(host.to_owned()) {
        Entry::Occupied(entry) => Ok(entry.into_mut()),
        Entry::Vacant(entry) => {
            // A suspended broker still accepts connections, so one that does not answer counts as not
            // connected.
            let deadline = deadline.min(Instant::now() + config.connect_timeout());
            let (mut control, versions) =
                secure::open(config, host, deadline).map_err(|error| who_named_it(config, host, error))?;
            connector.check(host, &versions)?;
            if versions.serves(PRODUCE_KEY, MUTING_PRODUCE) {
                control.obey_quotas();
            }
            Ok(entry.insert(Broker { control, versions, client: None, session: 0 }))
        }
    }
}

/// Explains that an unreachable address came from the cluster, not from our settings.
fn who_named_it(config: &KafkaConfig, host: &str, error: BrokerError) -> BrokerError {
    match error {
        BrokerError::Retryable(text) if !config.brokers.iter().any(|named| named == host) => {
            BrokerError::Retryable(format!(
                "{text} (not KAFKA_BROKERS but the cluster named {host}: if it stays unreachable, set \
                 advertised.listeners of that broker to an address that this machine can reach)"
            ))
        }
        other => other,
    }
}
