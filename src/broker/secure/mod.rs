//! Gets into a broker the way that the settings say: connect, encrypt, greet, show the password.
//!
//! Knows nothing of topics and records. What it refuses, or what refuses us, comes out as `BrokerError::Refused`
//! with the setting to look at; a secret is in no message.

#[cfg(feature = "tls")]
mod sasl;
#[cfg(feature = "tls")]
mod scram;
#[cfg(feature = "tls")]
mod tls;

use std::time::Instant;

#[cfg(feature = "tls")]
pub(super) use tls::{TlsStream, refusal};

use super::BrokerError;
use super::connection::Connection;
use super::control::{self, Versions};
use crate::config::KafkaConfig;
#[cfg(feature = "tls")]
use crate::config::SecurityProtocol;

/// A connection to `host` (host:port) that takes requests, and what the broker serves.
///
/// # Errors
/// Retryable when the broker is not there or not in time; refused when it is not one that we trust, or does not
/// let us in; unsupported.
pub(super) fn open(
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

/// A broker without TLS just closes the connection, as one that is going down does; greeted without TLS it answers.
#[cfg(feature = "tls")]
fn explain(config: &KafkaConfig, host: &str, deadline: Instant, failure: tls::Failure) -> BrokerError {
    match failure {
        tls::Failure::Known(error) => error,
        tls::Failure::Closed(_) if plain(config, host, deadline).is_ok() => BrokerError::Refused(format!(
            "broker {host}: TLS handshake: it speaks no TLS on this port; use its port with TLS, or set \
             KAFKA_SECURITY_PROTOCOL to {}",
            if config.security.protocol.has_sasl() { "SASL_PLAINTEXT" } else { "PLAINTEXT" }
        )),
        tls::Failure::Closed(error) => error,
    }
}
