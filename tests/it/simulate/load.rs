//! Load and figures: what is sent, what is counted, which exit code.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::double::{Double, Reply, seq_of};
use super::{simulate, simulate_json};
use crate::support::process::Program;
use crate::support::wait::{eventually, secs, within};

const RECEIPT: &str = r#"{"status":"ok","topic":"events","partition":0,"offset":1}"#;

fn ok() -> Reply {
    Reply::Answer(200, "", RECEIPT.to_owned())
}

#[test]
fn a_run_prints_the_originals_lines_and_sends_each_event_once() {
    let bodies = Arc::new(Mutex::new(Vec::new()));
    let seen = bodies.clone();
    let double = Double::start(move |body| {
        seen.lock().expect("bodies").push(body.to_vec());
        ok()
    });
    let finished = simulate(&["--url", &double.url(), "-n", "500", "-t", "20"]);
    assert_eq!(finished.status.code(), Some(0), "{finished:?}");
    let lines: Vec<&str> = finished.stdout.lines().collect();
    assert_eq!(lines[0], "🚀 Sending 500 requests with 20 threads...");
    let seconds = lines[1].strip_prefix("✅ Finished in ").and_then(|rest| rest.strip_suffix(" seconds."));
    assert!(seconds.is_some_and(|seconds| seconds.parse::<f64>().is_ok()), "{}", lines[1]);
    assert_eq!(lines[2].trim(), "500 acknowledged, 0 rejected, 0 failed");
    assert!(lines[3].contains("requests/s") && lines[3].contains("p99"), "{}", lines[3]);
    assert!(finished.stdout.contains("cannot show"), "a closed loop says what it cannot show");
    let bodies = bodies.lock().expect("bodies");
    let seqs: HashSet<u64> = bodies.iter().map(|body| seq_of(body)).collect();
    assert_eq!((bodies.len(), seqs), (500, (0..500).collect()));
    assert!(double.connections() <= 20, "{} connections", double.connections());
    let text = String::from_utf8_lossy(&bodies[0]);
    assert!(text.starts_with("{\"event\": \"") && text.contains(", \"user_id\": "), "{text}");
}

/// Stalls all answers for one second in the middle of a four-second run: p90, p99 and the notes.
fn figures_of_a_stall(arguments: &[&str]) -> (f64, f64, String) {
    let begin = Mutex::new(None);
    let double = Double::start(move |_| {
        let begin = *begin.lock().expect("begin").get_or_insert_with(Instant::now);
        let (stall, end) = (begin + Duration::from_millis(1500), begin + Duration::from_millis(2500));
        let now = Instant::now();
        if now >= stall && now < end {
            thread::sleep(end - now);
        }
        ok()
    });
    let (_, report) = simulate_json(&[&["--url", &double.url(), "-z", "4s"], arguments].concat());
    let figure = |name: &str| report["latencyPercentiles"][name].as_f64().expect("a percentile");
    (figure("p90"), figure("p99"), report["notes"].to_string())
}

/// At 200 requests/s a stall of one second concerns 200 of 800 requests, though only 20 are on their way in it.
#[test]
fn an_open_loop_shows_a_stall_and_a_closed_one_says_that_it_cannot() {
    let (p90, p99, notes) = figures_of_a_stall(&["-t", "20", "--rate", "200"]);
    assert!(p90 > 0.4 && p99 > 0.8, "p90 {p90} s, p99 {p99} s");
    assert!(notes.contains("was not kept"), "20 threads cannot hold 200 waiting requests: {notes}");
    let (p90, p99, notes) = figures_of_a_stall(&["-t", "4"]);
    assert!(p90 < 0.4 && p99 < 0.8, "p90 {p90} s, p99 {p99} s");
    assert!(notes.contains("cannot show") && notes.contains("--rate"), "{notes}");
}

#[test]
fn a_rate_is_kept_and_what_began_late_is_said() {
    let double = Double::start(|_| ok());
    let begin = Instant::now();
    let (code, report) = simulate_json(&["--url", &double.url(), "-n", "100", "-t", "10", "--rate", "100"]);
    assert!(begin.elapsed() >= Duration::from_millis(950), "sent too fast: {:?}", begin.elapsed());
    assert_eq!((code, &report["schedule"]["loop"]), (0, &"open".into()), "{report:#}");
    let slow = Double::start(|_| {
        thread::sleep(Duration::from_millis(50));
        ok()
    });
    let (_, report) = simulate_json(&["--url", &slow.url(), "-n", "20", "-t", "1", "--rate", "100"]);
    assert_eq!(report["schedule"]["kept"], false);
    assert!(report["schedule"]["late"].as_u64().expect("a count") >= 18, "{report:#}");
    assert!(report["notes"][0].as_str().expect("a note").contains("more --threads"), "{report:#}");
}

/// A server that refuses for ever must not make a run of one second last for ever.
#[test]
fn a_limited_time_ends_a_run_that_is_behind_and_what_was_not_sent_is_said() {
    let double = Double::start(|_| {
        thread::sleep(Duration::from_millis(400));
        Reply::Answer(503, "Retry-After: 0\r\n", r#"{"retryable":true}"#.into())
    });
    let arguments = ["--url", &double.url(), "-z", "1s", "-t", "5", "--rate", "100", "--retry", "50"];
    let (code, report) = within(secs(10), "the run", || simulate_json(&arguments));
    let count = |value: &Value| value.as_u64().expect("a count");
    let (sent, unsent) = (count(&report["requests"]["sent"]), count(&report["schedule"]["unsent"]));
    assert_eq!((code, sent + unsent, &report["schedule"]["kept"]), (1, 100, &false.into()), "{report:#}");
    assert!(sent >= 5 && unsent >= 80, "{report:#}");
    assert_eq!(count(&report["events"]["failed"]), sent);
}

#[test]
fn thresholds_and_failures_make_the_exit_code_and_are_named() {
    let odd = |body: &[u8]| seq_of(body) % 2 == 1;
    let double = Double::start(move |body| {
        thread::sleep(Duration::from_millis(20));
        if odd(body) { Reply::Answer(400, "", r#"{"error":"odd","message":"too odd"}"#.into()) } else { ok() }
    });
    let run = |arguments: &[&str]| {
        simulate(&[&["--url", &double.url(), "-n", "40", "-t", "4"], arguments].concat())
    };
    let finished = run(&[]);
    assert_eq!(finished.status.code(), Some(1));
    assert!(finished.stdout.contains("20 acknowledged, 20 rejected, 0 failed"), "{}", finished.stdout);
    assert!(finished.stdout.contains("status 400: 20 (first: too odd)"), "{}", finished.stdout);
    assert!(finished.stderr.contains("20 of 40 events were not acknowledged"), "{}", finished.stderr);
    assert_eq!(run(&["--max-error-rate", "0.5"]).status.code(), Some(0));
    let finished = run(&["--max-error-rate", "0.4"]);
    assert_eq!(finished.status.code(), Some(1));
    assert!(finished.stderr.contains("--max-error-rate 0.4"), "{}", finished.stderr);
    let finished = run(&["--max-error-rate", "1", "--max-p99-ms", "5"]);
    assert_eq!(finished.status.code(), Some(1));
    assert!(finished.stderr.contains("--max-p99-ms 5: the 99th percentile is"), "{}", finished.stderr);
    assert_eq!(run(&["--max-error-rate", "1", "--max-p99-ms", "5000"]).status.code(), Some(0));
}

/// Refuses the first attempt of each event and takes the second.
fn refusing_once() -> Double {
    let refused = Mutex::new(HashSet::new());
    Double::start(move |body| {
        let is_new = refused.lock().expect("refused").insert(seq_of(body));
        if is_new { Reply::Answer(503, "Retry-After: 1\r\n", r#"{"retryable":true}"#.into()) } else { ok() }
    })
}

#[test]
fn a_retry_waits_as_long_as_the_server_says_and_is_counted() {
    let begin = Instant::now();
    let (code, report) = simulate_json(&["--url", &refusing_once().url(), "-n", "10", "-t", "10", "--retry"]);
    assert_eq!(code, 0, "{report:#}");
    assert!(begin.elapsed() >= Duration::from_secs(1), "{:?}", begin.elapsed());
    assert_eq!((&report["requests"]["sent"], &report["requests"]["attempts"]), (&10.into(), &20.into()));
    assert_eq!(report["statusCodeDistribution"]["503"], 10);
    let (code, report) = simulate_json(&["--url", &refusing_once().url(), "-n", "10", "-t", "10"]);
    assert_eq!(
        (code, &report["requests"]["attempts"], &report["events"]["failed"]),
        (1, &10.into(), &10.into())
    );
}

#[test]
fn a_cut_answer_is_a_failure_and_without_retry_not_sent_again() {
    let requests = Arc::new(AtomicU64::new(0));
    let counted = requests.clone();
    let double = Double::start(move |_| {
        if counted.fetch_add(1, Ordering::SeqCst).is_multiple_of(5) { Reply::Cut } else { ok() }
    });
    let (code, report) = simulate_json(&["--url", &double.url(), "-n", "50", "-t", "1"]);
    assert_eq!((code, requests.load(Ordering::SeqCst)), (1, 50), "{report:#}");
    assert_eq!((&report["events"]["failed"], &report["events"]["acknowledged"]), (&10.into(), &40.into()));
    let errors: u64 =
        report["errorDistribution"].as_object().expect("errors").values().filter_map(Value::as_u64).sum();
    assert_eq!(errors, 10, "{report:#}");
}

#[test]
fn of_a_batch_only_what_is_open_is_sent_again() {
    let bodies = Arc::new(Mutex::new(Vec::new()));
    let seen = bodies.clone();
    let double = Double::start(move |body| {
        let mut bodies = seen.lock().expect("bodies");
        bodies.push(String::from_utf8(body.to_vec()).expect("text"));
        let range = |first: i64, last: i64| {
            format!(r#""receipts":[{{"partition":0,"first_offset":{first},"last_offset":{last}}}]"#)
        };
        if bodies.len() == 1 {
            let lost = r#""unacknowledged":[{"first_index":2,"last_index":3}],"retryable":true"#;
            let body = format!(r#"{{"errors":[{{"index":0,"error":"bad"}}],{},{lost}}}"#, range(7, 8));
            return Reply::Answer(503, "Retry-After: 0\r\n", body);
        }
        Reply::Answer(200, "", format!("{{{}}}", range(20, 21)))
    });
    let arguments = ["--url", &double.url(), "-n", "1", "-t", "1", "--batch", "5", "--retry"];
    let (code, report) = simulate_json(&[&arguments[..], &["--max-error-rate", "0.2"]].concat());
    let events = &report["events"];
    assert_eq!(
        (code, &events["sent"], &events["acknowledged"], &events["rejected"]),
        (0, &5.into(), &4.into(), &1.into())
    );
    let bodies = bodies.lock().expect("bodies");
    let seqs: Vec<u64> = bodies[1].lines().map(|line| seq_of(line.as_bytes())).collect();
    assert_eq!((bodies[0].lines().count(), seqs), (5, vec![2, 3]));
}

#[test]
fn a_warm_up_is_sent_but_not_counted() {
    let requests = Arc::new(AtomicU64::new(0));
    let counted = requests.clone();
    let double = Double::start(move |_| {
        counted.fetch_add(1, Ordering::SeqCst);
        ok()
    });
    let arguments = ["--url", &double.url(), "-n", "30", "-t", "3", "--warmup", "300ms", "--rate", "100"];
    let (code, report) = simulate_json(&arguments);
    let warmup = report["warmupEvents"]["sent"].as_u64().expect("a count");
    assert_eq!((code, &report["events"]["sent"], warmup), (0, &30.into(), 30));
    assert_eq!(requests.load(Ordering::SeqCst), 60);
}

#[test]
fn a_server_that_is_not_there_is_told_and_not_hammered() {
    let address = std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    let url = format!("http://{}/", address.expect("a free port"));
    let (code, report) = simulate_json(&["--url", &url, "-z", "1s", "-t", "4"]);
    let refused = report["errorDistribution"]["connection refused"].as_u64().expect("refusals");
    assert!(code == 1 && refused > 4 && refused < 200, "{report:#}");
}

#[test]
fn a_signal_ends_the_run_with_a_report() {
    let seen = Arc::new(AtomicBool::new(false));
    let first = seen.clone();
    let double = Double::start(move |_| {
        first.store(true, Ordering::SeqCst);
        ok()
    });
    let arguments = ["--url", &double.url(), "-z", "60s", "-t", "4", "--rate", "100", "--output", "json"];
    let mut running = Program::simulate().args(&arguments).start();
    eventually(secs(60), "a request", || seen.load(Ordering::SeqCst));
    let status = running.terminate(secs(60));
    assert_eq!(status.code(), Some(1));
    assert!(running.stderr().contains("interrupted"), "{}", running.stderr());
    let report: Value = serde_json::from_str(&running.stdout()).expect("a report");
    assert_eq!(report["schedule"]["unsent"], 0, "the signal, not the load, cut the schedule: {report:#}");
}

#[test]
fn a_histogram_is_written_for_plotting() {
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path().join("latency.hgrm");
    let double = Double::start(|_| ok());
    let finished = simulate(&[
        "--url",
        &double.url(),
        "-n",
        "100",
        "-t",
        "4",
        "--histogram",
        path.to_str().expect("path"),
    ]);
    assert_eq!(finished.status.code(), Some(0), "{finished:?}");
    let text = std::fs::read_to_string(path).expect("histogram");
    let rows: Vec<Vec<f64>> = text
        .lines()
        .filter(|line| line.starts_with(' ') && !line.contains("Value"))
        .map(|line| line.split_whitespace().map(|word| word.parse().expect("a number")).collect())
        .collect();
    assert!(
        rows.len() > 5 && rows.is_sorted_by(|one, other| one[0] <= other[0] && one[2] <= other[2]),
        "{text}"
    );
    assert_eq!(rows.last().expect("rows")[2], 100.0, "{text}");
}

#[test]
fn bad_settings_are_refused_before_anything_is_sent() {
    for (arguments, expected) in [
        (&["--threads", "0"][..], "--threads"),
        (&["--url", "ftp://x"], "http://"),
        (&["--url", "http://no-such-host.invalid/"], "no-such-host.invalid"),
        (&["--audit", "record"], "--verify"),
        (&["--audit", "no-such-record", "--verify", "events.log"], "no-such-record"),
        (&["--record", "/"], "--record"),
    ] {
        let finished = simulate(arguments);
        assert_eq!(finished.status.code(), Some(2), "{arguments:?}: {finished:?}");
        assert!(finished.stderr.contains(expected), "{arguments:?}: {}", finished.stderr);
        assert!(!finished.stdout.contains("🚀"), "{arguments:?}");
    }
}

#[test]
fn a_record_that_meets_a_limit_of_file_sizes_is_said_and_does_not_kill() {
    let double = Double::start(|_| ok());
    let script = "ulimit -S -f 1; exec \"$0\" \"$@\"";
    let simulate = env!("CARGO_BIN_EXE_simulate");
    let arguments =
        ["-c", script, simulate, "--url", &double.url(), "-n", "2000", "-t", "4", "--record", "record"];
    let finished = Program::new("simulate", "/bin/sh").args(&arguments).run(secs(60));
    assert_eq!(finished.status.code(), Some(1), "{finished:?}");
    assert!(finished.stderr.contains("File too large"), "{finished:?}");
}
