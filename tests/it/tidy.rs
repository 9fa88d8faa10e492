//! The rules of the code map, held by a test: who may name what, how long things may be, what must be absent.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const FILE_MAX_LINES: usize = 400;
/// Of these, unit tests not counted, unless the first lines of the file say why it is longer.
const CODE_MAX_LINES: usize = 300;
const FUNCTION_MAX_LINES: usize = 70;
const BIN_MAX_LINES: usize = 40;

/// A package, and the only rooms of `src/` that may name it.
const PACKAGE_ROOMS: [(&str, &[&str]); 9] = [
    ("kafka", &["src/broker"]),
    ("tiny_http", &["src/producer/tiny_http"]),
    ("ureq", &["src/simulate", "src/live", "src/consumer/s3"]),
    ("tungstenite", &["src/live"]),
    ("rusty_s3", &["src/consumer/s3"]),
    ("rustls", &["src/transport"]),
    ("ring", &["src/broker/secure"]),
    ("parquet", &["src/consumer/lake", "src/simulate"]),
    ("postgres_protocol", &["src/consumer/postgres"]),
];

/// Rooms that never import each other.
const PROGRAMS: [&str; 4] = ["producer", "consumer", "simulate", "live"];

/// Modules without threads, I/O or clock, as a file or a directory.
const PURE: [&str; 15] = [
    "src/event",
    "src/retry",
    "src/producer/batch",
    "src/producer/routes",
    "src/producer/grouping",
    "src/producer/head",
    "src/producer/edge/connection",
    "src/live/buckets",
    "src/live/exposition",
    "src/live/history",
    "src/live/reading",
    "src/live/rules",
    "src/live/sample",
    "src/live/view",
    "src/live/watched",
];
const IMPURE_WORDS: [&str; 6] =
    ["std::thread", "std::net", "std::fs", "Instant::now", "SystemTime::now", "thread::spawn"];

const ASYNC_RUNTIMES: [&str; 9] = [
    "tokio",
    "async-std",
    "smol",
    "mio",
    "async-io",
    "async-executor",
    "futures-executor",
    "glommio",
    "monoio",
];

/// Packages that only features bring which are off by default.
const OFF_BY_DEFAULT: [&str; 4] = ["parquet", "postgres-protocol", "rustls", "rusty-s3"];

/// What the task gave; every other package needs a reason.
const GIVEN_PACKAGES: [&str; 9] =
    ["tiny_http", "kafka", "serde", "serde_json", "log", "simplelog", "ureq", "crossbeam", "time"];

/// Split, so that this file does not break its own rule.
const UNFINISHED: [&str; 4] =
    [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("todo", "!("), concat!("unimplemented", "!(")];

/// What is wrong with one source file; `path` is relative to the project.
fn violations(path: &str, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let lines = text.lines().count();
    let limit = if path.starts_with("src/bin/") { BIN_MAX_LINES } else { FILE_MAX_LINES };
    if lines > limit {
        found.push(format!("{path}: {lines} lines, at most {limit}"));
    }
    let code_lines = text.lines().take_while(|line| *line != "#[cfg(test)]").count();
    let says_why = text
        .lines()
        .take_while(|line| line.starts_with("//!"))
        .any(|line| line.contains("Longer than most files"));
    let is_test = path.contains("/tests/");
    if path.starts_with("src/") && !is_test && code_lines > CODE_MAX_LINES && !says_why {
        found.push(format!("{path}: {code_lines} lines of code, at most {CODE_MAX_LINES} without a reason"));
    }
    if !text.starts_with("//!") {
        found.push(format!("{path}: does not open with what it is for (`//!`)"));
    }
    for (name, lines) in functions(text).filter(|(_, lines)| *lines > FUNCTION_MAX_LINES) {
        found.push(format!("{path}: {name} has {lines} lines, at most {FUNCTION_MAX_LINES}"));
    }
    for word in UNFINISHED.iter().filter(|word| text.contains(*word)) {
        found.push(format!("{path}: {word}"));
    }
    if path.starts_with("src/") {
        found.extend(import_violations(path, &code(text)));
    }
    found
}

fn import_violations(path: &str, code: &str) -> Vec<String> {
    let mut found = Vec::new();
    let in_room = |room: &str| path == format!("{room}.rs") || path.starts_with(&format!("{room}/"));
    for (package, rooms) in PACKAGE_ROOMS {
        // A module of ours may have the package's name.
        let is_ours = code.contains(&format!("mod {package};"));
        if !rooms.iter().any(|room| in_room(room)) && !is_ours && names_package(code, package) {
            found.push(format!("{path}: names the package {package}, which only {rooms:?} may"));
        }
    }
    for program in PROGRAMS.iter().filter(|program| in_room(&format!("src/{program}"))) {
        for other in PROGRAMS.iter().filter(|other| *other != program) {
            if code.contains(&format!("crate::{other}")) {
                found.push(format!("{path}: {program} imports {other}"));
            }
        }
    }
    if PURE.iter().any(|room| in_room(room)) {
        let production = code.split("#[cfg(test)]").next().unwrap_or_default();
        for word in IMPURE_WORDS.iter().filter(|word| production.contains(*word)) {
            found.push(format!("{path}: is pure, yet names {word}"));
        }
    }
    found
}

/// The text without comment lines, which may name anything.
fn code(text: &str) -> String {
    text.lines().filter(|line| !line.trim_start().starts_with("//")).map(|line| format!("{line}\n")).collect()
}

/// True for a path that starts with `package`, as in `package::Item`, and for `use package`.
fn names_package(code: &str, package: &str) -> bool {
    let as_path = format!("{package}::");
    let starts_a_path = code.match_indices(&as_path).any(|(at, _)| {
        let before = code[..at].chars().next_back().unwrap_or(' ');
        // In `crate::config::kafka::X` the name is ours; in `::kafka::X` it is the package.
        let is_inner =
            before == ':' && !code[..at].trim_end_matches(':').ends_with([' ', '(', '<', '&', '{']);
        !before.is_alphanumeric() && before != '_' && !is_inner
    });
    starts_a_path || code.contains(&format!("use {package};")) || code.contains(&format!("use {package} as "))
}

/// Name and length in lines of each function of formatted source: it ends at the brace below its `fn`.
fn functions(text: &str) -> impl Iterator<Item = (String, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let indent_of = |line: &str| line.len() - line.trim_start().len();
    let starts: Vec<(usize, String)> = (lines.iter().enumerate())
        .filter_map(|(at, line)| {
            let (qualifiers, rest) = line.split_once("fn ")?;
            let name = rest.split('(').next()?;
            let is_item = qualifiers.trim().split(' ').all(|word| {
                matches!(word, "" | "pub" | "const" | "unsafe" | "extern" | "\"C\"")
                    || word.starts_with("pub")
            });
            is_item.then(|| (at, name.to_owned()))
        })
        .collect();
    starts.into_iter().map(move |(start, name)| {
        let indent = indent_of(lines[start]);
        let end = (start..lines.len())
            .find(|at| indent_of(lines[*at]) == indent && matches!(lines[*at].trim(), "}" | "};"))
            .filter(|_| !lines[start].ends_with([';', '}']));
        (name, end.map_or(1, |end| end - start + 1))
    })
}

/// Packages of a `Cargo.lock` that bring an async runtime.
fn async_runtimes(lock: &str) -> Vec<&str> {
    let names = lock.lines().filter_map(|line| line.strip_prefix("name = \"")?.strip_suffix('"'));
    names.filter(|name| ASYNC_RUNTIMES.contains(name)).collect()
}

/// Packages that `manifest` names as dependencies without a reason right above them.
fn without_reason(manifest: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let (mut is_dependency, mut line_above) = (false, "");
    for line in manifest.lines() {
        if let Some(table) = line.strip_prefix('[') {
            is_dependency = table.trim_end_matches(']').ends_with("dependencies");
        } else if let Some((package, _)) = line.split_once(" = ").filter(|_| is_dependency)
            && !line.starts_with('#')
            && !line_above.starts_with('#')
            && !GIVEN_PACKAGES.contains(&package)
        {
            found.push(package);
        }
        line_above = line;
    }
    found
}

/// Packages that a build with `features` compiles, as deep as `depth` says, without our own.
fn packages(features: &[&str], depth: &str) -> BTreeSet<String> {
    let output = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["tree", "--locked", "--edges", "normal,build", "--prefix", "none", "--depth", depth])
        .args(features)
        .current_dir(root())
        .output()
        .expect("cargo runs");
    let (tree, said) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "cargo tree: {said}");
    tree.lines().skip(1).filter_map(|line| line.split(' ').next().map(str::to_owned)).collect()
}

/// The project's directory.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Files below `dir` with one of `extensions`.
pub fn files(dir: &Path, extensions: &[&str]) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let paths = entries.map(|entry| entry.expect("directory entry").path());
    paths
        .flat_map(|path| match path.extension().and_then(|extension| extension.to_str()) {
            _ if path.is_dir() => files(&path, extensions),
            Some(extension) if extensions.contains(&extension) => vec![path],
            _ => Vec::new(),
        })
        .collect()
}

/// `path` as seen from the project's directory.
pub fn relative(path: &Path) -> String {
    path.strip_prefix(root()).expect("below the project").to_string_lossy().into_owned()
}

#[test]
fn every_source_file_keeps_the_rules() {
    let sources: Vec<PathBuf> =
        ["src", "tests", "benches"].iter().flat_map(|dir| files(&root().join(dir), &["rs"])).collect();
    assert!(sources.len() > 30, "found only {sources:?}");
    let found: Vec<String> = sources
        .iter()
        .flat_map(|path| violations(&relative(path), &fs::read_to_string(path).expect("source")))
        .collect();
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn scripts_are_finished() {
    let scripts = files(&root().join("scripts"), &["sh"]);
    assert!(!scripts.is_empty());
    for path in scripts {
        let text = fs::read_to_string(&path).expect("script");
        let word = UNFINISHED[..2].iter().find(|word| text.contains(*word));
        assert_eq!(word, None, "{}", relative(&path));
        let is_strict =
            text.contains("set -euo pipefail") || text.contains("source \"$root/scripts/lib.sh\"");
        assert!(is_strict, "{}", relative(&path));
    }
}

#[test]
fn no_async_runtime_is_in_the_tree() {
    let lock = fs::read_to_string(root().join("Cargo.lock")).expect("Cargo.lock");
    assert!(lock.contains("name = \"tiny_http\""));
    assert_eq!(async_runtimes(&lock), [""; 0]);
}

#[test]
fn every_package_is_given_or_has_a_reason() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).expect("Cargo.toml");
    assert_eq!(without_reason(&manifest), [""; 0], "each needs a reason in the line above");
}

#[test]
fn builds_have_the_packages_of_the_manifest_and_no_async_runtime() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).expect("Cargo.toml");
    let (_, table) = manifest.split_once("[dependencies]\n").expect("dependencies");
    let table = table.split("\n[").next().unwrap_or_default();
    let named = |is_wanted: fn(&str) -> bool| -> BTreeSet<String> {
        let lines = table.lines().filter(|line| !line.starts_with('#') && is_wanted(line));
        lines.filter_map(|line| Some(line.split_once(" = ")?.0.to_owned())).collect()
    };
    assert_eq!(packages(&["--no-default-features"], "1"), named(|line| !line.contains("optional = true")));
    assert_eq!(packages(&["--all-features"], "1"), named(|_| true));
    for features in [&["--no-default-features"][..], &[], &["--all-features"]] {
        let all = packages(features, "99");
        assert!(all.len() > 30, "{all:?}");
        let found: Vec<_> = ASYNC_RUNTIMES.iter().filter(|name| all.contains(**name)).collect();
        assert!(found.is_empty(), "{features:?}: {found:?}");
        let is_whole = features.contains(&"--all-features");
        assert!(OFF_BY_DEFAULT.iter().all(|name| all.contains(*name) == is_whole), "{features:?}");
    }
}

/// Each rule, broken once.
#[test]
fn a_broken_rule_is_found() {
    let broken = |path: &str, text: &str, expected: &str| {
        let found = violations(path, text);
        assert!(found.len() == 1 && found[0].contains(expected), "{expected}: {found:?}");
    };
    let long = |lines: usize| "//! x\n".repeat(lines);
    broken("tests/a.rs", &long(401), "401 lines, at most 400");
    broken("src/a.rs", &long(301), "301 lines of code, at most 300");
    broken("src/bin/a.rs", &long(41), "41 lines, at most 40");
    broken("src/a.rs", "fn x() {}\n", "does not open");
    let long_function =
        |head: &str| format!("//! x\nimpl A {{\n    {head}\n{}    }}\n}}\n", "        x();\n".repeat(69));
    broken("src/a.rs", &long_function("fn long() {"), "long has 71 lines");
    broken("src/a.rs", &long_function("pub(crate) const fn long<T>() -> T {"), "long<T> has 71 lines");
    broken("tests/it/a.rs", &format!("//! x\n// {}\n", UNFINISHED[0]), UNFINISHED[0]);
    broken("src/event/a.rs", "//! x\nuse kafka::client::KafkaClient;\n", "package kafka");
    broken("src/brokers.rs", "//! x\nfn f(c: &::kafka::Client) {}\n", "package kafka");
    broken("src/consumer/a.rs", "//! x\nuse std::io;\nuse tiny_http as http;\n", "package tiny_http");
    broken("src/broker/a.rs", "//! x\nuse ring::hmac;\n", "package ring");
    broken("src/consumer/log/a.rs", "//! x\nuse parquet::basic::Type;\n", "package parquet");
    broken("src/bin/a.rs", "//! x\nfn main() { ureq::get(\"\") }\n", "package ureq");
    broken("src/producer/a.rs", "//! x\nuse tiny_http::Request;\n", "package tiny_http");
    broken("src/status_page.rs", "//! x\nuse tungstenite::WebSocket;\n", "package tungstenite");
    broken("src/live/a.rs", "//! x\nuse crate::producer::x;\n", "live imports producer");
    broken("src/producer/a.rs", "//! x\nuse crate::consumer::x;\n", "producer imports consumer");
    broken("src/simulate.rs", "//! x\nuse crate::producer::x;\n", "simulate imports producer");
    broken("src/retry.rs", "//! x\nuse std::net::TcpStream;\n", "names std::net");
    broken("src/event/split.rs", "//! x\nfn f() { Instant::now(); }\n", "names Instant::now");
    let manifest =
        "[dependencies]\nlog = \"0\"\n\n# Why.\na = \"1\"\nb = { version = \"1\" }\n[x]\nc = \"1\"\n";
    assert_eq!(without_reason(manifest), ["b"]);
    assert_eq!(async_runtimes("name = \"serde\"\nname = \"mio\"\nname = \"tokio-x\"\n"), ["mio"]);
}

#[test]
fn what_is_allowed_is_not_found() {
    let allowed = |path: &str, text: &str| assert_eq!(violations(path, text), [""; 0]);
    allowed("src/broker/client.rs", "//! x\nuse kafka::client::KafkaClient;\n");
    allowed("src/broker.rs", "//! x\nuse kafka::client::KafkaClient;\n");
    allowed("src/config/mod.rs", "//! x\nmod kafka;\npub use kafka::KafkaConfig;\n");
    allowed(
        "src/a.rs",
        "//! x\nuse crate::config::kafka::KafkaConfig;\n// kafka::x\nlet k = my_kafka::x();\n",
    );
    allowed("src/simulate/a.rs", "//! x\nuse crate::simulate::load;\n");
    allowed(
        "src/a.rs",
        &format!("//! x\n//! Longer than most files, because it is one table.\n{}", "x\n".repeat(390)),
    );
    allowed("src/a.rs", &format!("//! x\n#[cfg(test)]\n{}", "x\n".repeat(390)));
    allowed("src/retry.rs", "//! x\n#[cfg(test)]\nmod tests { use std::thread; }\n");
    allowed("src/a.rs", &format!("//! x\nfn short();\nfn one() {{}}\n{}}}\n", "x\n".repeat(80)));
}
