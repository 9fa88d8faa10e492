//! Settings of the records that the producer sends: how their batches are compressed, and which headers they have.

use std::fmt;

use clap::{Args, ValueEnum};

use super::access::AccessConfig;
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

    /// What the records of a request get as headers, separated by commas: traceparent and tracestate (W3C trace
    /// context, if it is valid), x-request-id (at most 128 visible ASCII characters), client (the name of the client
    /// whose key was used, AUTH_KEYS_FILE); needs our own client (KAFKA_CLIENT=auto then uses it). off: none
    #[arg(
        long = "kafka-headers",
        env = "KAFKA_HEADERS",
        default_value = OFF,
        value_parser = record_headers,
        value_name = "NAME,…"
    )]
    // With the full path, clap takes the type for a single value, so its parser gets the whole list.
    pub headers: std::vec::Vec<RecordHeader>,
}

/// No headers.
const OFF: &str = "off";

/// Something that a request passes on to its records as a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordHeader {
    /// The request's place in a trace, as the W3C recommendation defines it.
    Traceparent,
    /// What tracing systems add to that.
    Tracestate,
    /// The `X-Request-Id`.
    RequestId,
    /// The name of the client whose key was used.
    Client,
}

impl RecordHeader {
    const ALL: [Self; 4] = [Self::Traceparent, Self::Tracestate, Self::RequestId, Self::Client];

    /// Its name in the setting, in requests and in Kafka.
    pub fn name(self) -> &'static str {
        match self {
            Self::Traceparent => "traceparent",
            Self::Tracestate => "tracestate",
            Self::RequestId => "x-request-id",
            Self::Client => "client",
        }
    }
}

/// Parses `name,name`, in any case. White space around names, a trailing comma and repeated names are ignored.
fn record_headers(list: &str) -> Result<Vec<RecordHeader>, String> {
    let list = list.trim();
    let mut found = Vec::new();
    if list.is_empty() || list.eq_ignore_ascii_case(OFF) {
        return Ok(found);
    }
    for name in list.strip_suffix(',').unwrap_or(list).split(',').map(str::trim) {
        let header = RecordHeader::ALL.into_iter().find(|header| header.name().eq_ignore_ascii_case(name));
        let header = header.ok_or_else(|| {
            let names = RecordHeader::ALL.map(RecordHeader::name).join(", ");
            format!("`{name}` cannot be passed on; expected off, or some of {names}, separated by commas")
        })?;
        if !found.contains(&header) {
            found.push(header);
        }
    }
    Ok(found)
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
        if compression != Compression::None {
            return Some(("KAFKA_COMPRESSION", compression.to_string(), "none"));
        }
        (!self.headers.is_empty()).then(|| ("KAFKA_HEADERS", self.header_names(), OFF))
    }

    fn header_names(&self) -> String {
        self.headers.iter().map(|header| header.name()).collect::<Vec<_>>().join(",")
    }

    /// Normalized value for `--print-config`, with the environment name of the setting.
    pub fn in_force(&self) -> (&'static str, String) {
        ("KAFKA_HEADERS", if self.headers.is_empty() { OFF.into() } else { self.header_names() })
    }

    /// Checks that the client which `kafka` names can do it, and that `access` names clients if headers do.
    ///
    /// # Errors
    /// One sentence with the settings, their values and what is allowed.
    pub fn validate(&self, kafka: &KafkaConfig, access: &AccessConfig) -> Result<(), String> {
        let names = self.header_names();
        let has = |header| self.headers.contains(&header);
        if has(RecordHeader::Client) && access.keys_file.is_none() {
            return Err(format!(
                "KAFKA_HEADERS={names}: `client` needs AUTH_KEYS_FILE: without keys, clients have no names; set that, \
                 or leave it out"
            ));
        }
        if has(RecordHeader::Tracestate) && !has(RecordHeader::Traceparent) {
            return Err(format!(
                "KAFKA_HEADERS={names}: `tracestate` means nothing without `traceparent`; add that, or leave both out"
            ));
        }
        self.validate_client(kafka)
    }

    fn validate_client(&self, kafka: &KafkaConfig) -> Result<(), String> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_headers_is_read_as_people_write_it() {
        use RecordHeader::{Client, RequestId, Traceparent, Tracestate};
        for (list, headers) in [
            ("", &[][..]),
            (" OFF ", &[]),
            ("traceparent,x-request-id,client", &[Traceparent, RequestId, Client]),
            (" Traceparent , TRACESTATE,traceparent,", &[Traceparent, Tracestate]),
        ] {
            assert_eq!(record_headers(list).as_deref(), Ok(headers), "{list}");
        }
        for bad in ["authorization", "traceparent;client", "client,,traceparent", "off,client", ","] {
            let reason = record_headers(bad).expect_err(bad);
            assert!(reason.contains("traceparent, tracestate, x-request-id, client"), "{reason}");
        }
    }
}
