//! More than it can take: refused at once, in bounded memory, and at full speed again right after.
//!
//! How fast a refusal is in milliseconds is measured by `scripts/bench.sh overload`.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::producer::{Served, at_once, serve_via};
use crate::support::control::Watch;
use crate::support::http::{self, request_bytes};
use crate::support::kafka::shared;
use crate::support::proxy::{Mode, Proxy};
use crate::support::wait::{eventually, secs};

/// How often each of the hundred clients offers ten events: ten times as many as get through, so that a machine with
/// other work still offers five times as many.
const PERIOD: Duration = Duration::from_millis(200);

/// What one client saw.
#[derive(Default)]
struct Seen {
    acknowledged: usize,
    refused: Vec<Duration>,
    other: Vec<u16>,
}

/// The time that 99 of 100 do not exceed.
fn p99(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() * 99 / 100]
}

/// The control of the load: `GET /livez` on connections of its own until `clients` is 0, and the most memory.
fn ask_livez(served: &Served, clients: &AtomicUsize) -> (Vec<Duration>, u64) {
    let (mut times, mut peak) = (Vec::new(), 0);
    while clients.load(Ordering::Relaxed) > 0 {
        let began = Instant::now();
        assert_eq!(http::get(served.address, "/livez").expect("an answer").status, 200);
        times.push(began.elapsed());
        peak = served.program.size().resident_bytes.max(peak);
        thread::sleep(Duration::from_millis(10));
    }
    (times, peak)
}

#[test]
fn five_times_too_much_for_thirty_seconds() {
    let topic = shared().topic();
    let [proxy] = &Proxy::kafka(&topic.brokers())[..] else { panic!("one broker") };
    let settings = [
        ("QUEUE_MAX_EVENTS", "400"),
        ("MAX_REQUEST_EVENTS", "100"),
        // A client that waits for an answer goes on with a further connection.
        ("HTTP_MAX_CONNECTIONS", "20000"),
        ("DELIVERY_TIMEOUT_MS", "60000"),
        ("EVENT_ECHO", "off"),
    ];
    let served = serve_via(&proxy.address().to_string(), &topic, &settings);
    // Ten events of about 1 kB take a hundredth of a second each way: some 500 events a second get through.
    proxy.set(Mode::Throttle(500_000));
    let (clients, watch) = (AtomicUsize::new(100), Watch::start());
    let body = format!("{{\"padding\": \"{}\"}}\n", "x".repeat(950)).repeat(10);
    let headers = [("Content-Type", "application/x-ndjson")];
    let request = request_bytes("POST", "/register_event", &headers, body.as_bytes());
    let (all, (livez, peak)) = thread::scope(|scope| {
        let control = scope.spawn(|| ask_livez(&served, &clients));
        let all = at_once(100, |index| {
            let mut seen = Seen::default();
            // Counted down in any case, or the control would go on when a client panics.
            let offered = catch_unwind(AssertUnwindSafe(|| offer(&served, &request, index, &mut seen)));
            clients.fetch_sub(1, Ordering::Relaxed);
            offered.expect("answered");
            seen
        });
        (all, control.join().expect("answered"))
    });
    let acknowledged: usize = all.iter().map(|seen| seen.acknowledged).sum();
    let refused: Vec<Duration> = all.iter().flat_map(|seen| seen.refused.clone()).collect();
    let other: Vec<u16> = all.iter().flat_map(|seen| seen.other.clone()).collect();
    assert!(other.is_empty(), "{other:?}");
    assert!(refused.len() > 4 * acknowledged, "{} refused, {acknowledged} acknowledged", refused.len());
    let (refused, livez) = (p99(refused), p99(livez));
    let at_once = Duration::from_millis(100);
    assert!(livez < watch.allows(at_once), "p99 of /livez {livez:?}, {:?}", watch.allows(at_once));
    assert!(refused < at_once + 3 * livez, "p99 of the refusals {refused:?}, of /livez {livez:?}");
    assert!(peak < 128 << 20, "{peak} bytes at the peak");
    proxy.set(Mode::Forward);
    eventually(secs(2), "full speed again", || served.post("{}").status == 200);
    assert!(
        topic.count() >= acknowledged * 10,
        "{} in the topic, {acknowledged} requests of ten",
        topic.count()
    );
}

/// Offers a request every [`PERIOD`] for 30 s, whatever became of the one before (on a second connection when the
/// first still waits), and notes the answers.
fn offer(served: &Served, request: &[u8], index: usize, seen: &mut Seen) {
    let begin = Instant::now();
    let mut waiting = Vec::new();
    let mut free = served.client();
    let mut next = begin + PERIOD * index as u32 / 100;
    while begin.elapsed() < secs(30) {
        thread::sleep(next.saturating_duration_since(Instant::now()));
        next += PERIOD;
        let sent = Instant::now();
        free.send_raw(request).expect("sent");
        free.stream().set_read_timeout(Some(Duration::from_millis(500))).expect("set");
        match free.read_response() {
            Ok(answer) if answer.status == 503 => {
                seen.refused.push(sent.elapsed());
                assert!(answer.header("retry-after").is_some());
                // Where its body was not read, the connection ends with the answer.
                if answer.header("connection") == Some("close") {
                    free = served.client();
                }
            }
            Ok(answer) if answer.status == 200 => seen.acknowledged += 1,
            Ok(answer) => seen.other.push(answer.status),
            // A thread of its own sees when the answer comes.
            Err(_) => {
                let mut client = std::mem::replace(&mut free, served.client());
                client.stream().set_read_timeout(Some(secs(90))).expect("set");
                waiting.push(thread::spawn(move || (client.read_response(), sent.elapsed())));
            }
        }
        next = next.max(Instant::now() - PERIOD);
    }
    for late in waiting {
        let (answer, took) = late.join().expect("no panic");
        match answer.map(|answer| answer.status) {
            Ok(200) => seen.acknowledged += 1,
            Ok(503) => seen.refused.push(took),
            Ok(status) => seen.other.push(status),
            Err(error) => panic!("no answer at all: {error}"),
        }
    }
}

#[test]
fn a_full_queue_refuses_by_events_and_by_bytes() {
    let topic = shared().topic();
    let [proxy] = &Proxy::kafka(&topic.brokers())[..] else { panic!("one broker") };
    let settings = [
        ("QUEUE_MAX_EVENTS", "5"),
        ("MAX_REQUEST_EVENTS", "5"),
        ("MAX_BODY_BYTES", "65536"),
        ("MAX_EVENT_BYTES", "65536"),
        ("QUEUE_MAX_BYTES", "196608"),
        ("DELIVERY_TIMEOUT_MS", "3000"),
    ];
    let served = serve_via(&proxy.address().to_string(), &topic, &settings);
    proxy.set(Mode::Stall);
    let statuses = at_once(20, |_| served.post("{}").status);
    assert!(statuses.iter().filter(|status| **status == 503).count() >= 15, "{statuses:?}");
    assert!(served.metric("pipeline_events_rejected_total{reason=\"queue_full\"}") >= 1.0);
    proxy.set(Mode::Forward);
    served.wait_ready();
    proxy.set(Mode::Stall);
    let large = format!("{{\"p\":\"{}\"}}", "x".repeat(60_000));
    let answers = at_once(4, |_| served.post(&large).json()["error"].as_str().map(str::to_owned));
    let refused = answers.iter().filter(|error| error.as_deref() == Some("overloaded")).count();
    assert!((1..4).contains(&refused), "four times 60 kB, as sent and as lines, into 192 kB: {answers:?}");
    proxy.set(Mode::Forward);
    served.wait_ready();
    served.assert_serves();
}
