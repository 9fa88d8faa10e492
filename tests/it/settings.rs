//! What people write into the settings: accepted in the form that is then used, or refused with what to write instead.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::support::process::Program;
use crate::support::wait::secs;

/// Programs by name, in a directory with one file, one pipe and one subdirectory.
fn program(name: &str, dir: &Path) -> Program {
    let program = match name {
        "producer" => Program::producer(),
        "consumer" => Program::consumer(),
        #[cfg(feature = "live")]
        "live" => Program::live(),
        _ => Program::simulate(),
    };
    program.dir(dir)
}

/// A directory with `file`, `pipe`, `dir/` and passwords.
fn site() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("directory");
    fs::write(dir.path().join("file"), "x").expect("written");
    fs::create_dir(dir.path().join("dir")).expect("created");
    let made = Command::new("mkfifo").arg(dir.path().join("pipe")).status().expect("mkfifo runs");
    assert!(made.success());
    dir
}

#[test]
fn what_people_write_is_accepted_in_the_form_that_is_used() {
    let site = site();
    for (name, setting, written, used) in [
        ("producer", "KAFKA_BROKERS", " a:9092, b:9092 ,", "a:9092,b:9092"),
        ("consumer", "KAFKA_BROKERS", "[::1]:9092,a:1,[::1]:9092", "[::1]:9092,a:1"),
        ("consumer", "KAFKA_BOOTSTRAP_SERVERS", "a:9092, b:9092", "a:9092,b:9092"),
        ("producer", "KAFKA_HEADERS", " X-Request-Id, traceparent,", "x-request-id,traceparent"),
        ("producer", "KAFKA_HEADERS", "", "off"),
        ("producer", "HTTP_ADDR", "localhost:5000", "127.0.0.1:5000"),
        ("producer", "HTTP_ADDR", "[::]:0", "[::]:0"),
        ("consumer", "METRICS_ADDR", " localhost:5001", "127.0.0.1:5001"),
        ("consumer", "METRICS_ADDR", "OFF", "off"),
        ("consumer", "LOG_FILE", "new/events.log", "new/events.log"),
        ("consumer", "LOG_FILE", "./~/events.log", "./~/events.log"),
        ("producer", "LOG_LEVEL", "WARN", "WARN"),
        ("simulate", "SIMULATE_URL", "http://[::1]:5000/x", "http://[::1]:5000/x"),
    ] {
        let end = program(name, site.path()).env(setting, written).args(&["--print-config"]).run(secs(60));
        assert!(end.status.success(), "{name} {setting}={written}: {}", end.stderr);
        let line = format!("{setting}={used}  # environment or .env\n");
        assert!(end.stdout.contains(&line), "{name} {setting}={written}: {}", end.stdout);
    }
}

/// Program, setting, value, and what the refusal must say beside the setting.
const REFUSED: &[(&str, &str, &str, &str)] = &[
    ("producer", "KAFKA_BROKERS", "a:9092;b:9092", "separate addresses with commas"),
    ("consumer", "KAFKA_BROKERS", "a:9092 b:9092", "separate addresses with commas"),
    ("consumer", "KAFKA_BROKERS", "PLAINTEXT://a:9092", "write a:9092 without `PLAINTEXT://`"),
    ("consumer", "KAFKA_BROKERS", "localhost", "for example localhost:9092"),
    ("consumer", "KAFKA_BROKERS", "a:9092,,b:9092", "an address is missing"),
    ("consumer", "KAFKA_BROKERS", "", "an address is missing"),
    ("consumer", "KAFKA_BROKERS", "a:0", "1 to 65535"),
    ("consumer", "KAFKA_BROKERS", "::1:9092", "[::1]:9092"),
    ("consumer", "KAFKA_BROKERS", "\"a:9092\"", "cannot be part of a host name"),
    ("consumer", "KAFKA_TOPIC", "my events", "1 to 249 of a-z"),
    ("producer", "KAFKA_CLIENT", "librdkafka", "auto, crate"),
    ("producer", "KAFKA_COMPRESSION", "brotli", "none, gzip, snappy, lz4, zstd"),
    ("producer", "KAFKA_HEADERS", "authorization", "traceparent, tracestate, x-request-id, client"),
    ("producer", "KAFKA_HEADERS", "client", "needs AUTH_KEYS_FILE"),
    ("producer", "KAFKA_HEADERS", "tracestate", "without `traceparent`"),
    ("producer", "KAFKA_CONNECT_TIMEOUT_MS", "1s", "from 10 to 60000, without a unit"),
    ("producer", "KAFKA_REQUEST_TIMEOUT_MS", "", "from 100 to 60000"),
    ("producer", "KAFKA_KEY_FIELD", "", "the name of a field"),
    ("producer", "KAFKA_KEY_FIELD", "user_id ", "the name of a field"),
    ("producer", "EVENT_ID_FIELD", "timestamp", "name another field, for example event_id"),
    ("producer", "EVENT_ID_FIELD", " id", "the name of a field"),
    ("producer", "EVENT_CLIENT_FIELD", "client", "needs AUTH_KEYS_FILE"),
    ("producer", "HTTP_ADDR", "5000", "0.0.0.0:5000 for all networks"),
    ("producer", "HTTP_ADDR", ":5000", "127.0.0.1:5000 for this machine only"),
    ("producer", "HTTP_ADDR", "example:5000", "is a name; write the IP address"),
    ("producer", "HTTP_ADDR", "http://127.0.0.1:5000/", "for example 127.0.0.1:5000"),
    ("producer", "HTTP_ADDR", "::1:5000", "[::1]:5000"),
    ("producer", "MAX_BODY_BYTES", "8MB", "from 1024 to 67108864, without a unit"),
    ("producer", "HTTP_WORKERS", "0", "from 1 to 256"),
    ("consumer", "METRICS_ADDR", "none", "or off"),
    ("consumer", "KAFKA_GROUP", "my group ", "no white space around it"),
    ("consumer", "CONSUMER_SHARD", "3/3", "for example 0/3"),
    ("consumer", "LOG_LEVEL", "verbose", "expected off, error, warn, info or debug"),
    ("consumer", "LOG_FILE", "~/events.log", "only a shell replaces `~`"),
    ("consumer", "LOG_FILE", "logs/", "names a directory"),
    ("consumer", "LOG_FILE", "dir", "is a directory"),
    ("consumer", "LOG_FILE", "pipe", "not a regular file"),
    ("consumer", "LOG_FILE", "file/events.log", "file is not a directory"),
    ("consumer", "LOG_FILE", "events.log ", "white space"),
    ("consumer", "LOG_FILE", "logs/events.rejected", "records that are not events"),
    ("consumer", "LOG_FSYNC", "interval:1s", "interval:MS"),
    ("consumer", "LOG_ROTATE_BYTES", "100MB", "at least 4096"),
    ("consumer", "LOG_ROTATE_DAILY", "yes", "true, false"),
    ("live", "LIVE_ADDR", "0.0.0.0:5002", "set LIVE_TOKEN, for example"),
    ("live", "LIVE_PRODUCERS", "http://127.0.0.1:5000/", "write 127.0.0.1:5000 without `http://`"),
    ("live", "LIVE_PRODUCERS", "localhost", "for example localhost:5000"),
    ("live", "LIVE_HOSTS", "live example", "cannot be part of a host name"),
    ("live", "LIVE_EVENTS", "yes", "on, off"),
    ("simulate", "SIMULATE_URL", "http://localhost:5000", "write http://localhost:5000/register_event"),
    ("simulate", "SIMULATE_URL", "localhost:5000/register_event", "expected http://"),
    ("simulate", "--duration", "30 s", "for example 30s"),
    ("simulate", "--record", "~/record", "only a shell replaces `~`"),
    ("simulate", "--record", "dir/", "names a directory"),
    ("simulate", "--histogram", "pipe", "not a regular file"),
    // Of the tests' own directory, which has other files; a build without the lake takes no directory at all.
    ("simulate", "--verify", ".", if cfg!(feature = "lake") { "is not a lake" } else { "is a directory" }),
    ("simulate", "--verify", "pipe", "not a regular file"),
];

#[test]
fn what_cannot_work_is_refused_with_setting_value_and_what_is_allowed() {
    let site = site();
    // The live page is not in every build.
    for (name, setting, value, hint) in REFUSED.iter().filter(|row| row.0 != "live" || cfg!(feature = "live"))
    {
        let program = program(name, site.path());
        let end = match setting.strip_prefix("--") {
            Some(_) => program.args(&[setting, value, "--check-config"]),
            None => program.env(setting, value).args(&["--check-config"]),
        }
        .run(secs(60));
        let text = &end.stderr;
        assert_eq!(end.status.code(), Some(2), "{name} {setting}={value}: {text}{}", end.stdout);
        assert!(text.starts_with("error: ") && text.contains(setting), "{setting}={value}: {text}");
        assert!(text.contains(value) && text.contains(hint), "{setting}={value}: {text}");
    }
}

#[test]
#[cfg(feature = "tls")]
fn files_of_secrets_and_certificates_are_files() {
    let site = site();
    let refused = |settings: &[(&str, &str)], hint: &str| {
        let program = program("consumer", site.path()).env("KAFKA_SECURITY_PROTOCOL", "SASL_SSL");
        let program = program.env("KAFKA_SASL_MECHANISM", "PLAIN").env("KAFKA_SASL_USERNAME", "me");
        let program = settings.iter().fold(program, |program, (name, value)| program.env(name, value));
        let end = program.args(&["--check-config"]).run(secs(60));
        assert_eq!(end.status.code(), Some(2), "{settings:?}: {}{}", end.stdout, end.stderr);
        let setting = settings.last().expect("one").0;
        assert!(end.stderr.contains(setting) && end.stderr.contains(hint), "{settings:?}: {}", end.stderr);
    };
    for (value, hint) in
        [("pipe", "not a regular file"), ("dir", "is a directory"), ("~/x", "`~`"), ("none", "No such file")]
    {
        refused(&[("KAFKA_SASL_PASSWORD_FILE", value)], hint);
        refused(&[("KAFKA_SASL_PASSWORD_FILE", "file"), ("KAFKA_TLS_CA", value)], hint);
    }
    refused(&[("KAFKA_SASL_PASSWORD", "secret\n")], "line break");
}
