//! What is known of one program: its latest reading, what happens per second, and the last minute. Pure.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::live::ask::{Answer, Problem};
use crate::live::buckets::Buckets;
use crate::live::reading::{Counts, Reading, Refusal};

/// A program without a reading for so long counts as one that does not answer.
const SILENT_AFTER: Duration = Duration::from_millis(2500);
/// Percentiles are those of about the last ten seconds, and refusals those of the last minute.
const PERCENTILES_OVER: Duration = Duration::from_secs(10);
const REFUSALS_OVER: Duration = Duration::from_secs(60);
/// Distance of the readings that are kept for these.
const KEPT_EVERY: Duration = Duration::from_secs(5);

/// What a program does in the pipeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    Producer,
    Consumer,
}

/// One program.
#[derive(Debug)]
pub struct Watched {
    pub role: Role,
    /// Its address.
    pub name: String,
    /// The latest reading.
    last: Option<(Instant, Reading)>,
    /// When the latest answer came, with or without a reading.
    answered: Option<Instant>,
    /// Counters per second between the last two readings.
    rates: Counts,
    /// Readings of the last minute, the oldest first.
    past: VecDeque<(Instant, Reading)>,
    problems: Vec<Problem>,
    /// Why there was no reading last time.
    failure: String,
}

/// What the page shows of one program.
#[derive(Debug, Serialize)]
pub struct Program<'a> {
    role: Role,
    name: &'a str,
    /// `ready`, `unready`, `silent`, or `unknown` at the start.
    state: &'static str,
    problems: &'a [Problem],
    /// Why it is silent.
    failure: &'a str,
    silent_seconds: u64,
    version: &'a str,
    http_server: &'a str,
    kafka_client: &'a str,
    started: f64,
    memory_bytes: f64,
    rates: Counts,
}

impl Watched {
    /// A program of which nothing is known yet.
    pub fn new(role: Role, name: &str) -> Self {
        Self {
            role,
            name: name.to_owned(),
            last: None,
            answered: None,
            rates: Counts::default(),
            past: VecDeque::new(),
            problems: Vec::new(),
            failure: String::new(),
        }
    }

    /// Takes over an answer, unless it is known already.
    pub fn take(&mut self, answer: &Answer) {
        if self.answered.is_some_and(|known| known >= answer.at) {
            return;
        }
        self.answered = Some(answer.at);
        match &answer.reading {
            Ok(reading) => {
                self.read(answer.at, reading.clone());
                self.problems.clone_from(&answer.problems);
                self.failure.clear();
            }
            Err(reason) => self.failure.clone_from(reason),
        }
    }

    fn read(&mut self, at: Instant, reading: Reading) {
        if let Some((before, last)) = &self.last {
            let is_new = last.started != reading.started;
            let old = if is_new { Counts::default() } else { last.counts };
            let seconds = at.duration_since(*before).as_secs_f64().max(0.001);
            self.rates = reading.counts.zip(&old, |now, before| (now - before).max(0.0) / seconds);
            if is_new {
                self.past.clear();
            }
        }
        while self.past.front().is_some_and(|(kept, _)| at - *kept > REFUSALS_OVER) {
            self.past.pop_front();
        }
        if self.past.back().is_none_or(|(kept, _)| at - *kept >= KEPT_EVERY) {
            self.past.push_back((at, reading.clone()));
        }
        self.last = Some((at, reading));
    }

    /// The latest reading, unless it is too old.
    pub fn reading(&self, now: Instant) -> Option<&Reading> {
        let (at, reading) = self.last.as_ref()?;
        (now.saturating_duration_since(*at) < SILENT_AFTER).then_some(reading)
    }

    /// Counters since its start, as they were last seen.
    pub fn counts(&self) -> Counts {
        self.last.as_ref().map(|(_, reading)| reading.counts).unwrap_or_default()
    }

    /// Counters per second; `None` while it is silent.
    pub fn rates(&self, now: Instant) -> Option<&Counts> {
        self.reading(now).map(|_| &self.rates)
    }

    /// What the buckets that `which` chooses counted in the last seconds. While a producer receives no event, its
    /// requests are only our own questions.
    pub fn recent_buckets(&self, now: Instant, which: impl Fn(&Reading) -> &Buckets) -> Option<Buckets> {
        let reading = self.reading(now)?;
        let is_old = |(at, _): &&(Instant, Reading)| now.saturating_duration_since(*at) >= PERCENTILES_OVER;
        let base = self.past.iter().rev().find(is_old).or(self.past.front());
        let is_idle = |(_, base): &(Instant, Reading)| base.counts.received == reading.counts.received;
        if self.role == Role::Producer && base.is_some_and(is_idle) {
            return None;
        }
        Some(base.map_or_else(|| which(reading).clone(), |(_, base)| which(reading).since(which(base))))
    }

    /// Total of each kind of refusal, and how many of them are of the last minute.
    pub fn refusals(&self, now: Instant) -> BTreeMap<&Refusal, (f64, f64)> {
        let Some(reading) = self.reading(now) else { return BTreeMap::new() };
        let base = self.past.front().map(|(_, base)| &base.refused);
        let before = |refusal: &Refusal| base.and_then(|base| base.get(refusal)).copied().unwrap_or_default();
        let pairs = reading.refused.iter().map(|(what, total)| (what, (*total, total - before(what))));
        pairs.collect()
    }

    /// What the page shows of it.
    pub fn program(&self, now: Instant) -> Program<'_> {
        let is_fresh = self.reading(now).is_some();
        let last = self.last.as_ref().map(|(_, reading)| reading);
        let silence =
            self.last.as_ref().filter(|_| !is_fresh).map(|(at, _)| now.saturating_duration_since(*at));
        Program {
            role: self.role,
            name: &self.name,
            state: match (is_fresh, self.problems.is_empty()) {
                (true, true) => "ready",
                (true, false) => "unready",
                (false, _) if self.answered.is_none() => "unknown",
                (false, _) => "silent",
            },
            problems: if is_fresh { &self.problems } else { &[] },
            failure: &self.failure,
            silent_seconds: silence.unwrap_or_default().as_secs(),
            version: last.map_or("", |last| &last.version),
            http_server: last.map_or("", |last| &last.http_server),
            kafka_client: last.map_or("", |last| &last.kafka_client),
            started: last.map_or(0.0, |last| last.started),
            memory_bytes: last.map_or(0.0, |last| last.memory_bytes),
            rates: if is_fresh { self.rates } else { Counts::default() },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(at: Instant, text: &str) -> Answer {
        let text = format!("pipeline_build_info{{version=\"1\"}} 1\n{text}");
        Answer { at, reading: Reading::of(&text), problems: Vec::new() }
    }

    fn received(at: Instant, started: u32, count: u32) -> Answer {
        let text = format!("process_start_time_seconds {started}\npipeline_events_received_total {count}\n");
        answer(at, &text)
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_rate_is_what_came_between_two_readings_also_over_a_restart() {
        let start = Instant::now();
        let mut watched = Watched::new(Role::Producer, "a:1");
        assert_eq!(watched.program(start).state, "unknown");
        assert!(watched.rates(start).is_none());
        watched.take(&received(start, 1, 100));
        assert_eq!(
            watched.rates(start).map(|rates| rates.received),
            Some(0.0),
            "nothing to compare with yet"
        );
        watched.take(&received(start + 2 * SECOND, 1, 300));
        assert_eq!(watched.rates(start + 2 * SECOND).map(|rates| rates.received), Some(100.0));
        watched.take(&received(start + 2 * SECOND, 1, 900));
        assert_eq!(
            watched.rates(start + 2 * SECOND).map(|rates| rates.received),
            Some(100.0),
            "known already"
        );
        watched.take(&received(start + 3 * SECOND, 2, 50));
        assert_eq!(
            watched.rates(start + 3 * SECOND).map(|rates| rates.received),
            Some(50.0),
            "a new process"
        );
    }

    #[test]
    fn a_program_is_silent_after_a_while_and_says_why() {
        let start = Instant::now();
        let mut watched = Watched::new(Role::Consumer, "a:1");
        watched.take(&received(start, 1, 1));
        let refused = || Err("Connection refused".to_owned());
        watched.take(&Answer { at: start + SECOND, reading: refused(), problems: Vec::new() });
        assert_eq!(watched.program(start + SECOND).state, "ready", "one answer may get lost");
        let silent = watched.program(start + 5 * SECOND);
        assert_eq!(
            (silent.state, silent.silent_seconds, silent.failure),
            ("silent", 5, "Connection refused")
        );
        let problems = vec![Problem { what: "kafka".into(), message: "timed out".into() }];
        watched.take(&Answer { problems, ..received(start + 6 * SECOND, 1, 1) });
        let unready = watched.program(start + 6 * SECOND);
        assert_eq!((unready.state, unready.failure, unready.problems.len()), ("unready", "", 1));
    }

    #[test]
    fn percentiles_and_refusals_are_of_the_last_seconds() {
        let start = Instant::now();
        let mut watched = Watched::new(Role::Producer, "a:1");
        for second in 0..=90_u32 {
            // Slow ones in the first minute only, and one refusal per second.
            let slow = second.min(60);
            let text = format!(
                "pipeline_http_request_duration_seconds_bucket{{le=\"1\"}} {second}\n\
                 pipeline_http_request_duration_seconds_bucket{{le=\"10\"}} {}\n\
                 pipeline_events_received_total {second}\n\
                 pipeline_events_rejected_total{{reason=\"empty\"}} {second}\n",
                second + slow
            );
            watched.take(&answer(start + SECOND * second, &text));
        }
        let now = start + SECOND * 90;
        let recent = watched.recent_buckets(now, |reading| &reading.answer_seconds).expect("read");
        assert!(recent.percentile(0.99).is_some_and(|found| found.value <= 1.0), "{recent:?}");
        let refusals: Vec<(f64, f64)> = watched.refusals(now).into_values().collect();
        assert_eq!(refusals, [(90.0, 60.0)]);
        assert!(watched.past.len() <= 14, "{}", watched.past.len());
        let later = start + SECOND * 104;
        watched.take(&received(later, 0, 90));
        assert!(
            watched.recent_buckets(later, |reading| &reading.answer_seconds).is_none(),
            "only our own questions"
        );
    }
}
