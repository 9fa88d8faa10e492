//! Whether Kafka acknowledges now: what `/readyz` tells and what lets a request be refused at once.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A broker call that takes longer than this makes us not ready until it returns.
const STALL: Duration = Duration::from_millis(1500);

/// Shared by the publisher, which writes it, and the HTTP side, which reads it.
#[derive(Debug)]
pub struct Health {
    origin: Instant,
    up: AtomicBool,
    draining: AtomicBool,
    exhausted: AtomicBool,
    /// Milliseconds since `origin` when the call on the wire began; 0 without one.
    call_began: AtomicU64,
    reason: Mutex<String>,
}

/// Why a request is not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotReady {
    /// We are stopping.
    Draining,
    /// Kafka does not acknowledge, with the last reason.
    KafkaUnavailable(String),
}

impl Health {
    /// Not ready until the publisher has reached Kafka.
    pub fn new(now: Instant) -> Self {
        Self {
            origin: now,
            up: AtomicBool::new(false),
            draining: AtomicBool::new(false),
            exhausted: AtomicBool::new(false),
            call_began: AtomicU64::new(0),
            reason: Mutex::new("not connected to Kafka yet".into()),
        }
    }

    /// A broker call begins.
    pub fn call_begins(&self, now: Instant) {
        self.call_began.store(self.millis(now).max(1), Ordering::Release);
    }

    /// The call is over and the broker acknowledged.
    pub fn call_succeeded(&self) {
        self.call_began.store(0, Ordering::Release);
        self.up.store(true, Ordering::Release);
    }

    /// The call is over and failed.
    pub fn call_failed(&self, reason: &str) {
        self.call_began.store(0, Ordering::Release);
        self.up.store(false, Ordering::Release);
        reason.clone_into(&mut self.reason.lock().unwrap_or_else(|poisoned| poisoned.into_inner()));
    }

    /// From now on no request is taken.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::SeqCst);
    }

    /// Too many connection threads are lost: not ready for good, the process has to be replaced.
    pub fn set_exhausted(&self) {
        self.exhausted.store(true, Ordering::SeqCst);
    }

    /// True once the leak budget is spent.
    pub fn is_exhausted(&self) -> bool {
        self.exhausted.load(Ordering::SeqCst)
    }

    /// True while we are stopping.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::SeqCst)
    }

    /// True while the broker acknowledges and no call has stalled.
    pub fn is_connected(&self, now: Instant) -> bool {
        self.up.load(Ordering::Acquire) && !self.is_stalled(now)
    }

    /// Whether a request would be taken now.
    ///
    /// # Errors
    /// Why not.
    pub fn check(&self, now: Instant) -> Result<(), NotReady> {
        if self.is_draining() || self.is_exhausted() {
            return Err(NotReady::Draining);
        }
        if self.is_connected(now) {
            return Ok(());
        }
        if self.is_stalled(now) {
            return Err(NotReady::KafkaUnavailable("the broker has not answered for over 1.5 s".into()));
        }
        let reason = self.reason.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        Err(NotReady::KafkaUnavailable(reason.clone()))
    }

    fn is_stalled(&self, now: Instant) -> bool {
        let began = self.call_began.load(Ordering::Acquire);
        began > 0 && self.millis(now).saturating_sub(began) > STALL.as_millis() as u64
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
        health.call_failed("broker gone");
        assert_eq!(health.check(start), Err(NotReady::KafkaUnavailable("broker gone".into())));
        health.call_succeeded();
        health.drain();
        assert_eq!(health.check(start), Err(NotReady::Draining));
    }
}
