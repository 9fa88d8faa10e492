//! Connects to a broker as the settings say: TCP, TLS, version handshake, SASL.
//!
//! If either side does not accept the other, the result is `BrokerError::Refused` with the setting to check.
//! No message contains a secret.

#[cfg(feature = "tls")]
mod sasl;
#[cfg(feature = "tls")]
mod scram;

use std::time::Instant;

use crate::broker::error::{BrokerError, Result};
#[cfg(feature = "tls")]
use crate::broker::protocol::failure;
use crate::broker::protocol::{Connection, Versions, control};
use crate::config::KafkaConfig;
#[cfg(feature = "tls")]
use crate::config::SecurityConfig;
use crate::transport::tcp;
#[cfg(feature = "tls")]
use crate::transport::tls;

#[cfg(feature = "tls")]
static NAMES: tls::Names = tls::Names {
    server: "broker",
    ca: "KAFKA_TLS_CA",
    cert: "KAFKA_TLS_CERT",
    key: "KAFKA_TLS_KEY",
    hosts: "KAFKA_BROKERS and in the broker's advertised.listeners",
    mode: "KAFKA_SECURITY_PROTOCOL",
};

/// Opens a connection to `host` (host:port) that is ready for requests, and returns what the broker supports.
///
/// # Errors
/// Retryable if the broker is unreachable or too slow. Refused if we do not trust it, or it does not accept
/// us. Unsupported if the Kafka version is wrong.
pub fn open(config: &KafkaConfig, host: &str, deadline: Instant) -> Result<(Connection, Versions)> {
    // The kafka crate tries the addresses of a host with the kernel's own timeout of minutes. A silent one ahead of a
    // good one would block it, so it makes the host unusable.
    let socket = tcp::connect(host, config.connect_timeout(), deadline, false)
        .map_err(|why| BrokerError::Retryable(format!("cannot connect to broker {host}: {why}")))?;
    #[cfg(feature = "tls")]
    if config.security.protocol.has_tls() {
        let transport = tls::encrypt(&tls_settings(&config.security), socket, host, deadline)
            .map_err(|failure| explain(config, host, deadline, failure))?;
        return ready(Connection::over(Box::new(transport), host), config, deadline);
    }
    ready(Connection::over(Box::new(socket), host), config, deadline)
}

#[cfg(feature = "tls")]
fn tls_settings(config: &SecurityConfig) -> tls::Settings<'_> {
    let (name, path) = config.authorities();
    tls::Settings {
        names: &NAMES,
        authorities: Some(tls::Authorities { name, path, is_chosen: config.ca.is_some() }),
        identity: config.cert.as_deref().zip(config.key.as_deref()),
    }
}

/// Shakes hands on a new `connection`, and authenticates if the settings say so.
fn ready(
    mut connection: Connection,
    config: &KafkaConfig,
    deadline: Instant,
) -> Result<(Connection, Versions)> {
    let versions = control::versions(&mut connection, deadline)?;
    #[cfg(feature = "tls")]
    if config.security.protocol.has_sasl() {
        sasl::authenticate(&mut connection, &config.security, &versions, deadline)?;
    }
    #[cfg(not(feature = "tls"))]
    let _ = config;
    Ok((connection, versions))
}

/// Explains why TLS failed. A broker without TLS just closes the connection, like one that is shutting down,
/// but it answers a request without TLS.
#[cfg(feature = "tls")]
fn explain(config: &KafkaConfig, host: &str, deadline: Instant, why: tls::Failure) -> BrokerError {
    let error = match why {
        tls::Failure::Files(why) => return BrokerError::Refused(why),
        tls::Failure::Handshake(error) => error,
    };
    let is_plaintext = tls::is_closed(&error)
        && tcp::connect(host, config.connect_timeout(), deadline, false).is_ok_and(|socket| {
            control::versions(&mut Connection::over(Box::new(socket), host), deadline).is_ok()
        });
    if is_plaintext {
        let protocol = if config.security.protocol.has_sasl() { "SASL_PLAINTEXT" } else { "PLAINTEXT" };
        return BrokerError::Refused(format!(
            "broker {host}: TLS handshake: it does not speak TLS on this port; use its port with TLS, or set \
             KAFKA_SECURITY_PROTOCOL to {protocol}"
        ));
    }
    failure(host, "TLS handshake", &error)
}
