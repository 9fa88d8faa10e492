//! The page in Chromium: its numbers move and are those of the programs, and it recovers by itself.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::consumer;
use crate::live::{Live, serve};
use crate::producer;
use crate::support::http;
use crate::support::kafka::shared;
use crate::support::process::Program;
use crate::support::wait::{eventually, secs};

/// A page in Chromium, driven by `scripts/browser.js`; ended when dropped.
struct Browser {
    node: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
}

impl Browser {
    fn open(live: &Live) -> Self {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/browser.js");
        let mut node = Command::new("node");
        node.arg(script).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut node = node.spawn().expect("node starts; scripts/test.sh installs it");
        let stdin = node.stdin.take();
        let stdout = BufReader::new(node.stdout.take().expect("piped"));
        let mut browser = Self { node, stdin, stdout };
        browser.run("size 1440 900");
        browser.run(&format!("open http://{}/", live.host()));
        browser
    }

    /// Runs one line of the script's language; the page must not have reported anything.
    #[track_caller]
    fn run(&mut self, line: &str) -> Value {
        let stdin = self.stdin.as_mut().expect("open");
        writeln!(stdin, "{line}").and_then(|()| stdin.flush()).expect("the script runs");
        let mut answer = String::new();
        self.stdout.read_line(&mut answer).expect("an answer");
        let answer: Value =
            serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{error}: {answer:?}"));
        assert_eq!(answer["error"], Value::Null, "{line}: {answer}");
        // That the page cannot reach the program while it is gone is what a test may want.
        let unexpected =
            |problem: &&Value| !problem.as_str().is_some_and(|text| text.contains("ERR_CONNECTION"));
        let problems: Vec<&Value> =
            answer["problems"].as_array().into_iter().flatten().filter(unexpected).collect();
        assert!(problems.is_empty(), "{line}: {problems:?}");
        answer["value"].clone()
    }

    /// Text of the element with this id.
    #[track_caller]
    fn text(&mut self, id: &str) -> String {
        let value = self.run(&format!("document.getElementById({id:?}).textContent"));
        value.as_str().expect("text").to_owned()
    }

    /// A count as the page writes it.
    #[track_caller]
    fn count(&mut self, id: &str) -> Option<f64> {
        self.text(id).replace(',', "").parse().ok()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // The script ends Chromium when its stdin ends.
        self.stdin = None;
        let _ = self.node.wait();
    }
}

#[test]
fn the_page_shows_the_figures_of_the_programs_while_they_change() {
    let topic = shared().topic();
    let served = producer::serve(&topic, &[]);
    let dir = tempfile::tempdir().expect("a directory");
    let mut logging = consumer::program(&topic, dir.path(), &[]).start();
    consumer::wait_ready(&mut logging);
    let (producers, consumers) = (served.address.to_string(), logging.address().to_string());
    let brokers = topic.brokers();
    let live = serve(&[
        ("LIVE_PRODUCERS", &*producers),
        ("LIVE_CONSUMERS", &*consumers),
        ("LIVE_EVENTS", "on"),
        ("KAFKA_BROKERS", &*brokers),
        ("KAFKA_TOPIC", &*topic.name),
    ]);
    let mut browser = Browser::open(&live);
    eventually(secs(120), "the page says that all is well", || {
        browser.text("words").starts_with("All is well")
    });
    let url = format!("http://{}/register_event", served.address);
    let arguments = ["--url", &url, "--rate", "200", "--duration", "8s", "--threads", "4"];
    let mut history = vec![(Instant::now(), 0.0)];
    let mut load = Program::simulate().args(&arguments).start();
    let (mut ages, mut seen) = (Vec::new(), Vec::new());
    while load.is_alive() {
        history.push((Instant::now(), served.metric("pipeline_events_received_total")));
        let shown = browser.count("received-total").unwrap_or_default();
        let after = served.metric("pipeline_events_received_total");
        assert!(shown <= after, "the page is ahead: {shown} of {after}");
        let past = history.iter().rfind(|(_, received)| *received <= shown).expect("the first is 0");
        ages.push(past.0.elapsed());
        if seen.last() != Some(&shown) {
            seen.push(shown);
        }
        thread::sleep(Duration::from_millis(100));
    }
    // The figures are asked for once a second, so most are younger than that. On a busy machine some are not.
    ages.sort_unstable();
    assert!(ages[ages.len() / 4] < secs(1), "figures of the page are late: {ages:?}");
    assert!(seen.len() >= 4, "the figures move: {seen:?}");
    served.post("not JSON");
    let received = served.metric("pipeline_events_received_total");
    let logged = served.metric("pipeline_events_acknowledged_total");
    eventually(secs(60), "the page has the totals", || {
        browser.count("received-total") == Some(received)
            && browser.count("acknowledged-total") == Some(logged)
            && browser.count("logged-total") == Some(logged)
    });
    assert_eq!(consumer::metric(&mut logging, "pipeline_log_events_total"), logged);
    assert!(browser.text("refused").contains("not json"), "{}", browser.text("refused"));
    assert!(browser.text("program-list").contains("ready"));
    let lines = browser.run("document.querySelectorAll('.line.received')[0].getAttribute('d').length");
    assert!(lines.as_u64().is_some_and(|length| length > 10), "a chart is drawn: {lines}");
    let events = browser.run("document.querySelectorAll('#event-list li').length").as_u64();
    assert!(events.is_some_and(|count| count > 0 && count <= 200), "{events:?}");
}

#[test]
fn foreign_text_is_text_and_keyboard_and_filter_work() {
    let topic = shared().topic();
    let brokers = topic.brokers();
    let live = serve(&[("LIVE_EVENTS", "on"), ("KAFKA_BROKERS", &*brokers), ("KAFKA_TOPIC", &*topic.name)]);
    let mut browser = Browser::open(&live);
    let attack = "{\"event\": \"<img src=x onerror=document.title='hacked'>\"}\n";
    eventually(secs(120), "the event is on the page", || {
        topic.kcat(&["-P"], attack.as_bytes());
        topic.kcat(&["-P"], b"{\"event\": \"harmless\"}\n");
        thread::sleep(secs(1));
        let text = browser.text("event-list");
        text.contains("<img src=x") && text.contains("harmless")
    });
    assert_eq!(browser.run("document.querySelectorAll('#event-list img').length"), 0);
    assert!(browser.run("document.title").as_str().is_some_and(|title| title.contains("event-pipeline")));
    browser.run("document.dispatchEvent(new KeyboardEvent('keydown', {key: '/'}))");
    assert_eq!(browser.run("document.activeElement.id"), "filter");
    browser.run("(() => { const f = document.activeElement; f.value = 'HARMLESS'; f.dispatchEvent(new Event('input')); })()");
    let visible = "[...document.querySelectorAll('#event-list li:not([hidden])')]";
    let all = browser.run(&format!("{visible}.every(item => item.textContent.includes('harmless'))"));
    assert_eq!(all, true);
    browser.run("document.getElementById('pause').click()");
    let count = browser.run("document.querySelectorAll('#event-list li').length");
    topic.kcat(&["-P"], b"{\"event\": \"harmless\"}\n");
    eventually(secs(60), "the pause is counted", || {
        let note = browser.text("events-note");
        note.starts_with("paused; ") && !note.starts_with("paused; 0")
    });
    assert_eq!(browser.run("document.querySelectorAll('#event-list li').length"), count);
}

#[test]
fn the_page_says_that_it_is_old_and_comes_back_by_itself() {
    let mut live = serve(&[]);
    let mut browser = Browser::open(&live);
    eventually(secs(120), "the page is live", || browser.text("age") == "live");
    let address = live.address.to_string();
    live.program.kill();
    eventually(secs(60), "the page says that it is old", || {
        browser.text("age").starts_with("no data for") && browser.text("words").contains("old")
    });
    let again = Program::live().env("LIVE_ADDR", &address).env("LIVE_EVENTS", "off").start();
    eventually(secs(60), "it listens again", || http::get(live.address, "/livez").is_ok());
    eventually(secs(120), "the page is live again", || browser.text("age") == "live");
    drop(again);
}
