//! What watches the pipeline, the rules of Prometheus and the dashboard of Grafana, compared with the programs.

mod dashboard;
#[cfg(all(feature = "lake", feature = "postgres"))]
mod panels;

use std::collections::{BTreeMap, BTreeSet};

use event_pipeline::metrics::Description;
use event_pipeline::{consumer, producer};

use crate::docs::read;

const DASHBOARD: &str = "docs/grafana/event-pipeline.json";
const RULES: &str = "docs/prometheus/rules.yml";
const ALERTS: &str = "docs/prometheus/alerts.yml";
/// `promtool test rules` runs them, as a step of scripts/test.sh.
const TESTS: &str = "docs/prometheus/tests.yml";

/// Metrics by name.
type Metrics = BTreeMap<String, Description>;

/// All metrics of the programs.
fn known() -> Metrics {
    let all = producer::metric_descriptions().into_iter().chain(consumer::metric_descriptions());
    all.map(|metric| (metric.name.clone(), metric)).collect()
}

/// The metric that `name` belongs to: a histogram has buckets, a sum and a count.
fn described<'k>(known: &'k Metrics, name: &str) -> Option<&'k Description> {
    known.get(name).or_else(|| {
        let base = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix))?;
        known.get(base).filter(|metric| metric.kind == "histogram")
    })
}

/// The name of a metric in a text.
struct Mention<'t> {
    before: &'t str,
    name: &'t str,
    after: &'t str,
}

/// Metrics of ours, and those that a rule records.
fn mentions(text: &str) -> Vec<Mention<'_>> {
    let is_other = |c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':');
    let is_ours = |word: &str| {
        ["pipeline_", "process_", "instance:pipeline_"].iter().any(|start| word.starts_with(start))
    };
    let (mut found, mut start) = (Vec::new(), 0);
    while start < text.len() {
        let end = text[start..].find(is_other).map_or(text.len(), |length| start + length);
        let (before, name, after) = (&text[..start], &text[start..end], &text[end..]);
        if is_ours(name) {
            found.push(Mention { before, name, after });
        }
        start = end + after.chars().next().map_or(1, char::len_utf8);
    }
    found
}

/// Names of the metrics that rules record.
fn recorded(rules: &str) -> BTreeSet<&str> {
    rules.lines().filter_map(|line| line.trim().strip_prefix("- record: ")).collect()
}

#[test]
fn every_metric_that_is_watched_exists_and_every_one_that_exists_is_watched() {
    let (known, rules) = (known(), read(RULES));
    let mut watched = BTreeSet::new();
    for file in [DASHBOARD, RULES, ALERTS, TESTS] {
        for Mention { name, .. } in mentions(&read(file)) {
            if !recorded(&rules).contains(name) {
                let metric = described(&known, name);
                let metric = metric.unwrap_or_else(|| panic!("{file}: there is no metric {name}"));
                if file != TESTS {
                    watched.insert(&metric.name);
                }
            }
        }
    }
    let unwatched: Vec<_> = known.keys().filter(|name| !watched.contains(name)).collect();
    assert!(unwatched.is_empty(), "neither in the dashboard nor in an alert: {unwatched:?}");
}

/// Each alert of a file: its name, and the lines that follow.
fn alerts(text: &str) -> Vec<(&str, &str)> {
    text.split("- alert: ").skip(1).map(|alert| alert.split_once('\n').expect("more lines")).collect()
}

#[test]
fn every_alert_fires_and_stays_silent_in_a_test_and_has_a_section_for_the_one_who_is_woken() {
    let (alerts_file, tests) = (read(ALERTS), read(TESTS));
    let alerts = alerts(&alerts_file);
    assert!(alerts.len() >= 10, "{alerts:?}");
    for (name, lines) in &alerts {
        let is_graded =
            ["critical", "warning"].iter().any(|grade| lines.contains(&format!("severity: {grade}")));
        let runbook = format!("runbook_url: docs/OPERATION.md#{}\n", name.to_lowercase());
        let is_worded = ["summary: ", "description: ", &runbook].iter().all(|part| lines.contains(*part));
        assert!(is_graded && is_worded, "{ALERTS}: {name} lacks a severity, a text or {runbook}");
        assert!(tests.contains(&format!("- alertname: {name}\n")), "{TESTS}: {name} never fires");
        let silent = tests.lines().any(|line| {
            line.contains(&format!("{{alertname: {name}, ")) && line.ends_with("exp_alerts: []}")
        });
        assert!(silent, "{TESTS}: {name} is never silent");
    }
    let operation = read("docs/OPERATION.md");
    let sections: BTreeSet<&str> = operation
        .lines()
        .filter_map(|line| line.strip_prefix("### "))
        .filter(|title| title.starts_with("Pipeline"))
        .collect();
    assert_eq!(
        sections,
        BTreeSet::from_iter(alerts.iter().map(|(name, _)| *name)),
        "sections of docs/OPERATION.md"
    );
    for rule in recorded(&read(RULES)) {
        assert!(alerts_file.contains(rule), "{RULES}: {rule} is recorded and not used");
    }
}
