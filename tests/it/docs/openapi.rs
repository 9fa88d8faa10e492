//! Compares docs/openapi.yaml with the program: paths, methods, statuses, error tags and settings.

use std::collections::BTreeSet;
use std::process::Command;

use clap::CommandFactory;
use event_pipeline::config::ProducerConfig;
use event_pipeline::producer;
use serde_json::Value;

use super::read;
use crate::tidy::root;

const DESCRIPTION: &str = "docs/openapi.yaml";

/// Where scripts/test.sh installs schemathesis and what belongs to it.
pub const PACKAGES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/schemathesis");

/// Runs Python with these packages, and returns what it prints.
fn python(arguments: &[&str]) -> String {
    let mut command = Command::new("python3");
    command.args(arguments).env("PYTHONPATH", PACKAGES).current_dir(root());
    let output = command.output().expect("python3 runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{arguments:?}: {}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

fn description() -> Value {
    let script = "import json, sys, yaml; print(json.dumps(yaml.safe_load(open(sys.argv[1]))))";
    serde_json::from_str(&python(&["-c", script, DESCRIPTION])).expect("JSON")
}

/// What `value` refers to, if it refers to something.
fn target<'v>(document: &'v Value, value: &Value) -> Option<&'v Value> {
    let reference = value["$ref"].as_str()?;
    let pointer = reference.strip_prefix('#').expect("a reference into the same file");
    Some(document.pointer(pointer).unwrap_or_else(|| panic!("{reference} leads nowhere")))
}

/// The same, or itself.
fn resolved<'v>(document: &'v Value, value: &'v Value) -> &'v Value {
    target(document, value).unwrap_or(value)
}

/// Path, method and description of each operation.
fn operations(document: &Value) -> Vec<(String, String, Value)> {
    let mut found = Vec::new();
    for (path, item) in document["paths"].as_object().expect("paths") {
        for (method, operation) in resolved(document, item).as_object().expect("methods") {
            found.push((path.clone(), method.to_uppercase(), operation.clone()));
        }
    }
    found
}

/// Each error tag that a schema allows, with what it says about a retry.
fn errors(document: &Value, schema: &Value) -> Vec<(String, bool)> {
    if let Some(variants) = schema["oneOf"].as_array() {
        return variants.iter().flat_map(|variant| errors(document, variant)).collect();
    }
    // What stands beside a reference narrows what it refers to.
    let schema = if schema["properties"].is_object() { schema } else { resolved(document, schema) };
    let (tag, retryable) = (&schema["properties"]["error"], &schema["properties"]["retryable"]["const"]);
    let tags = tag["enum"].as_array().cloned().unwrap_or_else(|| vec![tag["const"].clone()]);
    let tags = tags.iter().filter_map(Value::as_str);
    tags.map(|tag| (tag.to_owned(), retryable.as_bool().expect("a constant"))).collect()
}

#[test]
fn it_is_valid_and_of_this_version() {
    python(&["-m", "openapi_spec_validator", DESCRIPTION]);
    assert_eq!(description()["info"]["version"], env!("CARGO_PKG_VERSION"));
}

#[test]
fn it_has_every_path_with_its_methods() {
    let document = description();
    let described: BTreeSet<(String, String)> =
        operations(&document).into_iter().map(|(path, method, _)| (path, method)).collect();
    let mut expected = BTreeSet::from([("/register_event".to_owned(), "OPTIONS".to_owned())]);
    for (path, methods) in producer::routes() {
        expected.extend(methods.split(", ").map(|method| (path.to_owned(), method.to_owned())));
    }
    assert_eq!(described, expected, "{DESCRIPTION}");
}

#[test]
fn it_has_every_status_and_error() {
    let document = description();
    let (mut statuses, mut found) = (BTreeSet::new(), BTreeSet::new());
    for (_, _, operation) in operations(&document) {
        for (status, response) in operation["responses"].as_object().expect("responses") {
            let status: u16 = status.parse().expect("a status");
            statuses.insert(status);
            let schema = &resolved(&document, response)["content"]["application/json"]["schema"];
            let tags = errors(&document, schema).into_iter();
            found.extend(tags.map(|(tag, retryable)| (status, tag, retryable)));
        }
    }
    assert_eq!(statuses, BTreeSet::from_iter(producer::statuses()), "{DESCRIPTION}");
    let mut expected: BTreeSet<_> = producer::error_answers()
        .into_iter()
        .map(|(status, tag, retryable)| (status, tag.to_owned(), retryable))
        .collect();
    // Only /readyz says this.
    expected.insert((503, "not_ready".to_owned(), true));
    assert_eq!(found, expected, "{DESCRIPTION}");
}

#[test]
fn rejected_events_of_a_batch_have_tags_of_single_ones() {
    let document = description();
    let tags = &document["components"]["schemas"]["Batch"]["properties"]["errors"]["items"]["properties"];
    let described = tags["error"]["enum"].as_array().expect("tags");
    assert!(described.len() > 5);
    let known: Vec<&str> = producer::error_answers().into_iter().map(|(_, tag, _)| tag).collect();
    for tag in described {
        assert!(tag.as_str().is_some_and(|tag| known.contains(&tag)), "{DESCRIPTION}: {tag}");
    }
}

#[test]
fn settings_that_it_names_exist() {
    let text = read(DESCRIPTION);
    let is_setting = |word: &&str| {
        word.contains('_') && word.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_')
    };
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(is_setting);
    let named: BTreeSet<&str> = words.collect();
    assert!(named.len() > 5, "{named:?}");
    let command = ProducerConfig::command();
    let known: Vec<_> = command.get_arguments().filter_map(|arg| arg.get_env()).collect();
    for name in named {
        assert!(known.iter().any(|env| *env == name), "{DESCRIPTION}: {name} is not a setting");
    }
}
