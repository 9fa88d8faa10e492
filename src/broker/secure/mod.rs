//! Connects to a broker as the settings say: TCP, TLS, version handshake, SASL.
//!
//! If either side does not accept the other, the result is `BrokerError::Refused` with the setting to check.
//! No message contains a secret.

#[cfg(feature = "tls")]
mod sasl;
#[cfg(feature = "tls")]
mod scram;
#[cfg(feature = "tls")]
mod tls;

use std::time::Instant;

#[cfg(feature = "tls")]
pub use tls::{TlsStream, refusal};

use crate::broker::error::BrokerError;
use crate::broker::protocol::connection::Connection;
use crate::broker::protocol::control::{self, Versions};
use crate::config::KafkaConfig;
#[cfg(feature = "tls")]
use crate::config::SecurityProtocol;

/// Opens a connection to `host` (host:port) that is ready for requests, and returns what the broker supports.
///
/// # Errors
/// Retryable if the broker is unreachable or too slow. Refused if we do not trust it, or it does not accept
/// us. Unsupported if the Kafka version is wrong.
pub fn open(
    config: &KafkaConfig,
    host: &str,
    deadline: Instant,
) -> Result<(Connection, Versions), BrokerError> {
    #[cfg(feature = "tls")]
    if config.security.protocol != SecurityProtocol::Plaintext {
        return secured(config, host, deadline);
    }
    plain(config, host, deadline)
}

#[cfg(feature = "tls")]
fn secured(
    config: &KafkaConfig,
    host: &str,
    deadline: Instant,
) -> Result<(Connection, Versions), BrokerError> {
    let security = &config.security;
    let (mut connection, versions) = if security.protocol.has_tls() {
        let connection = Connection::open(host, config.connect_timeout(), deadline)?;
        let mut encrypted = tls::encrypt(security, connection, deadline)
            .map_err(|failure| explain(config, host, deadline, failure))?;
        let versions = control::versions(&mut encrypted, deadline)?;
        (encrypted, versions)
    } else {
        plain(config, host, deadline)?
    };
    if security.protocol.has_sasl() {
        sasl::authenticate(&mut connection, security, &versions, deadline)?;
    }
    Ok((connection, versions))
}

fn plain(config: &KafkaConfig, host: &str, deadline: Instant) -> Result<(Connection, Versions), BrokerError> {
    let mut connection = Connection::open(host, config.connect_timeout(), deadline)?;
    let versions = control::versions(&mut connection, deadline)?;
    Ok((connection, versions))
}

/// Explains why TLS failed. A broker without TLS just closes the connection, like one that is shutting down,
/// but it answers a request without TLS.
#[cfg(feature = "tls")]
fn explain(config: &KafkaConfig, host: &str, deadline: Instant, failure: tls::Failure) -> BrokerError {
    match failure {
        tls::Failure::Known(error) => error,
        tls::Failure::Closed(_) if plain(config, host, deadline).is_ok() => BrokerError::Refused(format!(
            "broker {host}: TLS handshake: it does not speak TLS on this port; use its port with TLS, or set \
             KAFKA_SECURITY_PROTOCOL to {}",
            if config.security.protocol.has_sasl() { "SASL_PLAINTEXT" } else { "PLAINTEXT" }
        )),
        tls::Failure::Closed(error) => error,
    }
}
