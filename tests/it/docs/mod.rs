//! Compares the documentation with the program: settings, metrics, statuses, exit codes, files and links.

use std::collections::BTreeSet;
use std::fs;

use clap::CommandFactory;
use event_pipeline::config::{ConsumerConfig, EXIT_BAD_CONFIG, LiveConfig, ProducerConfig};
use event_pipeline::consumer::EXIT_UNDECIDED;
use event_pipeline::producer::{self, EXIT_LEAK_BUDGET};

use crate::tidy::{files, relative, root};

mod containers;
mod generated;
mod kubernetes;
mod manual;
mod openapi;
mod prose;

pub use openapi::PACKAGES;

const DOCUMENTS: [&str; 20] = [
    "README.md",
    "CHANGELOG.md",
    "docs/ARCHITECTURE.md",
    "docs/BENCHMARKS-HTTP.md",
    "docs/CONTRACT.md",
    "docs/DOCKER.md",
    "docs/INSTALL.md",
    "docs/KAFKA.md",
    "docs/LIVE.md",
    "docs/METRICS.md",
    "docs/MONITORING.md",
    "docs/OPERATION.md",
    "docs/SCALING.md",
    "docs/SECURITY.md",
    "docs/SETTINGS.md",
    "docs/STORAGE.md",
    "docs/STYLE.md",
    "docs/TINY_HTTP.md",
    "docs/TROUBLESHOOTING.md",
    "docs/kubernetes/README.md",
];

pub fn read(path: &str) -> String {
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

/// docs/SETTINGS.md says that a flag is the environment name in lower case with dashes.
#[test]
fn a_flag_is_its_environment_name() {
    for command in [ProducerConfig::command(), ConsumerConfig::command(), LiveConfig::command()] {
        for arg in command.get_arguments().filter(|arg| arg.get_env().is_some()) {
            let env = arg.get_env().expect("filtered").to_string_lossy().to_lowercase();
            assert_eq!(arg.get_long(), Some(&*env.replace('_', "-")));
        }
    }
}

#[test]
fn every_answer_is_in_the_contract() {
    let contract = read("docs/CONTRACT.md");
    let rows: Vec<Vec<&str>> = rows(section(&contract, "## Answers")).collect();
    let described: BTreeSet<u16> =
        rows.iter().filter_map(|row| quoted(row[0])).map(|code| code.parse().expect("a status")).collect();
    assert_eq!(described, BTreeSet::from_iter(producer::statuses()), "docs/CONTRACT.md, Answers");
    let mut errors = BTreeSet::new();
    for row in rows.iter().filter(|row| !row[1].contains("`status: ")) {
        let is_retried = row.last().is_some_and(|advice| advice.contains("retry"));
        let code = quoted(row[0]).and_then(|code| code.parse::<u16>().ok()).expect("a status");
        errors.extend(row[1].split('`').skip(1).step_by(2).map(|tag| (code, tag, is_retried)));
    }
    assert_eq!(errors, BTreeSet::from_iter(producer::error_answers()), "docs/CONTRACT.md, Answers");
}

/// A room is a directory of `src/`; a file named as the place to start with exists.
#[test]
fn every_room_is_described() {
    let architecture = read("docs/ARCHITECTURE.md");
    let sources: BTreeSet<String> =
        files(&root().join("src"), &["rs"]).iter().map(|path| relative(path)).collect();
    let is_test = |room: &&str| room.split('/').any(|part| part == "tests");
    let directories = sources.iter().filter_map(|path| Some(&path[..=path.rfind('/')?]));
    let rooms: BTreeSet<&str> = directories.filter(|room| !is_test(room)).collect();
    let rows: Vec<Vec<&str>> = rows(section(&architecture, "## Rooms")).collect();
    let described: BTreeSet<&str> = rows.iter().filter_map(|row| quoted(row[0])).collect();
    assert_eq!(described, rooms, "docs/ARCHITECTURE.md, Rooms");
    for row in &rows {
        for file in row[2].split('`').skip(1).step_by(2) {
            let path = format!("{}{file}.rs", quoted(row[0]).unwrap_or_default());
            assert!(sources.contains(&path), "docs/ARCHITECTURE.md: {path} does not exist");
        }
    }
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
    assert!(read("docs/systemd/event-producer.service").contains("\nEnvironment=HTTP_SERVER=edge\n"));
    let contract = read("docs/CONTRACT.md");
    let table = section(&contract, "## Exit codes");
    for code in [0, 1, EXIT_BAD_CONFIG, EXIT_UNDECIDED, EXIT_LEAK_BUDGET] {
        assert!(table.contains(&format!("\n| {code} |")), "docs/CONTRACT.md lacks exit code {code}");
    }
}

/// What GitHub calls the headings of a page in links to them.
fn anchors(page: &str) -> Vec<String> {
    let headings = page.lines().filter(|line| line.starts_with('#'));
    let kept = |c: &char| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_');
    headings
        .map(|line| line.trim_start_matches('#').trim().to_lowercase().chars().filter(kept).collect())
        .map(|text: String| text.replace(' ', "-"))
        .collect()
}

#[test]
fn links_lead_somewhere() {
    for document in DOCUMENTS {
        let text = read(document);
        let dir = root().join(document);
        let dir = dir.parent().expect("a directory");
        let links = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        for link in links.filter(|link| !link.contains("://")) {
            let (target, anchor) = link.split_once('#').unwrap_or((link, ""));
            let path = if target.is_empty() { root().join(document) } else { dir.join(target) };
            assert!(path.exists(), "{document}: {link} leads nowhere");
            let page = || fs::read_to_string(&path).expect("a page");
            assert!(anchor.is_empty() || anchors(&page()).iter().any(|a| a == anchor), "{document}: {link}");
        }
    }
}
