//! Settings for connecting to Kafka, shared by the producer and the consumer.

use std::time::Duration;

use clap::{Args, ValueEnum};

use super::security::{SecurityConfig, SecurityProtocol};
use super::values::{brokers, number};

/// Brokers, topic and client.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Kafka")]
pub struct KafkaConfig {
    /// Brokers to connect to first, separated by commas; the others are discovered through them
    #[arg(
        long = "kafka-brokers",
        env = "KAFKA_BROKERS",
        default_value = "127.0.0.1:9092",
        value_parser = brokers,
        value_name = "HOST:PORT,…"
    )]
    // With the full path, clap takes the type for a single value, so its parser gets the whole list.
    pub brokers: std::vec::Vec<String>,

    /// Topic for the events; if it does not exist, the broker may create it with its own defaults
    #[arg(long = "kafka-topic", env = "KAFKA_TOPIC", default_value = "events", value_parser = topic_name)]
    pub topic: String,

    /// Longest time to establish a connection to a broker, including TLS and SASL, in milliseconds
    #[arg(long = "kafka-connect-timeout-ms", env = "KAFKA_CONNECT_TIMEOUT_MS", default_value_t = 1000,
          value_parser = number::<u64>(10..=60_000), value_name = "MS")]
    pub connect_timeout_ms: u64,

    /// Longest wait for a response from a broker, in milliseconds; after that the connection is dropped
    #[arg(long = "kafka-request-timeout-ms", env = "KAFKA_REQUEST_TIMEOUT_MS", default_value_t = 5000,
          value_parser = number::<u64>(100..=60_000), value_name = "MS")]
    pub request_timeout_ms: u64,

    /// Kafka client: `crate` is the kafka crate (Kafka 0.11 to 3.9), `wire` is our own client (0.11 to 4.x),
    /// and `auto` uses the crate if the broker supports it, else wire
    #[arg(long = "kafka-client", env = "KAFKA_CLIENT", default_value = "auto", value_enum)]
    pub client: KafkaClient,

    /// How connections are secured.
    #[command(flatten)]
    pub security: SecurityConfig,
}

/// Client that connects to the brokers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum KafkaClient {
    /// The kafka crate if the broker supports it, else our own client.
    Auto,
    /// The kafka crate, for Kafka up to 3.9.
    Crate,
    /// Our own client, for Kafka 0.11 to 4.x.
    #[cfg(feature = "wire")]
    Wire,
}

impl KafkaConfig {
    /// Longest time until a broker is connected and has answered the first request.
    pub fn connect_timeout(&self) -> Duration {
        Duration::from_millis(self.connect_timeout_ms)
    }

    /// Longest wait for the first proof that Kafka acknowledges. With TLS or SASL this is at least the
    /// request timeout, since connecting then takes several round trips to each broker in turn.
    pub fn first_proof_timeout(&self) -> Duration {
        if self.security.protocol == SecurityProtocol::Plaintext {
            self.connect_timeout()
        } else {
            self.request_timeout().max(self.connect_timeout())
        }
    }

    /// Longest wait for one response.
    pub fn request_timeout(&self) -> Duration {
        Duration::from_millis(self.request_timeout_ms)
    }

    /// Normalized value for `--print-config`, with the environment name of the setting.
    pub fn in_force(&self) -> (&'static str, String) {
        ("KAFKA_BROKERS", self.brokers.join(","))
    }

    /// Checks relations between these settings.
    ///
    /// # Errors
    /// One sentence with the settings, their values and what is allowed.
    pub fn validate(&self) -> Result<(), String> {
        let protocol = self.security.protocol;
        if self.client == KafkaClient::Crate && protocol != SecurityProtocol::Plaintext {
            return Err(format!(
                "KAFKA_CLIENT=crate does not support KAFKA_SECURITY_PROTOCOL={protocol}; set KAFKA_CLIENT to \
                 auto or wire"
            ));
        }
        self.security.validate()
    }
}

/// Kafka's own rule for names:
/// <https://github.com/apache/kafka/blob/3.9/clients/src/main/java/org/apache/kafka/common/internals/Topic.java>.
fn topic_name(value: &str) -> Result<String, String> {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if value.is_empty() || value.len() > 249 || value == "." || value == ".." || !value.chars().all(legal) {
        return Err("expected 1 to 249 of a-z A-Z 0-9 . _ -, but neither . nor ..".into());
    }
    Ok(value.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_follows_kafkas_rule() {
        assert!(topic_name("events.v1_a-b").is_ok());
        for bad in ["", ".", "..", "a b", "a/b", "é", &"x".repeat(250)] {
            assert!(topic_name(bad).is_err(), "{bad}");
        }
    }
}
