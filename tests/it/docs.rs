//! The documentation against the program: every setting, metric, status and file is told, and nothing is told
//! that is not there.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use clap::{Arg, ArgAction, Command, CommandFactory};
use event_pipeline::config::{ConsumerConfig, EXIT_BAD_CONFIG, PASSWORD_ENV, ProducerConfig, SimulateConfig};
use event_pipeline::consumer::EXIT_UNDECIDED;
use event_pipeline::producer::EXIT_LEAK_BUDGET;

use crate::tidy::{files, relative, root};

const DOCUMENTS: [&str; 5] =
    ["README.md", "CHANGELOG.md", "docs/ARCHITECTURE.md", "docs/CONTRACT.md", "docs/STYLE.md"];

/// Headings of the README's tables of settings that several programs share.
const ALL_PROGRAMS: &str = "### All three programs";
const WITH_KAFKA: &str = "### Producer and consumer";

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The text below `heading` up to the next heading of any level.
fn section<'a>(text: &'a str, heading: &str) -> &'a str {
    let start = text.find(&format!("{heading}\n")).unwrap_or_else(|| panic!("no heading {heading:?}"));
    let body = &text[start + heading.len() + 1..];
    body.find("\n#").map_or(body, |end| &body[..end])
}

/// Cells of each table row, without the row of names and the line below it.
fn rows(section: &str) -> impl Iterator<Item = Vec<&str>> {
    let lines = section.lines().filter(|line| line.starts_with("| `"));
    lines.map(|line| line.trim_matches('|').split(" | ").map(str::trim).collect())
}

/// What stands in the first pair of backticks.
fn quoted(cell: &str) -> Option<&str> {
    cell.split('`').nth(1)
}

/// How the README calls a setting: its environment name, else its flag.
fn name_of(arg: &Arg) -> String {
    let flag = || format!("--{}", arg.get_long().unwrap_or_default());
    arg.get_env().map_or_else(flag, |env| env.to_string_lossy().into_owned())
}

fn default_of(arg: &Arg) -> String {
    let is_switch = matches!(arg.get_action(), ArgAction::SetTrue);
    let defaults: Vec<_> = arg.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
    if defaults.is_empty() || is_switch { "none".into() } else { format!("`{}`", defaults.join(",")) }
}

/// Settings of `command` that `tables` lack, have with another default, or invent.
fn differences(tables: &str, command: &Command) -> Vec<String> {
    let mut found = Vec::new();
    let mut told: BTreeSet<&str> = rows(tables).filter_map(|row| quoted(row[0])).collect();
    for arg in command.get_arguments().filter(|arg| !["help", "version"].contains(&arg.get_id().as_str())) {
        let (name, default) = (name_of(arg), default_of(arg));
        told.remove(name.as_str());
        match rows(tables).find(|row| quoted(row[0]) == Some(&name)) {
            None => found.push(format!("{name} is missing")),
            Some(row) if row[1] != default => {
                found.push(format!("{name} has the default {default}, not {}", row[1]));
            }
            Some(_) => {}
        }
    }
    found.extend(told.iter().map(|name| format!("{name} is no setting")));
    found
}

fn tables_of(readme: &str, headings: &[&str]) -> String {
    headings.iter().map(|heading| section(readme, heading)).collect::<Vec<_>>().join("\n")
}

/// The one setting that has no flag and does not pass through clap.
fn with_password(command: Command) -> Command {
    command.arg(Arg::new("password").env(PASSWORD_ENV))
}

#[test]
fn every_setting_stands_in_the_readme_with_its_default() {
    let readme = read("README.md");
    for (command, headings) in [
        (with_password(ProducerConfig::command()), &[ALL_PROGRAMS, WITH_KAFKA, "### Producer"][..]),
        (with_password(ConsumerConfig::command()), &[ALL_PROGRAMS, WITH_KAFKA, "### Consumer"]),
        (SimulateConfig::command(), &[ALL_PROGRAMS, "### Simulator"]),
    ] {
        let found = differences(&tables_of(&readme, headings), &command);
        assert!(found.is_empty(), "README.md, settings of {}: {}", command.get_name(), found.join("; "));
    }
}

/// The README says that a flag is the environment name in lower case with dashes.
#[test]
fn a_flag_is_its_environment_name() {
    for command in [ProducerConfig::command(), ConsumerConfig::command()] {
        for arg in command.get_arguments().filter(|arg| arg.get_env().is_some()) {
            assert_eq!(arg.get_long(), Some(&*name_of(arg).to_lowercase().replace('_', "-")));
        }
    }
}

#[test]
fn a_missing_wrong_or_invented_setting_is_found() {
    let command = Command::new("x")
        .arg(Arg::new("a").long("a-b").env("A_B").default_value("7"))
        .arg(Arg::new("c").long("c").action(ArgAction::SetTrue));
    let found = |tables: &str| differences(tables, &command).join("; ");
    assert_eq!(found("| `A_B` | `7` | ms | x |\n| `--c` | none | | x |\n"), "");
    assert_eq!(found("| `A_B` | `7` | ms | x |\n"), "--c is missing");
    assert_eq!(found("| `A_B` | `8` | | x |\n| `--c` | none | |\n"), "A_B has the default `7`, not `8`");
    assert_eq!(found("| `A_B` | `7` | |\n| `--c` | none | |\n| `D` | none | |\n"), "D is no setting");
}

/// Names of metrics in the code of the programs, tests left out.
fn metrics_in_code() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for path in files(&root().join("src"), &["rs"]) {
        let text = fs::read_to_string(&path).expect("source");
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        let quoted =
            code.split('"').filter(|word| word.starts_with("pipeline_") || word.starts_with("process_"));
        names.extend(quoted.filter(|name| name.bytes().all(is_name)).map(str::to_owned));
    }
    names
}

fn is_name(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_'
}

#[test]
fn every_metric_stands_in_the_readme() {
    let readme = read("README.md");
    let told: BTreeSet<String> = rows(section(&readme, "## Metrics"))
        .filter_map(|row| quoted(row[0]).map(|name| name.split('{').next().unwrap_or(name).to_owned()))
        .collect();
    let known = metrics_in_code();
    assert!(known.len() > 30, "{known:?}");
    let missing: Vec<_> = known.difference(&told).collect();
    let invented: Vec<_> = told.difference(&known).collect();
    assert!(missing.is_empty() && invented.is_empty(), "README.md lacks {missing:?}, invents {invented:?}");
}

#[test]
fn every_status_stands_in_both_tables() {
    let code = read("src/producer/metrics.rs");
    let (_, list) = code.split_once("const STATUSES").expect("the statuses");
    let (list, _) = list.split_once("];").expect("their end");
    let (_, list) = list.rsplit_once('[').expect("their begin");
    let statuses: BTreeSet<&str> = list.split(',').map(str::trim).collect();
    assert!(statuses.len() > 8, "{statuses:?}");
    for (path, heading) in [("README.md", "## Answers"), ("docs/CONTRACT.md", "## Answers")] {
        let text = read(path);
        let told: BTreeSet<&str> = rows(section(&text, heading)).filter_map(|row| quoted(row[0])).collect();
        assert_eq!(told, statuses, "{path}, {heading}");
    }
}

/// `src/producer/guard.rs` is told as `guard` below the heading of `src/producer/`.
#[test]
fn every_source_file_stands_in_the_code_map() {
    let architecture = read("docs/ARCHITECTURE.md");
    let is_test = |path: &Path| path.components().any(|part| part.as_os_str() == "tests");
    let sources = files(&root().join("src"), &["rs"]);
    let sources: Vec<String> =
        sources.iter().filter(|path| !is_test(path)).map(|path| relative(path)).collect();
    let mut wrong = Vec::new();
    for source in &sources {
        let path = source.trim_end_matches(".rs");
        let (room, name) = path.rsplit_once('/').expect("below src");
        let told = section(&architecture, &format!("### `{room}/`"));
        if !rows(told).any(|row| quoted(row[0]) == Some(name)) {
            wrong.push(format!("{source} is missing below ### `{room}/`"));
        }
    }
    for heading in architecture.lines().filter(|line| line.starts_with("### `src/")) {
        let room = quoted(heading).expect("a directory");
        for row in rows(section(&architecture, heading)) {
            let file = format!("{room}{}.rs", quoted(row[0]).unwrap_or_default());
            if !sources.contains(&file) {
                wrong.push(format!("{file} does not exist"));
            }
        }
    }
    assert!(wrong.is_empty(), "docs/ARCHITECTURE.md: {}", wrong.join("; "));
}

/// A supervisor that starts a program again does so only where that can help.
#[test]
fn systemd_does_not_start_again_what_only_a_human_can_mend() {
    for (unit, codes) in
        [("producer", vec![EXIT_BAD_CONFIG]), ("consumer", vec![EXIT_BAD_CONFIG, EXIT_UNDECIDED])]
    {
        let text = read(&format!("docs/systemd/event-{unit}.service"));
        let line = text.lines().find_map(|line| line.strip_prefix("RestartPreventExitStatus="));
        let told: Vec<u8> =
            line.expect("the line").split(' ').map(|code| code.parse().expect("a code")).collect();
        assert_eq!(told, codes, "{unit}");
    }
    let contract = read("docs/CONTRACT.md");
    let table = section(&contract, "## Exit codes");
    for code in [0, 1, EXIT_BAD_CONFIG, EXIT_UNDECIDED, EXIT_LEAK_BUDGET] {
        assert!(table.contains(&format!("\n| {code} |")), "docs/CONTRACT.md lacks exit code {code}");
    }
}

#[test]
fn links_lead_somewhere() {
    for document in DOCUMENTS {
        let text = read(document);
        let dir = root().join(document);
        let dir = dir.parent().expect("a directory");
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let target = link.split('#').next().unwrap_or_default();
            let is_here = !link.contains("://") && !target.is_empty();
            assert!(!is_here || dir.join(target).exists(), "{document}: {link} leads nowhere");
        }
    }
}
