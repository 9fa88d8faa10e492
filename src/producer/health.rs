//! Tracks whether Kafka acknowledges right now, which `/readyz` reports and which lets requests be refused at
//! once.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// A broker call that takes longer than this makes the producer not ready until it returns.
const STALL: Duration = Duration::from_millis(1500);

/// How long calls may fail before the producer is not ready, counted from the start of the first call that
/// failed. A leader change or a broken connection recovers within this time, and clients need not notice.
const GRACE: Duration = Duration::from_millis(400);

/// Written by the publisher and read by the HTTP side.
#[derive(Debug)]
pub struct Health {
    origin: Instant,
    /// Kafka has acknowledged once, and the publisher has not given up.
    up: AtomicBool,
    draining: AtomicBool,
    /// When the current call began, in milliseconds since `origin`; 0 if there is none.
    call_began: AtomicU64,
    /// When the first of the calls that have failed since the last success began, in milliseconds since
    /// `origin`; 0 after a success.
    failing_since: AtomicU64,
    /// Until when Kafka accepts nothing because of a quota, in milliseconds since `origin`.
    throttled_until: AtomicU64,
    reason: Mutex<String>,
}

/// Why a request is not accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotReady {
    /// The producer is stopping.
    Draining,
    /// Kafka does not acknowledge, with the latest reason.
    KafkaUnavailable(String),
}

impl Health {
    /// Starts as not ready, until the publisher has reached Kafka.
    pub fn new(now: Instant) -> Self {
        Self {
            origin: now,
            up: AtomicBool::new(false),
            draining: AtomicBool::new(false),
            call_began: AtomicU64::new(0),
            failing_since: AtomicU64::new(0),
            throttled_until: AtomicU64::new(0),
            reason: Mutex::new("not connected to Kafka yet".into()),
        }
    }

    /// Records that a broker call begins.
    pub fn call_begins(&self, now: Instant) {
        self.call_began.store(self.millis(now).max(1), Ordering::Release);
    }

    /// Records that the call is over, and that the broker acknowledged or showed that it would.
    pub fn call_succeeded(&self) {
        self.call_began.store(0, Ordering::Release);
        self.failing_since.store(0, Ordering::Release);
        self.up.store(true, Ordering::Release);
    }

    /// Records that Kafka accepts nothing before `until` because of a quota. Kafka still counts as healthy.
    pub fn throttled(&self, until: Instant) {
        self.throttled_until.store(self.millis(until), Ordering::Release);
    }

    /// How long Kafka will accept nothing because of a quota, in whole seconds, rounded up.
    pub fn throttled_for(&self, now: Instant) -> Duration {
        let left = self.throttled_until.load(Ordering::Acquire).saturating_sub(self.millis(now));
        Duration::from_secs(left.div_ceil(1000))
    }

    /// Records that the call is over and failed.
    pub fn call_failed(&self, reason: &str) {
        reason.clone_into(&mut self.reason.lock());
        let began = self.call_began.swap(0, Ordering::AcqRel);
        if self.failing_since.load(Ordering::Acquire) == 0 {
            self.failing_since.store(began.max(1), Ordering::Release);
        }
    }

    /// Records that nothing will be published any more.
    pub fn gave_up(&self, reason: &str) {
        self.call_failed(reason);
        self.up.store(false, Ordering::Release);
    }

    /// True once Kafka has acknowledged.
    pub fn was_up(&self) -> bool {
        self.up.load(Ordering::Acquire)
    }

    /// Accepts no more requests from now on. Returns true to the first caller.
    pub fn drain(&self) -> bool {
        !self.draining.swap(true, Ordering::SeqCst)
    }

    /// True while the broker acknowledges and no call has stalled. A short series of failures is tolerated.
    pub fn is_connected(&self, now: Instant) -> bool {
        let failing = self.lasts_longer(&self.failing_since, GRACE, now);
        self.up.load(Ordering::Acquire) && !failing && !self.is_stalled(now)
    }

    /// Checks whether a request would be accepted now.
    ///
    /// # Errors
    /// The producer is draining, or Kafka does not acknowledge.
    pub fn check(&self, now: Instant) -> Result<(), NotReady> {
        if self.draining.load(Ordering::SeqCst) {
            return Err(NotReady::Draining);
        }
        if self.is_connected(now) {
            return Ok(());
        }
        if self.is_stalled(now) {
            return Err(NotReady::KafkaUnavailable("the broker has not answered for over 1.5 s".into()));
        }
        Err(NotReady::KafkaUnavailable(self.reason.lock().clone()))
    }

    fn is_stalled(&self, now: Instant) -> bool {
        self.lasts_longer(&self.call_began, STALL, now)
    }

    fn lasts_longer(&self, since: &AtomicU64, limit: Duration, now: Instant) -> bool {
        let since = since.load(Ordering::Acquire);
        since > 0 && self.millis(now).saturating_sub(since) > limit.as_millis() as u64
    }

    fn millis(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.origin).as_millis() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_only_while_calls_succeed_in_time() {
        let start = Instant::now();
        let health = Health::new(start);
        assert!(matches!(health.check(start), Err(NotReady::KafkaUnavailable(_))));
        health.call_begins(start);
        health.call_succeeded();
        assert_eq!(health.check(start), Ok(()));
        health.call_begins(start);
        assert_eq!(health.check(start + STALL), Ok(()));
        assert!(health.check(start + STALL * 2).is_err(), "a stalled call");
        health.call_succeeded();
        assert_eq!(health.check(start + STALL * 2), Ok(()));
        assert!(health.drain() && !health.drain(), "reported once");
        assert_eq!(health.check(start), Err(NotReady::Draining));
    }

    #[test]
    fn a_quota_is_waited_for_in_whole_seconds() {
        let start = Instant::now();
        let health = Health::new(start);
        assert_eq!(health.throttled_for(start), Duration::ZERO);
        health.throttled(start + Duration::from_millis(4100));
        assert_eq!(health.throttled_for(start), Duration::from_secs(5));
        assert_eq!(health.throttled_for(start + Duration::from_millis(4100)), Duration::ZERO);
    }

    #[test]
    fn a_moment_of_failures_is_forgiven_counted_from_the_first_call_that_failed() {
        let start = Instant::now();
        let health = Health::new(start);
        health.call_succeeded();
        let (first, moment) = (start + Duration::from_secs(9), Duration::from_millis(1));
        let gone = Err(NotReady::KafkaUnavailable("broker gone".into()));
        for retry in 0..3 {
            health.call_begins(first + moment * retry);
            health.call_failed("broker gone");
        }
        assert_eq!(health.check(first + GRACE), Ok(()));
        assert_eq!(health.check(first + GRACE + moment), gone);
        health.call_succeeded();
        assert_eq!(health.check(first + GRACE * 2), Ok(()));
        health.call_begins(first + GRACE * 2);
        health.gave_up("broker gone");
        assert_eq!(health.check(first + GRACE * 2), gone, "for good, so at once");
    }
}
