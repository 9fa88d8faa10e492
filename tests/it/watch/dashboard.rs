//! The dashboard follows the rules under which Grafana imports and provisions it, and users understand it.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{DASHBOARD, Mention, Metrics, described, known, mentions};
use crate::docs::read;

/// What follows every metric, so that the variables apply to every query.
const SELECTOR: &str = r#"{job=~"$job", instance=~"$instance""#;

/// The panel that compares counters; all others show counters per time.
const COMPARES: &str = "Not accounted for";

/// Its panels, without those that only begin a row.
pub fn panels(dashboard: &Value) -> Vec<&Value> {
    let all = dashboard["panels"].as_array().expect("panels");
    all.iter().filter(|panel| panel["type"] != "row").collect()
}

/// Its queries.
pub fn queries(panel: &Value) -> Vec<&str> {
    let targets = panel["targets"].as_array().map_or(&[][..], Vec::as_slice);
    targets.iter().map(|target| target["expr"].as_str().expect("a query")).collect()
}

/// Everything that is wrong with a dashboard.
fn faults(dashboard: &Value, known: &Metrics) -> Vec<String> {
    let mut found = head_faults(dashboard);
    found.extend(layout_faults(dashboard));
    for panel in panels(dashboard) {
        let title = panel["title"].as_str().unwrap_or_default();
        let own = panel_faults(panel).into_iter().map(str::to_owned);
        let of_queries = queries(panel).into_iter().flat_map(|query| query_faults(title, query, known));
        found.extend(own.chain(of_queries).map(|fault| format!("{title:?}: {fault}")));
    }
    found
}

fn head_faults(dashboard: &Value) -> Vec<String> {
    let variables = dashboard["templating"]["list"].as_array().expect("variables");
    let variables: Vec<_> =
        variables.iter().map(|variable| variable["name"].as_str().unwrap_or_default()).collect();
    let rules = [
        (dashboard["uid"] == "event-pipeline" && dashboard["id"].is_null(), "a fixed uid, and no id"),
        (dashboard["editable"] == false, "not editable, because it is kept in a file"),
        (dashboard["schemaVersion"].as_u64() >= Some(39), "a recent schemaVersion"),
        (dashboard.get("__inputs").is_none(), "no __inputs, with which it could not be provisioned"),
        (variables == ["datasource", "job", "instance"], "the variables datasource, job and instance"),
    ];
    rules.into_iter().filter(|(holds, _)| !holds).map(|(_, rule)| format!("expected {rule}")).collect()
}

fn panel_faults(panel: &Value) -> Vec<&'static str> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let targets = panel["targets"].as_array().map_or(&[][..], Vec::as_slice);
    let ids: BTreeSet<String> = targets.iter().map(|target| text(&target["refId"])).collect();
    let rules = [
        (!text(&panel["title"]).is_empty(), "it has no title"),
        (text(&panel["description"]).ends_with('.'), "its description is not a sentence"),
        (!text(&panel["fieldConfig"]["defaults"]["unit"]).is_empty(), "it has no unit"),
        (panel["datasource"]["uid"] == "${datasource}", "it does not use the variable datasource"),
        (!targets.is_empty() && ids.len() == targets.len(), "its queries do not have a refId each"),
        (targets.iter().all(|target| !text(&target["legendFormat"]).is_empty()), "a query has no legend"),
    ];
    rules.into_iter().filter(|(holds, _)| !holds).map(|(_, fault)| fault).collect()
}

fn query_faults(title: &str, query: &str, known: &Metrics) -> Vec<String> {
    let mut found = Vec::new();
    for Mention { before, name, after } in mentions(query) {
        if !after.starts_with(SELECTOR) {
            found.push(format!("{name} is not selected by {SELECTOR}"));
        }
        let is_counter = described(known, name).is_some_and(|metric| metric.kind != "gauge");
        let is_per_time = before.ends_with("rate(") || before.ends_with("increase(");
        if is_counter && !is_per_time && title != COMPARES {
            found.push(format!("the counter {name} is not under rate or increase"));
        }
    }
    let windows = query.split('[').skip(1).filter_map(|rest| rest.split(']').next());
    let odd = windows.filter(|window| !["$__rate_interval", "$__range", "1h"].contains(window));
    found.extend(
        odd.map(|window| {
            format!("the window [{window}] depends neither on the picture nor on its resolution")
        }),
    );
    found
}

/// Panels with the same id, beyond the 24 columns, or on top of each other.
fn layout_faults(dashboard: &Value) -> Vec<String> {
    let (mut ids, mut taken, mut found) = (BTreeSet::new(), BTreeSet::new(), Vec::new());
    for panel in dashboard["panels"].as_array().expect("panels") {
        let number = |name: &str| panel["gridPos"][name].as_u64().expect("a number");
        let (x, y, w, h) = (number("x"), number("y"), number("w"), number("h"));
        let cells = (x..x + w).flat_map(|column| (y..y + h).map(move |line| (column, line)));
        let is_free = cells.filter(|cell| !taken.insert(*cell)).count() == 0;
        if !ids.insert(panel["id"].as_u64().expect("an id")) || x + w > 24 || !is_free {
            found.push(format!("{}: its id or its place is taken", panel["title"]));
        }
    }
    found
}

#[test]
fn the_dashboard_can_be_imported_and_understood() {
    let dashboard: Value = serde_json::from_str(&read(DASHBOARD)).expect("JSON");
    assert!(panels(&dashboard).len() > 40);
    let found = faults(&dashboard, &known());
    assert!(found.is_empty(), "{DASHBOARD}: {}", found.join("\n"));
    let rows = dashboard["panels"].as_array().expect("panels").iter().filter(|panel| panel["type"] == "row");
    let rows: Vec<_> = rows.map(|row| row["title"].as_str().expect("a title")).collect();
    assert_eq!(
        rows,
        ["Is anything lost", "Throughput", "Latency", "Kafka", "Consumer", "Clients", "Process"]
    );
}

/// Each rule, broken once.
#[test]
fn a_fault_of_a_dashboard_is_found() {
    let (text, known) = (read(DASHBOARD), known());
    for (right, wrong, expected) in [
        (r#""id": null"#, r#""id": 7"#, "no id"),
        (r#""editable": false"#, r#""editable": true"#, "not editable"),
        (r#""schemaVersion": 41"#, r#""schemaVersion": 16"#, "recent schemaVersion"),
        (r#""links": []"#, r#""__inputs": []"#, "no __inputs"),
        (r#""name": "job""#, r#""name": "task""#, "the variables"),
        (r#""title": "Kafka answers""#, r#""title": """#, "no title"),
        (
            r#"Share of them to which Kafka acknowledges (producer) or answers (consumer).""#,
            r#"Kafka""#,
            "not a sentence",
        ),
        (r#""unit": "percentunit""#, r#""unit": """#, "no unit"),
        (r#""y": 1},"#, r#""y": 2},"#, "its place is taken"),
        (r#""refId": "B""#, r#""refId": "A""#, "a refId each"),
        (r#""legendFormat": "__auto""#, r#""legendFormat": """#, "no legend"),
        (
            r#"pipeline_kafka_connected{job=~\"$job\", instance=~\"$instance\"}"#,
            "pipeline_kafka_connected",
            "not selected by",
        ),
        ("increase(pipeline_events_failed_total", "(pipeline_events_failed_total", "not under rate"),
        ("[$__rate_interval]", "[5m]", "the window [5m]"),
    ] {
        assert!(text.contains(right), "{right}");
        let broken = serde_json::from_str(&text.replacen(right, wrong, 1)).expect("still JSON");
        let found = faults(&broken, &known);
        assert!(found.iter().any(|fault| fault.contains(expected)), "{expected}: {found:?}");
    }
}
