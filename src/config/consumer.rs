//! Settings of the consumer: which partitions it reads, where it writes the log, and how durable the log is.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::builder::ArgPredicate;
use clap::{ArgAction, Args, Parser, ValueEnum};

#[cfg(feature = "postgres")]
use super::CreateTables;
use super::shard::Shard;
use super::values::{file_to_write, listen_address_or_off, number};
use super::{
    CommonConfig, DestinationConfig, EventEcho, HealthConfig, IdsConfig, KafkaConfig, LakeConfig, Secret,
    Settings,
};

/// Reads events from a Kafka topic and writes each one to a log file exactly once.
#[derive(Parser, Clone, Debug)]
#[command(name = "consumer", version, max_term_width = 110)]
pub struct ConsumerConfig {
    /// Settings that every program has.
    #[command(flatten)]
    pub common: CommonConfig,
    /// Asks for health instead.
    #[command(flatten)]
    pub health: HealthConfig,
    /// How Kafka is reached.
    #[command(flatten)]
    pub kafka: KafkaConfig,
    /// What is read.
    #[command(flatten)]
    pub reading: ReadingConfig,
    /// Where it is written.
    #[command(flatten)]
    pub log: LogConfig,
    /// Where closed logs go.
    #[command(flatten)]
    pub lake: LakeConfig,
    /// Where it is written instead.
    #[command(flatten)]
    pub destination: DestinationConfig,
    /// What is not written twice.
    #[command(flatten)]
    pub ids: IdsConfig,

    /// Address of /metrics, /livez, /readyz and /version; `off` disables them
    #[arg(
        help_heading = "General",
        long,
        env = "METRICS_ADDR",
        default_value = "127.0.0.1:5001",
        value_parser = listen_address_or_off,
        value_name = "IP:PORT|off"
    )]
    // With the full path, clap takes the type for a single value, so its parser also gets `off`.
    pub metrics_addr: std::option::Option<SocketAddr>,

    /// Received events to print on stdout: `sampled` (the first five per second), `all` or `off`
    #[arg(help_heading = "General", long, env = "EVENT_ECHO", default_value = "sampled", value_enum)]
    pub event_echo: EventEcho,
}

/// Which records are read, and where reading starts.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Reading")]
pub struct ReadingConfig {
    /// Consumer group that offsets are committed to, for lag tools; without a checkpoint, reading starts at
    /// these offsets. Within a group, each partition belongs to one log. With DESTINATION_URL, the default is
    /// `event-postgres`
    #[arg(long = "kafka-group", env = "KAFKA_GROUP", default_value = "event-logger",
          default_value_ifs([
              ("destination_url", ArgPredicate::Equals("".into()), "event-logger"),
              ("destination_url", ArgPredicate::IsPresent, "event-postgres"),
          ]), value_parser = group_name)]
    pub group: String,

    /// Share of the topic to read, `i/n`: the partitions p with p % n == i. If n > 1, the log's name ends in
    /// `-i`
    #[arg(long = "consumer-shard", env = "CONSUMER_SHARD", default_value = "0/1", value_name = "I/N")]
    pub shard: Shard,

    /// Ids of lost logs of the same group, separated by commas: continue at the offsets that they last committed. With
    /// the id of this log, its checkpoint is used although it is an old one. The startup error contains the ids
    #[arg(long = "consumer-take-over", env = "CONSUMER_TAKE_OVER", value_name = "ID,…", value_parser = ids)]
    // Written out, the type is one value to clap, so that its parser sees the whole list.
    pub take_over: Option<std::vec::Vec<String>>,

    /// What to do if the next offset, or the records logged before it, are no longer in the topic: `none`
    /// stops and says what to do, `earliest` continues at the first available offset and reports what is
    /// missing, `divergence` continues where the log of a broker that lost records diverges, and otherwise
    /// stops
    #[arg(
        long = "kafka-auto-offset-reset",
        env = "KAFKA_AUTO_OFFSET_RESET",
        default_value = "none",
        value_enum
    )]
    pub offset_reset: OffsetReset,

    /// Largest batch from other producers that is read, in bytes, both as stored and decompressed; a
    /// partition waits at a larger one. The consumer needs about six times as much memory while it reads such
    /// a batch
    #[arg(long = "kafka-fetch-max-bytes", env = "KAFKA_FETCH_MAX_BYTES", default_value_t = 64 << 20,
          value_parser = number::<u32>(16 << 20..=1 << 30), value_name = "BYTES")]
    pub fetch_max_bytes: u32,

    /// Longest time until partitions added to the topic are found, in milliseconds
    #[arg(hide = true, long = "kafka-metadata-max-age-ms", env = "KAFKA_METADATA_MAX_AGE_MS", default_value_t = 30_000,
          value_parser = number::<u64>(100..=3_600_000), value_name = "MS")]
    pub metadata_max_age_ms: u64,
}

/// The log file, its durability and its rotation.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Log")]
pub struct LogConfig {
    /// Path of the event log; its checkpoint, lock and rejected records are kept in the same directory
    #[arg(long = "log-file", env = "LOG_FILE", default_value = "logs/events.log", value_name = "PATH")]
    pub file: PathBuf,

    /// When lines are forced to disk (fsync). If the process is killed, no line is lost or repeated with any
    /// value; only `never` can lose lines, and only in a power cut
    #[arg(
        long = "log-fsync",
        env = "LOG_FSYNC",
        default_value = "batch",
        value_name = "batch|interval:MS|never"
    )]
    pub fsync: Fsync,

    /// Size above which the log is closed and renamed, in bytes; 0 disables this
    #[arg(long = "log-rotate-bytes", env = "LOG_ROTATE_BYTES", default_value_t = 0,
          value_parser = rotate_bytes, value_name = "BYTES")]
    pub rotate_bytes: u64,

    /// Also close and rename the log when the UTC day changes
    #[arg(long = "log-rotate-daily", env = "LOG_ROTATE_DAILY", default_value_t = false,
          action = ArgAction::Set, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    pub rotate_daily: bool,

    /// Also close and rename the log whenever the time since the epoch reaches a multiple of this many seconds, even if
    /// no event arrives; 3600 closes it at each full hour UTC. An empty log stays open; 0 disables this
    #[arg(long = "log-rotate-secs", env = "LOG_ROTATE_SECS", default_value_t = 0,
          value_parser = number::<u32>(0..=604_800), value_name = "SECONDS")]
    pub rotate_secs: u32,

    /// Number of closed logs to keep; older ones are deleted, 0 keeps all
    #[arg(long = "log-rotate-keep", env = "LOG_ROTATE_KEEP", default_value_t = 0, value_name = "FILES")]
    pub rotate_keep: u32,

    /// Compress closed logs with gzip
    #[arg(long = "log-rotate-gzip", env = "LOG_ROTATE_GZIP", default_value_t = false,
          action = ArgAction::Set, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    pub rotate_gzip: bool,
}

/// When written lines are forced to disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fsync {
    /// After every batch.
    Batch,
    /// This long after the first line that has not been forced to disk.
    Interval(Duration),
    /// Never while running; the kernel decides when.
    Never,
}

impl FromStr for Fsync {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let millis = text.strip_prefix("interval:").and_then(|millis| millis.parse().ok());
        match (text, millis) {
            ("batch", _) => Ok(Self::Batch),
            ("never", _) => Ok(Self::Never),
            (_, Some(millis @ 1..=60_000)) => Ok(Self::Interval(Duration::from_millis(millis))),
            _ => Err("expected batch, interval:MS (1 to 60000) or never".into()),
        }
    }
}

/// What to do if the next offset is no longer, or not yet, in the topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OffsetReset {
    /// Stop with an error that says what can be done.
    None,
    /// Continue at the first offset that is still in the topic, and report what is missing.
    Earliest,
    /// If a broker lost records that were logged, continue at the offset where its log diverges.
    Divergence,
}

fn group_name(value: &str) -> Result<String, String> {
    if value.is_empty() || value.len() > 249 || value.trim() != value {
        return Err("expected a name of 1 to 249 bytes with no white space around it".into());
    }
    Ok(value.to_owned())
}

fn ids(list: &str) -> Result<Vec<String>, String> {
    Ok(list.split(',').map(str::trim).filter(|id| !id.is_empty()).map(str::to_owned).collect())
}

fn rotate_bytes(value: &str) -> Result<u64, String> {
    match value.parse() {
        Ok(bytes) if bytes == 0 || bytes >= 4096 => Ok(bytes),
        _ => Err("expected 0 (never) or at least 4096".into()),
    }
}

impl ConsumerConfig {
    fn validate_log_file(&self) -> Result<(), String> {
        let file = &self.log.file;
        file_to_write("LOG_FILE", file)?;
        file_to_write("LOG_FILE", &self.reading.shard.log_file(file))?;
        let of_our_own = match file.extension().and_then(|extension| extension.to_str()) {
            Some("rejected") => "records that are not events",
            Some("gz") => "compressed closed logs",
            _ => return Ok(()),
        };
        Err(format!(
            "LOG_FILE={}: this extension is reserved for {of_our_own}; use for example logs/events.log",
            file.display()
        ))
    }

    /// What becomes of closed logs has no effect if none is closed, and a closed log that is removed is not kept.
    fn validate_rotation(&self) -> Result<(), String> {
        let LogConfig { rotate_bytes, rotate_daily, rotate_secs, rotate_keep, rotate_gzip, .. } = self.log;
        let lake = self.lake.dir.as_ref().map(|dir| dir.display());
        let is_closed = rotate_bytes > 0 || rotate_daily || rotate_secs > 0;
        let of_closed = format!("LOG_ROTATE_KEEP={rotate_keep} and LOG_ROTATE_GZIP={rotate_gzip}");
        let triggers = "LOG_ROTATE_BYTES, LOG_ROTATE_SECS or LOG_ROTATE_DAILY; set one of these";
        match lake {
            Some(dir) if !is_closed => {
                Err(format!("LAKE_DIR={dir} takes closed logs, but none is closed without {triggers}"))
            }
            None if !is_closed && (rotate_keep > 0 || rotate_gzip) => {
                Err(format!("{of_closed} have no effect without {triggers}"))
            }
            Some(dir) if !self.lake.keep_logs && (rotate_keep > 0 || rotate_gzip) => Err(format!(
                "{of_closed} have no effect, because LAKE_DIR={dir} removes closed logs; set LAKE_KEEP_LOGS=true to \
                 keep them, or unset these"
            )),
            _ => Ok(()),
        }
    }
}

impl Settings for ConsumerConfig {
    fn common(&self) -> &CommonConfig {
        &self.common
    }

    fn in_force(&self) -> Vec<(&'static str, String)> {
        let metrics_addr = self.metrics_addr.map_or("off".into(), |addr| addr.to_string());
        let columns = self.lake.columns_in_force();
        vec![self.kafka.in_force(), ("METRICS_ADDR", metrics_addr), ("LAKE_COLUMNS", columns)]
    }

    fn passwords(&self) -> Vec<(&'static str, &Secret)> {
        let passwords = [self.kafka.security.given_password(), self.destination.given_password()];
        passwords.into_iter().flatten().chain(self.lake.s3.given_secrets()).collect()
    }

    fn asked_for_health(&self) -> Result<Option<(&'static str, SocketAddr)>, String> {
        self.health.asked("METRICS_ADDR", self.metrics_addr)
    }

    #[cfg(feature = "postgres")]
    fn output(&self) -> Result<Option<String>, String> {
        let DestinationConfig { create_tables, schema, monthly_partitions, .. } = &self.destination;
        let ids = self.ids.field().is_some();
        Ok((*create_tables == CreateTables::Print)
            .then(|| crate::tables::create_all(schema, *monthly_partitions, ids)))
    }

    fn validate(&self) -> Result<(), String> {
        self.kafka.validate()?;
        self.destination.validate()?;
        self.validate_log_file()?;
        self.lake.validate(&self.log.file)?;
        match &self.lake.dir {
            Some(dir) if self.destination.is_set() => Err(format!(
                "LAKE_DIR={} takes closed logs, but with DESTINATION_URL there is no log; unset one of them, and run a \
                 second consumer for the other",
                dir.display()
            )),
            _ => self.validate_rotation(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Result<ConsumerConfig, clap::Error> {
        ConsumerConfig::try_parse_from([&["consumer"], args].concat())
    }

    #[test]
    fn the_defaults_are_valid() {
        assert_eq!(parse(&[]).expect("parses").validate(), Ok(()));
    }

    #[test]
    fn a_database_has_a_group_of_its_own() {
        let group = |args: &[&str]| parse(args).expect("parses").reading.group;
        assert_eq!(group(&[]), "event-logger");
        assert_eq!(group(&["--to", ""]), "event-logger");
        assert_eq!(group(&["--to", "postgres://me@127.0.0.1/app"]), "event-postgres");
        assert_eq!(group(&["--destination-url", "x", "--kafka-group", "mine"]), "mine");
    }

    #[test]
    #[cfg(all(feature = "lake", feature = "postgres"))]
    fn a_database_has_no_logs_for_a_lake() {
        let config = parse(&[
            "--to",
            "postgres://me@127.0.0.1/app",
            "--lake-dir",
            "lake",
            "--log-rotate-daily",
            "true",
        ]);
        let refused = config.expect("parses").validate().expect_err("there is no log");
        assert!(refused.contains("LAKE_DIR=lake") && refused.contains("DESTINATION_URL"), "{refused}");
    }

    #[test]
    fn fsync_has_three_forms() {
        let fsync = |text: &str| text.parse::<Fsync>();
        assert_eq!(fsync("batch"), Ok(Fsync::Batch));
        assert_eq!(fsync("interval:250"), Ok(Fsync::Interval(Duration::from_millis(250))));
        assert_eq!(fsync("never"), Ok(Fsync::Never));
        for bad in ["", "always", "interval", "interval:", "interval:0", "interval:60001", "interval:1s"] {
            assert!(fsync(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn keeping_needs_a_rotation() {
        let reason = parse(&["--log-rotate-keep", "3"]).expect("parses").validate().unwrap_err();
        assert!(reason.contains("LOG_ROTATE_KEEP=3") && reason.contains("LOG_ROTATE_BYTES"), "{reason}");
        assert!(parse(&["--log-rotate-bytes", "100"]).is_err());
    }

    #[test]
    #[cfg(feature = "lake")]
    fn a_lake_needs_a_rotation_and_keeps_no_log_unless_it_is_told_to() {
        let validate =
            |args: &[&str]| parse(&[&["--lake-dir", "lake"], args].concat()).expect("parses").validate();
        let reason = validate(&[]).unwrap_err();
        assert!(reason.contains("LAKE_DIR=lake") && reason.contains("LOG_ROTATE_SECS"), "{reason}");
        assert_eq!(validate(&["--log-rotate-secs", "3600"]), Ok(()));
        let hidden = ["--log-rotate-secs", "3600", "--log-file", "logs/_events.log"];
        assert!(validate(&hidden).unwrap_err().contains("LOG_FILE=logs/_events.log"));
        let gzip = ["--log-rotate-secs", "3600", "--log-rotate-gzip"];
        assert!(validate(&gzip).unwrap_err().contains("LAKE_KEEP_LOGS=true"));
        assert_eq!(validate(&[&gzip[..], &["--lake-keep-logs"]].concat()), Ok(()));
    }
}
