//! Settings of the simulator: the load, the report and the audit.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, ValueEnum};

use super::lake::log_or_lake;
use super::values::{file, file_to_write, host_and_port, listen_address, number};
use super::{CommonConfig, Settings};

/// Number of requests if neither `--requests` nor `--duration` is given.
const DEFAULT_REQUESTS: u64 = 10_000;

/// Sends events to the producer from many threads, measures the responses, and checks that every
/// acknowledged event is in the log.
///
/// Exit code 0: everything was acknowledged, no threshold was exceeded, and the audit found no fault. 1: at
/// least one of these failed; the last lines say which. 2: a bad setting.
#[derive(Parser, Clone, Debug)]
#[command(name = "simulate", version, max_term_width = 110)]
pub struct SimulateConfig {
    /// Settings that every program has.
    #[command(flatten)]
    pub common: CommonConfig,
    /// What is sent.
    #[command(flatten)]
    pub load: LoadConfig,
    /// What is reported.
    #[command(flatten)]
    pub report: ReportConfig,
    /// What is compared with the log.
    #[command(flatten)]
    pub audit: AuditConfig,
}

/// How events are grouped into one request body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum BatchFormat {
    /// A JSON array.
    Array,
    /// One JSON object per line.
    Ndjson,
}

/// What is sent, and how fast.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Load")]
pub struct LoadConfig {
    /// URLs that events are posted to, separated by commas or each with its own --url: the threads are spread over them.
    /// A thread whose URL does not answer, or answers 502, 503 or 504, goes to the next one for ten seconds; only
    /// --retry sends a request again
    #[arg(long = "url", env = "SIMULATE_URL", default_value = "http://127.0.0.1:5000/register_event",
          value_delimiter = ',', value_name = "URL,…", value_parser = http_url)]
    pub urls: Vec<String>,

    /// Number of requests to send; default 10000 if no duration is given
    #[arg(short = 'n', long, value_parser = number::<u64>(1..=4_000_000_000))]
    pub requests: Option<u64>,

    /// Number of threads, each with its own connection
    #[arg(short = 't', long, default_value_t = 200, value_parser = number::<u32>(1..=10_000))]
    pub threads: u32,

    /// Duration of the run, for example 30s, 5m, 500ms
    #[arg(short = 'z', long, value_parser = positive_duration, value_name = "TIME")]
    pub duration: Option<Duration>,

    /// Requests per second on a fixed schedule (open loop); without it, each thread sends as soon as it has a
    /// response (closed loop)
    #[arg(long, value_parser = positive_number)]
    pub rate: Option<f64>,

    /// Number of events per request
    #[arg(long, default_value_t = 1, value_parser = number::<u32>(1..=100_000))]
    pub batch: u32,

    /// Format of a batch
    #[arg(long, default_value = "ndjson", value_enum)]
    pub format: BatchFormat,

    /// Size to which events are padded, in bytes; has no effect on events that are larger
    #[arg(long, value_parser = number::<u32>(1..=16 << 20), value_name = "BYTES")]
    pub size: Option<u32>,

    /// Seed for the event kinds and user ids; the run id is new in every run
    #[arg(long)]
    pub seed: Option<u64>,

    /// Time to send before the measurement starts; the audit includes these events, the figures do not
    #[arg(long, value_parser = positive_duration, value_name = "TIME")]
    pub warmup: Option<Duration>,

    /// Most retries of a request whose outcome is unknown (503, another retryable answer, timeout, cut
    /// connection), with the same event ids, each after Retry-After or a growing wait; 10 if no number is given;
    /// repeats are duplicates in the log unless the consumer runs with EVENT_ID_FIELD=event_id
    #[arg(long, default_value_t = 0, num_args = 0..=1, default_missing_value = "10", value_name = "N",
          value_parser = number::<u32>(0..=1000))]
    pub retry: u32,

    /// Longest wait for a response, and for a connection
    #[arg(long, default_value = "30s", value_parser = positive_duration, value_name = "TIME")]
    pub timeout: Duration,

    /// Additional request header, `Name: value`; can be repeated
    #[arg(short = 'H', long = "header", value_parser = header, value_name = "HEADER")]
    pub headers: Vec<(String, String)>,

    /// Key of a client (AUTH_KEYS_FILE), sent as `Authorization: Bearer`
    #[arg(long, env = "SIMULATE_KEY", hide_env_values = true, conflicts_with = "key_file")]
    pub key: Option<String>,

    /// File with one key per line; the threads take them in turn
    #[arg(long, value_name = "PATH")]
    pub key_file: Option<PathBuf>,
}

impl LoadConfig {
    /// The keys that the threads use in turn.
    ///
    /// # Errors
    /// Text for the user: the file cannot be read or has no key.
    pub fn keys(&self) -> Result<Vec<String>, String> {
        let Some(path) = &self.key_file else { return Ok(self.key.iter().cloned().collect()) };
        let named = |reason: &str| format!("--key-file {}: {reason}", path.display());
        file("--key-file", path)?;
        let text = std::fs::read_to_string(path).map_err(|error| named(&error.to_string()))?;
        let keys: Vec<String> =
            text.lines().map(|line| line.trim().to_owned()).filter(|line| !line.is_empty()).collect();
        if keys.is_empty() { Err(named("the file is empty; write one key per line")) } else { Ok(keys) }
    }
}

/// Format of the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    Text,
    /// One JSON object on stdout, for scripts.
    Json,
}

/// The report, and the thresholds above which the run fails.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Report")]
pub struct ReportConfig {
    /// Format of the report on stdout
    #[arg(long, default_value = "text", value_enum)]
    pub output: Output,

    /// File for the latency distribution, in the text format of HdrHistogram's plotter
    #[arg(long, value_name = "FILE")]
    pub histogram: Option<PathBuf>,

    /// Fail if the 99th percentile of the latency is above this, in milliseconds
    #[arg(long, value_parser = positive_number, value_name = "MS")]
    pub max_p99_ms: Option<f64>,

    /// Fail if more than this share of the events (0 to 1) is not acknowledged; without it, if any event is
    /// not
    #[arg(long, value_parser = share, value_name = "SHARE")]
    pub max_error_rate: Option<f64>,

    /// Address of the live page; if it answers, the first lines say where to watch
    #[arg(hide = true, long, env = "LIVE_ADDR", default_value = "127.0.0.1:5002", value_parser = listen_address,
          value_name = "IP:PORT")]
    pub live_addr: SocketAddr,
}

/// Comparison with the event log.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Audit")]
pub struct AuditConfig {
    /// File to record the outcome and receipt of every event in during the run; must not exist yet
    #[arg(long, value_name = "FILE")]
    pub record: Option<PathBuf>,

    /// Event log to compare with, including its rotated and compressed files; or the directory of a lake, with a build
    /// with --features lake. Can be repeated: every event must be in exactly one of them
    #[arg(long, value_name = "LOG|DIR")]
    pub verify: Vec<PathBuf>,

    /// Longest wait for the log to catch up
    #[arg(long, default_value = "60s", value_parser = positive_duration, value_name = "TIME")]
    pub verify_timeout: Duration,

    /// Send nothing: audit the record of an earlier run against the log given by --verify
    #[arg(long, value_name = "FILE")]
    pub audit: Option<PathBuf>,
}

impl LoadConfig {
    /// Number of requests after which the run ends; `None` if only the duration ends it.
    pub fn request_limit(&self) -> Option<u64> {
        self.requests.or(if self.duration.is_some() { None } else { Some(DEFAULT_REQUESTS) })
    }
}

impl Settings for SimulateConfig {
    fn common(&self) -> &CommonConfig {
        &self.common
    }

    /// Headers and keys are not shown, because they open doors.
    fn in_force(&self) -> Vec<(&'static str, String)> {
        let names: Vec<String> = self.load.headers.iter().map(|(name, _)| format!("{name}: ***")).collect();
        vec![("--headers", names.join(",")), ("SIMULATE_KEY", "***".into())]
    }

    fn validate(&self) -> Result<(), String> {
        let (load, audit) = (&self.load, &self.audit);
        audit.verify.iter().try_for_each(|path| log_or_lake(path))?;
        audit.audit.as_deref().map_or(Ok(()), |path| file("--audit", path))?;
        for (name, path) in [("--record", &audit.record), ("--histogram", &self.report.histogram)] {
            path.as_deref().map_or(Ok(()), |path| file_to_write(name, path))?;
        }
        if audit.audit.is_some() && audit.verify.is_empty() {
            return Err("--audit needs the log to compare with: add --verify logs/events.log".into());
        }
        if audit.audit.is_some() && audit.record.is_some() {
            return Err("--audit sends nothing, so there is nothing to --record; remove one of them".into());
        }
        let events = load.request_limit().unwrap_or(0).saturating_mul(load.batch.into());
        if events > u64::from(u32::MAX) {
            return Err(format!(
                "--requests={} with --batch={} is {events} events, but there are only {} sequence numbers",
                load.request_limit().unwrap_or(0),
                load.batch,
                u32::MAX
            ));
        }
        Ok(())
    }
}

fn http_url(value: &str) -> Result<String, String> {
    let value = value.trim();
    let rest =
        value.strip_prefix("http://").ok_or("expected http://host:port/path (TLS is not supported)")?;
    let Some((authority, _)) = rest.split_once('/') else {
        return Err(format!("the URL has no path; write http://{rest}/register_event"));
    };
    if rest.contains(|c: char| c.is_whitespace() || c == '#') {
        return Err("expected http://host:port/path without white space or `#`".into());
    }
    host_and_port(authority)?;
    Ok(value.to_owned())
}

fn positive_duration(value: &str) -> Result<Duration, String> {
    let digits = value.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let scale = match &value[digits.len()..] {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err("expected a number with ms, s, m or h, for example 30s".into()),
    };
    match digits.parse::<f64>() {
        Ok(number) if (0.001..=7.0 * 86_400.0).contains(&(number * scale)) => {
            Ok(Duration::from_secs_f64(number * scale))
        }
        _ => Err("expected 1ms to 7 days, for example 30s, 5m, 500ms".into()),
    }
}

fn positive_number(value: &str) -> Result<f64, String> {
    match value.parse::<f64>() {
        Ok(number) if (1e-6..=1e9).contains(&number) => Ok(number),
        _ => Err("expected a number from 0.000001 to 1000000000".into()),
    }
}

fn share(value: &str) -> Result<f64, String> {
    match value.parse::<f64>() {
        Ok(number) if (0.0..=1.0).contains(&number) => Ok(number),
        _ => Err("expected a number from 0 to 1, for example 0.01 for one percent".into()),
    }
}

fn header(value: &str) -> Result<(String, String), String> {
    let (name, content) = value.split_once(':').ok_or("expected Name: value")?;
    let token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    if name.is_empty() || !name.chars().all(token) || content.contains(|c: char| c.is_control()) {
        return Err("expected Name: value, without line breaks".into());
    }
    Ok((name.to_owned(), content.trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Result<SimulateConfig, clap::Error> {
        SimulateConfig::try_parse_from([&["simulate"], args].concat())
    }

    #[test]
    fn without_arguments_it_is_the_original_run() {
        let config = parse(&[]).expect("parses");
        assert_eq!(config.validate(), Ok(()));
        assert_eq!(
            (config.load.request_limit(), config.load.threads, config.load.retry),
            (Some(10_000), 200, 0)
        );
        assert_eq!(parse(&["-z", "2s"]).expect("parses").load.request_limit(), None);
        assert_eq!(parse(&["--retry"]).expect("parses").load.retry, 10);
        assert_eq!(parse(&["--retry", "3"]).expect("parses").load.retry, 3);
    }

    #[test]
    fn a_time_has_a_unit() {
        for (text, millis) in
            [("500ms", 500), ("2", 2000), ("1.5s", 1500), ("2m", 120_000), ("1h", 3_600_000)]
        {
            assert_eq!(positive_duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for bad in ["", "0", "-1s", "s", "3 days", "8000h", "NaN", "inf"] {
            assert!(positive_duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn bad_values_and_relations_are_refused() {
        for bad in [
            &["--url", "https://x/"][..],
            &["--url", "127.0.0.1:5000"],
            &["--url", "http://127.0.0.1:5000"],
            &["--url", "http://:5000/"],
            &["--url", "http://127.0.0.1:0/"],
            &["--rate", "1e-300"],
            &["-n", "0"],
            &["-t", "0"],
            &["--rate", "0"],
            &["--max-error-rate", "1.5"],
            &["-H", "no colon"],
            &["-H", "a b: c"],
        ] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
        let reason = parse(&["--audit", "x"]).expect("parses").validate().unwrap_err();
        assert!(reason.contains("--verify"), "{reason}");
        let reason = parse(&["-n", "4000000000", "--batch", "10"]).expect("parses").validate().unwrap_err();
        assert!(reason.contains("--batch=10"), "{reason}");
    }
}
