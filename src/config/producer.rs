//! Settings of the producer, including all limits of the HTTP server and the queue.

use std::net::SocketAddr;
use std::time::Duration;

use clap::{Args, Parser, ValueEnum};

use super::access::new_key;
use super::values::{added_field, field_name, non_empty, number};
use super::{
    AccessConfig, CommonConfig, HealthConfig, HttpConfig, KafkaConfig, Secret, SendConfig, Settings,
};

/// Accepts events over HTTP, stores them in Kafka, and answers 200 once Kafka has acknowledged them.
#[derive(Parser, Clone, Debug)]
#[command(name = "producer", version, max_term_width = 110)]
pub struct ProducerConfig {
    /// Settings that every program has.
    #[command(flatten)]
    pub common: CommonConfig,
    /// Asks for health instead.
    #[command(flatten)]
    pub health: HealthConfig,
    /// How Kafka is reached.
    #[command(flatten)]
    pub kafka: KafkaConfig,
    /// The HTTP server.
    #[command(flatten)]
    pub http: HttpConfig,
    /// Batches and the queue.
    #[command(flatten)]
    pub queue: QueueConfig,
    /// The records in Kafka.
    #[command(flatten)]
    pub send: SendConfig,
    /// What is added to events.
    #[command(flatten)]
    pub fields: FieldsConfig,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub access: AccessConfig,

    /// Acknowledged events to print on stdout: `sampled` (the first five per second), `all` or `off`
    #[arg(help_heading = "General", long, env = "EVENT_ECHO", default_value = "sampled", value_enum)]
    pub event_echo: EventEcho,

    /// Longest drain after SIGTERM, in seconds; if some events are not acknowledged by then, their number is
    /// logged and the exit code is 1
    #[arg(help_heading = "General", long, env = "SHUTDOWN_TIMEOUT_SECS", default_value_t = 30,
          value_parser = number::<u64>(1..=3600), value_name = "SECS")]
    pub shutdown_timeout_secs: u64,
}

/// How many of the original's per-event lines are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum EventEcho {
    /// The first few per second, then one summary line.
    Sampled,
    /// Every event.
    All,
    /// None.
    Off,
}

/// Limits of batches and of the queue between the HTTP server and Kafka.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Batches and queue")]
pub struct QueueConfig {
    /// Top-level field whose value determines the partition; without it, batches go to the partitions in turn
    #[arg(long = "kafka-key-field", env = "KAFKA_KEY_FIELD", value_parser = field_name, value_name = "FIELD")]
    pub key_field: Option<String>,

    /// Time for which every batch waits for more events, in milliseconds; with 0, only those of a steady stream wait, at most 2 ms
    #[arg(long = "kafka-linger-ms", env = "KAFKA_LINGER_MS", default_value_t = 0,
          value_parser = number::<u64>(0..=1000), value_name = "MS")]
    pub linger_ms: u64,

    /// Maximum number of events in one batch
    #[arg(hide = true, long, env = "BATCH_MAX_EVENTS", default_value_t = 10_000,
          value_parser = number::<u32>(1..=100_000))]
    pub batch_max_events: u32,

    /// Maximum number of bytes in one batch; each partition gets at most 900,000 of them per request
    #[arg(hide = true, long, env = "BATCH_MAX_BYTES", default_value_t = 2_700_000,
          value_parser = number::<u64>(1024..=32 << 20), value_name = "BYTES")]
    pub batch_max_bytes: u64,

    /// Maximum number of events between acceptance and acknowledgement; above it requests are answered 503
    #[arg(long, env = "QUEUE_MAX_EVENTS", default_value_t = 100_000,
          value_parser = number::<u32>(1..=10_000_000))]
    pub queue_max_events: u32,

    /// Maximum number of bytes between acceptance and acknowledgement; above it requests are answered 503.
    /// While it is read, a body above 1 KiB counts twice and a compressed body three times
    #[arg(long, env = "QUEUE_MAX_BYTES", default_value_t = 32 << 20,
          value_parser = number::<u64>(64 << 10..=4 << 30), value_name = "BYTES")]
    pub queue_max_bytes: u64,

    /// Longest wait of a complete request for its acknowledgement, in milliseconds; after that it is answered
    /// 503
    #[arg(long, env = "DELIVERY_TIMEOUT_MS", default_value_t = 10_000,
          value_parser = number::<u64>(100..=120_000), value_name = "MS")]
    pub delivery_timeout_ms: u64,
}

/// Members that are added to events in addition to their timestamp.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Events")]
pub struct FieldsConfig {
    /// Top-level field with the id of an event, for example `event_id`; an event without it gets one from CloudEvents, a
    /// signed `webhook-id` or an `Idempotency-Key`, if its request has one. Empty: events get no ids
    #[arg(long, env = "EVENT_ID_FIELD", value_parser = added_field, value_name = "FIELD")]
    event_id_field: Option<String>,

    /// Top-level field that gets the name of the client whose key was used (AUTH_KEYS_FILE); events that already have
    /// it are refused. Empty: no name is added
    #[arg(long, env = "EVENT_CLIENT_FIELD", value_parser = added_field, value_name = "FIELD")]
    event_client_field: Option<String>,
}

impl FieldsConfig {
    /// Name of the field with the id, unless ids are off.
    pub fn id(&self) -> Option<&str> {
        non_empty(self.event_id_field.as_ref())
    }

    /// Name of the field with the name of the client, unless it is off.
    pub fn client(&self) -> Option<&str> {
        non_empty(self.event_client_field.as_ref())
    }

    fn validate(&self, access: &AccessConfig) -> Result<(), String> {
        let Some(client) = self.client() else { return Ok(()) };
        if access.keys_file.is_none() {
            return Err(format!(
                "EVENT_CLIENT_FIELD={client} needs AUTH_KEYS_FILE: without keys, clients have no names; set both \
                 or neither"
            ));
        }
        if self.id() == Some(client) {
            return Err(format!(
                "EVENT_CLIENT_FIELD={client} is the same field as EVENT_ID_FIELD={client}; use two names"
            ));
        }
        Ok(())
    }
}

impl QueueConfig {
    /// Longest wait of a request for its acknowledgement.
    pub fn delivery_timeout(&self) -> Duration {
        Duration::from_millis(self.delivery_timeout_ms)
    }
}

impl Settings for ProducerConfig {
    fn common(&self) -> &CommonConfig {
        &self.common
    }

    fn in_force(&self) -> Vec<(&'static str, String)> {
        vec![
            self.kafka.in_force(),
            self.send.in_force(),
            ("HTTP_ADDR", self.http.addr.to_string()),
            ("HTTP_SERVER", self.http.server().name().to_owned()),
        ]
    }

    fn passwords(&self) -> Vec<(&'static str, &Secret)> {
        self.kafka.security.given_password().into_iter().collect()
    }

    fn asked_for_health(&self) -> Result<Option<(&'static str, SocketAddr)>, String> {
        match self.access.admin_addr {
            Some(operators) => self.health.asked("ADMIN_ADDR", Some(operators)),
            None => self.health.asked("HTTP_ADDR", Some(self.http.addr)),
        }
    }

    fn output(&self) -> Result<Option<String>, String> {
        self.access.new_key.as_deref().map(new_key).transpose()
    }

    fn validate(&self) -> Result<(), String> {
        self.kafka.validate()?;
        self.send.validate(&self.kafka, &self.access)?;
        let (http, queue) = (&self.http, &self.queue);
        if http.max_event_bytes > http.max_body_bytes {
            return Err(format!(
                "MAX_EVENT_BYTES={} is more than MAX_BODY_BYTES={}; lower the first or raise the second",
                http.max_event_bytes, http.max_body_bytes
            ));
        }
        // A compressed body is held three times while it is read: as sent, decompressed, and as lines.
        if 3 * http.max_body_bytes > queue.queue_max_bytes {
            return Err(format!(
                "MAX_BODY_BYTES={} is more than a third of QUEUE_MAX_BYTES={}: the largest body could never \
                 be accepted; lower the first or raise the second",
                http.max_body_bytes, queue.queue_max_bytes
            ));
        }
        if http.max_request_events > queue.queue_max_events {
            return Err(format!(
                "MAX_REQUEST_EVENTS={} is more than QUEUE_MAX_EVENTS={}: the largest request could never be \
                 accepted; lower the first or raise the second",
                http.max_request_events, queue.queue_max_events
            ));
        }
        if queue.linger_ms >= queue.delivery_timeout_ms {
            return Err(format!(
                "KAFKA_LINGER_MS={} is not below DELIVERY_TIMEOUT_MS={}: every request would time out; \
                 lower the first or raise the second",
                queue.linger_ms, queue.delivery_timeout_ms
            ));
        }
        if self.kafka.connect_timeout_ms >= queue.delivery_timeout_ms {
            return Err(format!(
                "KAFKA_CONNECT_TIMEOUT_MS={} is not below DELIVERY_TIMEOUT_MS={}: a single dead broker would \
                 make every request fail; lower the first or raise the second",
                self.kafka.connect_timeout_ms, queue.delivery_timeout_ms
            ));
        }
        self.fields.validate(&self.access)?;
        self.access.keys(self.http.largest_request(), None).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> ProducerConfig {
        ProducerConfig::try_parse_from([&["producer"], args].concat()).expect("parses")
    }

    #[test]
    fn the_defaults_are_valid() {
        assert_eq!(parse(&[]).validate(), Ok(()));
    }

    #[test]
    fn a_broken_relation_names_both_settings() {
        let reason =
            parse(&["--max-event-bytes", "5000", "--max-body-bytes", "4000"]).validate().unwrap_err();
        assert!(
            reason.contains("MAX_EVENT_BYTES=5000") && reason.contains("MAX_BODY_BYTES=4000"),
            "{reason}"
        );
        let reason = parse(&["--queue-max-events", "9"]).validate().unwrap_err();
        assert!(
            reason.contains("MAX_REQUEST_EVENTS=10000") && reason.contains("QUEUE_MAX_EVENTS=9"),
            "{reason}"
        );
        let reason = parse(&["--queue-max-bytes", "16777216"]).validate().unwrap_err();
        assert!(reason.contains("a third of QUEUE_MAX_BYTES=16777216"), "{reason}");
        let reason = parse(&["--kafka-linger-ms", "500", "--delivery-timeout-ms", "500"]).validate();
        assert!(reason.unwrap_err().contains("KAFKA_LINGER_MS=500"));
    }

    #[test]
    #[cfg(feature = "wire")]
    fn compression_is_refused_where_the_client_is_the_crate() {
        for codec in ["gzip", "snappy", "lz4", "zstd"] {
            let args = ["--kafka-compression", codec, "--kafka-client", "crate"];
            let reason = parse(&args).validate().unwrap_err();
            for part in
                ["KAFKA_CLIENT=crate", &format!("KAFKA_COMPRESSION={codec}"), "auto or wire", "to none"]
            {
                assert!(reason.contains(part), "{reason} lacks {part}");
            }
            assert_eq!(parse(&args[..2]).validate(), Ok(()), "{codec}");
        }
        assert_eq!(parse(&["--kafka-compression", "none", "--kafka-client", "crate"]).validate(), Ok(()));
    }

    #[test]
    #[cfg(feature = "wire")]
    fn headers_are_refused_where_they_cannot_be_sent() {
        let headers = ["--kafka-headers", "traceparent,X-Request-Id"];
        assert_eq!(parse(&headers).validate(), Ok(()));
        let reason = parse(&[&headers[..], &["--kafka-client", "crate"]].concat()).validate().unwrap_err();
        for part in ["KAFKA_CLIENT=crate", "KAFKA_HEADERS=traceparent,x-request-id", "auto or wire", "to off"]
        {
            assert!(reason.contains(part), "{reason} lacks {part}");
        }
        let reason = parse(&["--kafka-headers", "client"]).validate().unwrap_err();
        assert!(
            reason.contains("KAFKA_HEADERS=client") && reason.contains("needs AUTH_KEYS_FILE"),
            "{reason}"
        );
        let reason = parse(&["--kafka-headers", "tracestate"]).validate().unwrap_err();
        assert!(reason.contains("KAFKA_HEADERS=tracestate") && reason.contains("`traceparent`"), "{reason}");
    }

    #[test]
    #[cfg(not(feature = "wire"))]
    fn compression_is_refused_without_our_own_client() {
        let reason = parse(&["--kafka-compression", "lz4"]).validate().unwrap_err();
        assert!(reason.contains("KAFKA_COMPRESSION=lz4") && reason.contains("feature `wire`"), "{reason}");
    }

    #[test]
    fn an_empty_name_adds_no_field_and_two_fields_have_two_names() {
        let fields = parse(&["--event-id-field", "", "--event-client-field="]).fields;
        assert_eq!((fields.id(), fields.client()), (None, None));
        assert_eq!(parse(&["--event-id-field", "event_id"]).fields.id(), Some("event_id"));
        let client = ["--event-client-field", "by"];
        let reason = parse(&client).validate().unwrap_err();
        assert!(reason.contains("EVENT_CLIENT_FIELD=by needs AUTH_KEYS_FILE"), "{reason}");
        let both = [&client[..], &["--event-id-field", "by", "--auth-keys-file", "keys"]].concat();
        let reason = parse(&both).validate().unwrap_err();
        assert!(reason.contains("EVENT_CLIENT_FIELD=by") && reason.contains("EVENT_ID_FIELD=by"), "{reason}");
    }
}
