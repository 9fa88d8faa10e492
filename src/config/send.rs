//! Settings of the records that the producer sends: how their batches are compressed.

use std::fmt;

use clap::{Args, ValueEnum};

use super::kafka::{KafkaClient, KafkaConfig};

/// What only our own Kafka client can do with the records of the producer.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Records in Kafka")]
pub struct SendConfig {
    /// Compression of the batches in Kafka: gzip (level 6), snappy, lz4 (its fast level) or zstd (level 1, Kafka 2.4 or
    /// newer); everything except none needs our own client (KAFKA_CLIENT=auto then uses it), and a batch that would not
    /// get smaller is sent as it is
    #[arg(long = "kafka-compression", env = "KAFKA_COMPRESSION", default_value = "none", value_enum)]
    pub compression: Compression,
}

/// How the batches in Kafka are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Compression {
    /// Not at all.
    #[default]
    None,
    /// At level 6, as Kafka's own clients do by default.
    Gzip,
    /// In the framing of Kafka's own clients.
    Snappy,
    /// At the fast level, as Kafka's own clients do by default.
    Lz4,
    /// About as level 1 of the reference implementation.
    Zstd,
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.to_possible_value().as_ref().map_or("", |value| value.get_name()))
    }
}

impl SendConfig {
    /// The setting that only our own client supports, with its value and the one that any client supports, if there
    /// is such a setting.
    pub fn only_ours(&self) -> Option<(&'static str, String, &'static str)> {
        let compression = self.compression;
        (compression != Compression::None).then(|| ("KAFKA_COMPRESSION", compression.to_string(), "none"))
    }

    /// Checks that the client which `kafka` names can do it.
    ///
    /// # Errors
    /// One sentence with the settings, their values and what is allowed.
    pub fn validate(&self, kafka: &KafkaConfig) -> Result<(), String> {
        let Some((name, value, plain)) = self.only_ours() else { return Ok(()) };
        if cfg!(not(feature = "wire")) {
            return Err(format!(
                "{name}={value}: this program was built without our own Kafka client, which alone supports it; \
                 build it with the cargo feature `wire`, or set {name} to {plain}"
            ));
        }
        if kafka.client == KafkaClient::Crate {
            return Err(format!(
                "KAFKA_CLIENT=crate does not support {name}={value}; set KAFKA_CLIENT to auto or wire, or {name} to \
                 {plain}"
            ));
        }
        Ok(())
    }
}
