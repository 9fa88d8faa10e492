//! Load thread: takes the next request, waits for its intended start, sends it and counts the outcome.

use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use crate::retry::Backoff;
use crate::simulate::answer::Fate;
use crate::simulate::client::Client;
use crate::simulate::journal::JournalWriter;
use crate::simulate::ledger::Entry;
use crate::simulate::route::{Route, is_out_of_use};
use crate::simulate::schedule::Phase;
use crate::simulate::shared::{PhaseStart, Shared};
use crate::simulate::tally::Tally;

/// Longest single sleep; longer waits are split so that a shutdown is noticed.
const NAP: Duration = Duration::from_millis(100);

/// Longest `Retry-After` that is honoured, without the jitter that is added to it.
const MAX_RETRY_WAIT: Duration = Duration::from_secs(60);

/// State of one load thread.
pub struct Worker<'a> {
    shared: &'a Shared<'a>,
    /// One per URL; each connects at its first request.
    clients: Vec<Client>,
    route: Route,
    journal: Option<JournalWriter<'a>>,
    tally: Tally,
    body: Vec<u8>,
    /// Sequence numbers of the events that still need an acknowledgement.
    pending: Vec<u32>,
    fates: Vec<Fate>,
    /// True if an earlier attempt to send the pending events was answered 2xx, but the response broke off.
    was_accepted: bool,
    retry: Backoff,
    /// Slows down a closed loop while the server is unreachable. Without it a run would count millions of
    /// refused connections.
    absent: Backoff,
    absence: Option<Duration>,
}

/// Whether another attempt is useful, and how long the server asks to wait before it.
enum Advice {
    Enough,
    AgainAfter(Option<Duration>),
}

impl<'a> Worker<'a> {
    /// Creates the worker of load thread `number`, which connects at its first request.
    pub fn new(shared: &'a Shared<'a>, number: u32) -> Self {
        let targets = &shared.plan.targets;
        Self {
            shared,
            clients: targets.iter().map(|target| Client::new(target.clone())).collect(),
            route: Route::new(number, targets.len()),
            journal: shared.journal.map(JournalWriter::new),
            tally: Tally::default(),
            body: Vec::new(),
            pending: Vec::new(),
            fates: Vec::new(),
            was_accepted: false,
            retry: Backoff::new(Duration::from_millis(100), Duration::from_secs(5)),
            absent: Backoff::new(Duration::from_millis(10), Duration::from_secs(1)),
            absence: None,
        }
    }

    /// Sends requests until `phase` ends and returns the counts.
    pub fn run_phase(&mut self, phase: &Phase, start: PhaseStart) -> Tally {
        let mut now = start.at;
        loop {
            let number = self.shared.next.fetch_add(1, Ordering::Relaxed);
            let Some(intended) = phase.intended_start(number - start.first, start.at, now) else { break };
            if !self.sleep_until(intended, now) || !self.draw(number) {
                break;
            }
            self.perform(intended, phase.last_moment(start.at));
            now = Instant::now();
            self.tally.add_latency(now.saturating_duration_since(intended));
            self.tally.finished = Some(now);
            if let Some(wait) = self.absence.take()
                && phase.rate.is_none()
            {
                self.sleep_until(now + wait, now);
                now = Instant::now();
            }
        }
        std::mem::take(&mut self.tally)
    }

    /// Makes the events of request `number` pending; returns false if the sequence numbers are used up.
    fn draw(&mut self, number: u64) -> bool {
        let batch = u64::from(self.shared.plan.workload.batch);
        let Ok(end) = u32::try_from((number + 1) * batch) else { return false };
        self.pending.clear();
        self.pending.extend(end - batch as u32..end);
        true
    }

    /// Sleeps until `time`; returns false if a shutdown was requested.
    fn sleep_until(&mut self, time: Instant, mut now: Instant) -> bool {
        if let Some(journal) = &mut self.journal {
            journal.settle(now);
        }
        while now < time && !self.shared.shutdown.requested() {
            thread::sleep((time - now).min(NAP));
            now = Instant::now();
        }
        !self.shared.shutdown.requested()
    }

    /// Sends the pending events until all are settled or no retry is left or would begin after `end`.
    fn perform(&mut self, intended: Instant, end: Option<Instant>) {
        self.tally.add_delay(intended.elapsed());
        self.tally.requests += 1;
        self.tally.sent += self.pending.len() as u64;
        let acknowledged_before = self.tally.acknowledged;
        let sent = self.pending.len() as u64;
        self.retry.reset();
        self.was_accepted = false;
        for attempt in 0.. {
            self.tally.repeated += u64::from(attempt == 1);
            let wait = match self.attempt() {
                Advice::AgainAfter(asked) if attempt < self.shared.plan.retries => self.next_wait(asked),
                _ => {
                    self.settle(attempt > 0, true);
                    break;
                }
            };
            let again = Instant::now() + wait;
            let is_over = end.is_some_and(|end| again > end);
            self.settle(attempt > 0, is_over);
            if self.pending.is_empty() || !self.sleep_until(again, Instant::now()) {
                self.fates.clear();
                self.fates.resize(self.pending.len(), Fate::Unknown);
                self.settle(attempt > 0, true);
                break;
            }
        }
        self.shared.done.fetch_add(1, Ordering::Relaxed);
        if self.tally.acknowledged - acknowledged_before < sent {
            self.shared.failed.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The wait before the next attempt: the one that the server asked for, or the next of the back-off.
    fn next_wait(&mut self, asked: Option<Duration>) -> Duration {
        let own = self.retry.next_wait(fastrand::f64());
        // Many threads are asked at the same moment and must not return at the same moment.
        asked.map_or(own, |asked| asked.min(MAX_RETRY_WAIT).mul_f64(1.0 + fastrand::f64() / 4.0))
    }

    /// Sends the pending events once and fills `fates`.
    fn attempt(&mut self) -> Advice {
        self.shared.plan.workload.write_body(&self.pending, &mut self.body);
        self.tally.attempts += 1;
        let chosen = self.route.choose(Instant::now());
        let answer = match self.clients[chosen].post(&self.body) {
            Ok(answer) => answer,
            Err(unanswered) => {
                self.tally.add_error(unanswered.cause);
                self.route.failed(Instant::now());
                self.was_accepted |= unanswered.was_accepted;
                self.fates.clear();
                self.fates.resize(self.pending.len(), Fate::Unknown);
                self.absence = Some(self.absent.next_wait(fastrand::f64()));
                return Advice::AgainAfter(None);
            }
        };
        let success = (200..300).contains(&answer.status);
        self.tally.add_status(answer.status, || if success { String::new() } else { answer.reason() });
        if is_out_of_use(answer.status) {
            self.route.failed(Instant::now());
        }
        let judged = answer.judge(self.pending.len(), &mut self.fates);
        let is_unclear = judged.is_err();
        if let Err(words) = judged {
            self.tally.add_error(words);
        }
        self.absent.reset();
        self.absence = None;
        if is_unclear || (!success && answer.is_retryable()) {
            Advice::AgainAfter(answer.retry_after)
        } else {
            Advice::Enough
        }
    }

    /// Records the settled outcomes and keeps events of unknown outcome pending. After the `last` attempt,
    /// these are recorded as unknown too.
    fn settle(&mut self, retried: bool, last: bool) {
        let mut kept = 0;
        let mut acknowledged = false;
        for index in 0..self.pending.len() {
            let (seq, fate) = (self.pending[index], self.fates[index]);
            if fate == Fate::Unknown && !last {
                self.pending[kept] = seq;
                kept += 1;
                continue;
            }
            match fate {
                Fate::Acknowledged(_) => {
                    self.tally.acknowledged += 1;
                    self.tally.acknowledged_again += u64::from(self.was_accepted);
                }
                Fate::Rejected => self.tally.rejected += 1,
                Fate::Unknown => self.tally.failed += 1,
            }
            acknowledged |= matches!(fate, Fate::Acknowledged(_));
            if let Some(journal) = &mut self.journal {
                journal.add(Entry { first: seq, count: 1, fate, retried });
            }
        }
        self.pending.truncate(kept);
        if acknowledged {
            self.shared.gap.acknowledged(Instant::now());
        }
    }
}
