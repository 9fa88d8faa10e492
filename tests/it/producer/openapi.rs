//! Schemathesis, an independent program, makes requests from docs/openapi.yaml and checks the real answers against it.

use crate::docs::PACKAGES;
use crate::producer::access::{KeyFile, SERVERS};
use crate::producer::{Served, serve};
use crate::support::kafka::shared;
use crate::support::process::Program;
use crate::support::wait::secs;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Fewer requests than this mean that something kept it from asking.
const FEWEST_CASES: usize = 150;

/// The settings under which every described answer can be had.
const SETTINGS: [(&str, &str); 3] =
    [("EVENT_ID_FIELD", "event_id"), ("CORS_ALLOW_ORIGINS", "https://shop.example"), ("EVENT_ECHO", "off")];

/// Asks `served` and requires that every answer is one of those described, and none a 500.
#[expect(clippy::print_stdout, reason = "the number of cases is the result")]
fn check(served: &Served, what: &str, arguments: &[&str]) {
    let script = format!("{PACKAGES}/bin/schemathesis");
    let settings = format!("{ROOT}/tests/tools/schemathesis.toml");
    let (description, url) = (format!("{ROOT}/docs/openapi.yaml"), format!("http://{}", served.address));
    let own = [&script, "--config-file", &settings, "run", &description, "--url", &url, "--no-color"];
    let program = Program::new("schemathesis", "/usr/bin/env").args(&["python3"]).args(&own).args(arguments);
    let program = program.env("PYTHONPATH", format!("{PACKAGES}:{ROOT}/tests/tools"));
    let end = program.env("PYTHONDONTWRITEBYTECODE", "1").run(secs(180));
    assert!(end.status.success(), "{what}: {}{}", end.stdout, end.stderr);
    let line = end.stdout.lines().find(|line| line.contains(" generated, ")).unwrap_or(&end.stdout).trim();
    let cases = line.split(' ').next().and_then(|count| count.parse::<usize>().ok()).expect(line);
    assert!(cases >= FEWEST_CASES && line == format!("{cases} generated, {cases} passed"), "{what}: {line}");
    println!("{what}: {line}");
}

#[test]
fn every_answer_is_as_described() {
    for server in SERVERS {
        let topic = shared().topic();
        let served = serve(&topic, &[&SETTINGS[..], &[("HTTP_SERVER", server)]].concat());
        check(&served, server, &[]);
        assert!(topic.count() > 20, "{server}: only {} events were accepted", topic.count());
    }
}

#[test]
fn so_is_every_answer_where_keys_are_needed() {
    for server in SERVERS {
        let topic = shared().topic();
        let mut file = KeyFile::new();
        let header = format!("X-Api-Key: {}", file.add("shop", "secret", ""));
        let served = file.serve(&topic, server, &SETTINGS);
        check(&served, &format!("{server}, without a key"), &["--max-examples", "10"]);
        assert_eq!(topic.count(), 0, "{server}");
        check(&served, &format!("{server}, with a key"), &["--max-examples", "10", "--header", &header]);
        assert!(topic.count() > 20, "{server}: only {} events were accepted", topic.count());
    }
}
