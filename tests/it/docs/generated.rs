//! Pages that are generated from the code: `UPDATE_DOCS=1 cargo test --test it docs::generated` writes them.
//!
//! Without the variable the tests compare, so a setting or metric cannot change without its page.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;

use clap::{Arg, ArgAction, Command, CommandFactory};
use event_pipeline::config::{
    ConsumerConfig, DESTINATION_PASSWORD_ENV, LIVE_KEY_ENV, LIVE_TOKEN_ENV, LiveConfig, PASSWORD_ENV,
    ProducerConfig, SimulateConfig,
};
use event_pipeline::metrics::Description;
use event_pipeline::{consumer, producer};

use super::read;
use crate::tidy::root;

const UPDATE: &str = "UPDATE_DOCS";

/// Says how each page came to be; the command is the one in this file's first line.
const GENERATED: &str = "<!-- Generated from the code by `UPDATE_DOCS=1 cargo test --test it docs::generated`; do not edit. -->\n";

const SETTINGS_HEAD: &str = "# Settings

Each setting comes from a flag, from the environment, or from `.env` in the working directory or the nearest one above it ([.env.example](../.env.example)).
A flag wins over the environment, and the environment over `.env`.
The flag of an environment variable is its name in lower case with dashes: `HTTP_ADDR` is `--http-addr`.

Numbers have no unit, `~` in a path is not expanded, and white space around a value in a list is ignored; `--print-config` shows the result.

A program that finds a bad value names the setting, the value and what is allowed, and exits with code 2.
`--check-config` checks the settings, `--print-config` shows what is in force and where each value came from; both exit afterwards.

`KAFKA_BOOTSTRAP_SERVERS`, `KAFKA_GROUP_ID` and `RUST_LOG` are accepted for `KAFKA_BROKERS`, `KAFKA_GROUP` and `LOG_LEVEL`.
";

const METRICS_HEAD: &str = "# Metrics

The producer serves Prometheus text at `/metrics` of `HTTP_ADDR`, the consumer at `/metrics` of `METRICS_ADDR`.

These sums hold at every scrape of an idle program: received = accepted + rejected, accepted = acknowledged + failed + `pipeline_queue_events`, and `pipeline_consumer_records_total` = logged events (or rows of the database) + rejected + duplicates.

[MONITORING.md](MONITORING.md) has alerts for Prometheus and a dashboard for Grafana that use all of these metrics.
";

/// Compares the page at `path` with `text`, or writes it when asked to.
fn check_page(path: &str, text: &str) {
    if std::env::var_os(UPDATE).is_some() {
        fs::write(root().join(path), text).unwrap_or_else(|error| panic!("{path}: {error}"));
    }
    let differs = read(path).lines().zip(text.lines()).position(|(is, should)| is != should);
    assert!(read(path) == text, "{path} is out of date (line {differs:?}): {GENERATED}");
}

#[test]
fn the_page_of_settings_is_up_to_date() {
    check_page("docs/SETTINGS.md", &settings_page());
}

#[test]
fn the_page_of_metrics_is_up_to_date() {
    check_page("docs/METRICS.md", &metrics_page());
}

fn settings_page() -> String {
    let programs = [
        ProducerConfig::command(),
        ConsumerConfig::command(),
        SimulateConfig::command(),
        LiveConfig::command(),
    ];
    let mut text = format!("{GENERATED}\n{SETTINGS_HEAD}");
    let sections: [(&str, &[usize]); 7] = [
        ("All programs", &[0, 1, 2, 3]),
        ("Producer, consumer and live page", &[0, 1, 3]),
        ("Producer and consumer", &[0, 1]),
        ("Producer", &[0]),
        ("Consumer", &[1]),
        ("Live page", &[3]),
        ("Simulator", &[2]),
    ];
    for (title, users) in sections {
        let _ = write!(
            text,
            "\n## {title}\n\n| setting | default | value | meaning |\n| --- | --- | --- | --- |\n"
        );
        for arg in visible(&programs[users[0]]).filter(|arg| users_of(arg, &programs) == users) {
            text.push_str(&setting_row(arg));
        }
        for (_, name, meaning) in SECRETS.iter().filter(|(section, ..)| *section == title) {
            let _ = writeln!(
                text,
                "| `{name}` | none | | {meaning}; from the environment or `.env` only, there is no flag |"
            );
        }
    }
    text
}

/// Settings without a flag, each with the section that it belongs to.
const SECRETS: [(&str, &str, &str); 4] = [
    ("Producer, consumer and live page", PASSWORD_ENV, "password for SASL"),
    ("Consumer", DESTINATION_PASSWORD_ENV, "password of the database"),
    (
        "Live page",
        LIVE_TOKEN_ENV,
        "what visitors must know, 16 to 128 characters of A-Z a-z 0-9 - _; required beyond a loopback address",
    ),
    (
        "Live page",
        LIVE_KEY_ENV,
        "key of kind `secret` for the producers' metrics, if they have AUTH_KEYS_FILE and no ADMIN_ADDR",
    ),
];

fn visible(command: &Command) -> impl Iterator<Item = &Arg> {
    let own = |arg: &&Arg| !arg.is_hide_set() && !["help", "version"].contains(&arg.get_id().as_str());
    command.get_arguments().filter(own)
}

/// The programs that have this setting under the same name.
fn users_of(arg: &Arg, programs: &[Command]) -> Vec<usize> {
    let has = |program: &Command| visible(program).any(|other| name_of(other) == name_of(arg));
    (0..programs.len()).filter(|&index| has(&programs[index])).collect()
}

/// The environment name, else the flags.
fn name_of(arg: &Arg) -> String {
    if let Some(env) = arg.get_env() {
        return format!("`{}`", env.to_string_lossy());
    }
    let short = arg.get_short().map_or_else(String::new, |short| format!(", `-{short}`"));
    format!("`--{}`{short}", arg.get_long().unwrap_or_default())
}

fn setting_row(arg: &Arg) -> String {
    let is_switch = matches!(arg.get_action(), ArgAction::SetTrue);
    let defaults: Vec<_> = arg.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
    let default =
        if defaults.is_empty() || is_switch { "none".into() } else { format!("`{}`", defaults.join(",")) };
    let values: Vec<_> = arg.get_possible_values().iter().map(|value| value.get_name().to_owned()).collect();
    let names = arg.get_value_names().unwrap_or_default().iter().map(|name| name.to_string());
    let value = match (is_switch, values.is_empty()) {
        (true, _) => String::new(),
        (false, false) => values.join(", "),
        (false, true) => names.collect::<Vec<_>>().join(" ").replace('|', ", "),
    };
    let help = arg.get_long_help().or_else(|| arg.get_help()).map(ToString::to_string).unwrap_or_default();
    let help = help.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|");
    format!("| {} | {default} | {value} | {help} |\n", name_of(arg))
}

fn metrics_page() -> String {
    let mut text = format!("{GENERATED}\n{METRICS_HEAD}");
    let (producer, consumer) =
        (by_name(producer::metric_descriptions()), by_name(consumer::metric_descriptions()));
    assert!(producer.len() > 25 && consumer.len() > 15, "{producer:?} {consumer:?}");
    let (both, of_producer): (Vec<_>, Vec<_>) =
        producer.values().cloned().partition(|metric| consumer.contains_key(&metric.name));
    let of_consumer: Vec<_> =
        consumer.values().filter(|metric| !producer.contains_key(&metric.name)).cloned().collect();
    for (title, metrics) in [("Producer", of_producer), ("Consumer", of_consumer), ("Both", both)] {
        let _ = write!(text, "\n## {title}\n\n| metric | type | meaning |\n| --- | --- | --- |\n");
        for Description { name, kind, labels, help } in metrics {
            let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
            let _ = writeln!(text, "| `{name}{labels}` | {kind} | {} |", help.replace('|', "\\|"));
        }
    }
    text
}

fn by_name(metrics: Vec<Description>) -> BTreeMap<String, Description> {
    metrics.into_iter().map(|metric| (metric.name.clone(), metric)).collect()
}
