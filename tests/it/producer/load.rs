//! Clients that post while something breaks, remember what each was told, and hold the topic to it.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::support::control::{Watch, allowed};
use crate::support::http::{Client, Response};
use crate::support::topic::Topic;
use crate::support::wait::{eventually, secs};

/// Pause of a client after an answer, so that a test's topic stays small enough to be read back.
const PACE: Duration = Duration::from_millis(2);

/// Pause after anything but 200: a client that is told to come back later does not come back at once.
const PACE_REFUSED: Duration = Duration::from_millis(20);

/// What one client was told about one event.
#[derive(Clone, Debug)]
pub struct Told {
    /// The event as it was posted, but for its closing brace, before which the stamp is put.
    pub event: String,
    /// `None` when the connection ended without an answer.
    pub answer: Option<Response>,
    /// When the first byte of the request was sent.
    pub began: Instant,
    /// From then to the answer or the end.
    pub took: Duration,
}

impl Told {
    pub fn status(&self) -> u16 {
        self.answer.as_ref().map_or(0, |answer| answer.status)
    }

    /// The stable word of an error, or nothing.
    pub fn error(&self) -> String {
        let body = self.answer.as_ref().filter(|answer| answer.status != 200).map(Response::json);
        body.and_then(|body| Some(body["error"].as_str()?.to_owned())).unwrap_or_default()
    }

    fn receipt(&self) -> Option<(i32, i64)> {
        let body = self.answer.as_ref().filter(|answer| answer.status == 200)?.json();
        Some((body["partition"].as_i64()? as i32, body["offset"].as_i64()?))
    }
}

/// Clients at work, each on a kept-alive connection with one request at a time.
pub struct Load {
    shared: Arc<Shared>,
    clients: Vec<JoinHandle<Vec<Told>>>,
}

struct Shared {
    /// Tells the events of one load from those of others.
    number: usize,
    address: SocketAddr,
    pace: Duration,
    stopped: AtomicBool,
    acknowledged: AtomicUsize,
    refused: AtomicUsize,
}

impl Load {
    /// `clients` threads that post until they are stopped.
    pub fn start(address: SocketAddr, clients: usize) -> Self {
        Self::paced(address, clients, PACE)
    }

    /// The same without a pause after an acknowledgement.
    pub fn full(address: SocketAddr, clients: usize) -> Self {
        Self::paced(address, clients, Duration::ZERO)
    }

    /// `clients` threads that each pause for `pace` after an acknowledgement.
    pub fn paced(address: SocketAddr, clients: usize, pace: Duration) -> Self {
        // Times are judged from here on.
        Watch::start();
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let shared = Arc::new(Shared {
            number: COUNT.fetch_add(1, Ordering::Relaxed),
            address,
            pace,
            stopped: AtomicBool::new(false),
            acknowledged: AtomicUsize::new(0),
            refused: AtomicUsize::new(0),
        });
        let clients = (0..clients)
            .map(|client| {
                let shared = shared.clone();
                thread::spawn(move || shared.post_until_stopped(client))
            })
            .collect();
        Self { shared, clients }
    }

    /// Waits until so many more events were acknowledged.
    #[track_caller]
    pub fn wait_acknowledged(&self, more: usize) {
        let goal = self.shared.acknowledged.load(Ordering::Relaxed) + more;
        eventually(secs(90), "events are acknowledged", || {
            self.shared.acknowledged.load(Ordering::Relaxed) >= goal
        });
    }

    /// Waits until so many more requests got no 200.
    #[track_caller]
    pub fn wait_refused(&self, more: usize) {
        let goal = self.shared.refused.load(Ordering::Relaxed) + more;
        eventually(secs(90), "requests fail", || self.shared.refused.load(Ordering::Relaxed) >= goal);
    }

    /// Stops the clients after the answer that each waits for.
    pub fn finish(self) -> Ledger {
        self.shared.stopped.store(true, Ordering::Relaxed);
        let told = self.clients.into_iter().flat_map(|client| client.join().expect("no panic")).collect();
        Ledger { prefix: format!(r#"{{"load":{},"#, self.shared.number), told }
    }
}

impl Shared {
    fn post_until_stopped(&self, client: usize) -> Vec<Told> {
        let mut told = Vec::new();
        let mut connection = None;
        while !self.stopped.load(Ordering::Relaxed) {
            let event = format!(r#"{{"load":{},"client":{client},"n":{}"#, self.number, told.len());
            let began = Instant::now();
            let answer = self.post(&mut connection, &event);
            let took = began.elapsed();
            let acknowledged = answer.as_ref().is_some_and(|answer| answer.status == 200);
            let (count, pace) =
                if acknowledged { (&self.acknowledged, self.pace) } else { (&self.refused, PACE_REFUSED) };
            count.fetch_add(1, Ordering::Relaxed);
            told.push(Told { event, answer, began, took });
            if !pace.is_zero() {
                // Else all would fall into step after the first answer that is late.
                thread::sleep(pace.mul_f64(0.5 + fastrand::f64()));
            }
        }
        told
    }

    fn post(&self, connection: &mut Option<Client>, event: &str) -> Option<Response> {
        if connection.is_none() {
            *connection = Client::connect(self.address).ok();
        }
        let answer = connection.as_mut()?.post_event(format!("{event}}}").as_bytes()).ok();
        if answer.as_ref().is_none_or(|answer| answer.header("connection") == Some("close")) {
            *connection = None;
        }
        answer
    }
}

/// The producer waits so long for a broker before it says that it is not ready, and less for one that refuses.
pub const HONEST_GAP: Duration = Duration::from_millis(400);

/// The control of a load: another client, which asks the leaders of the topic all the time.
pub struct Asked {
    shared: Arc<(AtomicBool, AtomicU64)>,
}

impl Asked {
    pub fn start(topic: &Topic) -> Self {
        let shared = Arc::new((AtomicBool::new(false), AtomicU64::new(0)));
        let (topic, kept) = (topic.clone(), shared.clone());
        thread::spawn(move || {
            let (stopped, longest) = &*kept;
            let mut answered = Instant::now();
            while !stopped.load(Ordering::Relaxed) {
                thread::sleep(Duration::from_millis(20));
                let is_led = topic.is_led();
                longest.fetch_max(answered.elapsed().as_millis() as u64, Ordering::Relaxed);
                if is_led {
                    answered = Instant::now();
                }
            }
        });
        Self { shared }
    }

    /// The longest time without an answer of all leaders so far.
    pub fn longest_gap(&self) -> Duration {
        Duration::from_millis(self.shared.1.load(Ordering::Relaxed))
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        self.shared.0.store(true, Ordering::Relaxed);
    }
}

/// What all clients were told.
pub struct Ledger {
    /// How its events begin.
    prefix: String,
    pub told: Vec<Told>,
}

impl Ledger {
    /// Events that got this status; 0 stands for no answer.
    pub fn count(&self, status: u16) -> usize {
        self.told.iter().filter(|told| told.status() == status).count()
    }

    /// Requests by status and error, for messages.
    pub fn summary(&self) -> HashMap<(u16, String), usize> {
        let mut counts = HashMap::new();
        for told in &self.told {
            *counts.entry((told.status(), told.error())).or_default() += 1;
        }
        counts
    }

    /// No answer but 200 and a 503 that says when to come back, and none later than `limit`, judged beside the control.
    #[track_caller]
    pub fn assert_answers(&self, limit: Duration) {
        for told in &self.told {
            let answer = told.answer.as_ref().unwrap_or_else(|| panic!("no answer: {told:?}"));
            assert!(matches!(answer.status, 200 | 503), "{told:?}: {}", answer.text());
            let allowed = allowed(limit, told.began, told.began + told.took);
            assert!(told.took < allowed, "{:?} and not {limit:?}, {allowed:?}: {}", told.took, answer.text());
            if answer.status == 503 {
                assert!(answer.header("retry-after").is_some(), "{told:?}");
                assert_eq!(answer.json()["retryable"], true, "{}", answer.text());
            }
        }
    }

    /// Nothing but 200. Where `gap`, which another client met, shows that the broker was late, a 503 is honest too.
    #[track_caller]
    pub fn assert_acknowledged(&self, gap: Duration) {
        let honest = |(status, error): &(u16, String)| {
            *status == 200 || gap > HONEST_GAP && *status == 503 && error == "kafka_unavailable"
        };
        let wrong: Vec<_> = self.summary().into_iter().filter(|(told, _)| !honest(told)).collect();
        assert!(wrong.is_empty(), "the broker answers within {gap:?}, and {wrong:?}");
        assert!(self.count(200) * 2 > self.told.len(), "{:?}", self.summary());
    }

    /// Every receipt names the place of its event, the topic holds no event of this load that nobody posted, and
    /// none that was refused before it was taken. Returns how many records are there beyond one an event.
    #[track_caller]
    pub fn assert_kept(&self, topic: &Topic) -> usize {
        topic.wait_given_out();
        let records = topic.records();
        let mut copies: HashMap<&str, usize> = HashMap::new();
        let mut places: HashMap<(i32, i64), &str> = HashMap::new();
        for record in records.iter().filter(|record| record.text().starts_with(&self.prefix)) {
            let (event, _) = record.text().split_once(", \"timestamp\"").expect("a stamp");
            *copies.entry(event).or_default() += 1;
            places.insert((record.partition, record.offset), event);
        }
        let mut extra = places.len();
        for told in &self.told {
            let there = copies.remove(&*told.event).unwrap_or(0);
            extra -= there.min(1);
            if told.status() == 200 {
                let place = told.receipt().unwrap_or_else(|| panic!("no receipt: {told:?}"));
                assert_eq!(places.get(&place), Some(&told.event.as_str()), "{place:?}");
            } else if matches!(&*told.error(), "draining" | "kafka_unavailable" | "overloaded") {
                assert_eq!(there, 0, "it was refused: {told:?}");
            }
        }
        assert!(copies.is_empty(), "nobody posted {:?}", copies.keys().next());
        extra
    }
}
