//! One broker of a cluster: its connections, and how they are opened.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::time::Instant;

use super::BrokerError;
use super::client::Client;
use super::connection::{Connection, MUTING_PRODUCE, PRODUCE_KEY};
use super::connector::Connector;
use super::control::Versions;
use super::secure;
use crate::config::KafkaConfig;

/// One broker that we are connected to.
pub(super) struct Broker {
    pub control: Connection,
    pub versions: Versions,
    /// Opened when first needed: a bootstrap broker may lead nothing.
    pub client: Option<Box<dyn Client>>,
    /// Number of the pair of connections: another one after either was opened again. 0 without a client.
    pub session: u64,
}

/// The broker at `host` among `brokers`, connected if need be.
///
/// # Errors
/// Retryable, refused or unsupported.
pub(super) fn open_broker<'a>(
    brokers: &'a mut HashMap<String, Broker>,
    connector: &Connector,
    config: &KafkaConfig,
    host: &str,
    deadline: Instant,
) -> Result<&'a mut Broker, BrokerError> {
    // A dead connection is found before it is used, not by a lost request.
    if brokers.get(host).is_some_and(|broker| !broker.control.is_usable()) {
        brokers.remove(host);
    }
    match brokers.entry(host.to_owned()) {
        Entry::Occupied(entry) => Ok(entry.into_mut()),
        Entry::Vacant(entry) => {
            // A stopped broker still accepts connections: without an answer it counts as not connected.
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

/// An address that does not answer and that no setting of ours named came from the cluster.
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
