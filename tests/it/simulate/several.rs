//! Several URLs and several logs: where requests go, and what the audit finds across all logs.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use serde_json::json;

use super::double::{Double, Log, Reply, log_line, seq_of};
use super::{expect, simulate, simulate_json};

/// How often each event arrived at each of several servers.
type Arrivals = Arc<Mutex<HashMap<u64, Vec<usize>>>>;

/// The sequence number of the event, and how often it had arrived anywhere before.
fn arrive(arrivals: &Arrivals, server: usize, event: &[u8]) -> (u64, usize) {
    let mut arrivals = arrivals.lock().expect("arrivals");
    let seq = seq_of(event);
    let earlier = arrivals.entry(seq).or_default();
    earlier.push(server);
    (seq, earlier.len() - 1)
}

fn path(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

#[test]
fn threads_are_spread_over_the_urls_and_the_audit_reads_all_logs() {
    let directory = tempfile::tempdir().expect("directory");
    // Also the names of shards: the log of one must not be taken for a rotated file of another.
    let logs: Vec<PathBuf> =
        ["events.log", "events-1.log", "events-2.log"].map(|name| directory.path().join(name)).into();
    let arrivals = Arrivals::default();
    let servers: Vec<Double> = (0..3)
        .map(|server| {
            let (log, arrivals) = (Log::create(&logs[server]), arrivals.clone());
            Double::start(move |event| {
                arrive(&arrivals, server, event);
                log.append(event)
            })
        })
        .collect();
    let urls: Vec<String> = servers.iter().map(Double::url).collect();
    let mut arguments = vec!["-n", "300", "-t", "9", "--rate", "2000", "--url", &urls[0], "--url"];
    let others = urls[1..].join(",");
    arguments.push(&others);
    logs.iter().for_each(|log| arguments.extend(["--verify", path(log)]));
    let (code, report) = simulate_json(&arguments);
    assert_eq!(code, 0, "{report:#}");
    let whole = json!({ "logged": 300, "lost": 0, "duplicated": 0, "outOfOrder": 0, "foreign": 0 });
    expect(&report["audit"], whole);
    let connections: Vec<usize> = servers.iter().map(Double::connections).collect();
    assert_eq!(connections, [3, 3, 3], "nine threads over three URLs");
    assert_eq!(arrivals.lock().expect("arrivals").len(), 300);
}

#[test]
fn an_event_in_two_logs_is_duplicated_and_one_in_none_is_lost() {
    let directory = tempfile::tempdir().expect("directory");
    let logs = ["events-0.log", "events-1.log"].map(|name| directory.path().join(name));
    let (one, other) = (Log::create(&logs[0]), Log::create(&logs[1]));
    let double = Double::start(move |event| match seq_of(event) {
        7 => {
            one.append_raw(log_line(event).as_bytes());
            other.append(event)
        }
        8 => other.receipt(),
        seq if seq % 2 == 0 => one.append(event),
        _ => other.append(event),
    });
    let url = double.url();
    let mut arguments = vec!["--url", &url, "-n", "100", "-t", "1", "--verify-timeout", "1s"];
    logs.iter().for_each(|log| arguments.extend(["--verify", path(log)]));
    let (code, report) = simulate_json(&arguments);
    assert_eq!(code, 1, "{report:#}");
    let found = json!({ "logged": 99, "lost": 1, "lostSeqs": [8], "duplicated": 1, "duplicatedSeqs": [7] });
    expect(&report["audit"], found);
}

/// As behind a load balancer: a server that cannot serve costs an attempt, and the repeat goes elsewhere.
#[test]
fn a_repeat_goes_to_the_next_url_and_without_retry_nothing_is_sent_twice() {
    let directory = tempfile::tempdir().expect("directory");
    let log = directory.path().join("events.log");
    let (writer, arrivals) = (Log::create(&log), Arrivals::default());
    let servers: Vec<Double> = (0..3)
        .map(|server| {
            let (log, arrivals) = (writer.clone(), arrivals.clone());
            Double::start(move |event| match (server, arrive(&arrivals, server, event)) {
                (0, _) => Reply::Close,
                (1, _) => Reply::Answer(503, "Retry-After: 0\r\n", r#"{"retryable":true}"#.into()),
                _ => log.append(event),
            })
        })
        .collect();
    let urls = servers.iter().map(Double::url).collect::<Vec<_>>().join(",");
    let run = |arguments: &[&str]| {
        let common = ["--url", &urls, "-n", "60", "-t", "6", "--rate", "300", "--verify", path(&log)];
        simulate_json(&[&common[..], arguments].concat())
    };
    let (code, report) = run(&["--retry"]);
    assert_eq!(code, 0, "{report:#}");
    expect(&report["events"], json!({ "acknowledged": 60, "failed": 0 }));
    expect(&report["audit"], json!({ "logged": 60, "lost": 0, "duplicated": 0 }));
    let seen = std::mem::take(&mut *arrivals.lock().expect("arrivals"));
    for (seq, servers) in &seen {
        let expected: &[&[usize]] = &[&[0, 1, 2], &[1, 2], &[2]];
        assert!(expected.contains(&&servers[..]), "{seq}: {servers:?}");
    }
    // Each thread met each server that fails at most once.
    let failed: usize = seen.values().map(|servers| servers.len() - 1).sum();
    assert!((1..=6).contains(&failed), "{failed} attempts failed");

    let (code, report) = run(&["--max-error-rate", "0.2"]);
    assert_eq!(code, 0, "{report:#}");
    assert!(arrivals.lock().expect("arrivals").values().all(|servers| servers.len() == 1));
    expect(&report["requests"], json!({ "attempts": 60, "repeated": 0 }));
    assert_eq!(
        report["events"]["failed"], 6,
        "two threads began at each server, and the first goes on: {report:#}"
    );
}

#[test]
fn a_log_that_is_named_twice_is_refused() {
    for logs in [["logs/events.log"; 2], ["logs/events.log", "logs/events-20261124T081546032Z-000.log"]] {
        let refused = simulate(&["--url", "http://127.0.0.1:9/x", "--verify", logs[0], "--verify", logs[1]]);
        assert_eq!(refused.status.code(), Some(2), "{refused:?}");
        assert!(refused.stderr.contains("have the same events"), "{refused:?}");
    }
}
