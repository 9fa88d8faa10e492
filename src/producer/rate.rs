//! Measures how fast Kafka acknowledges events; `now` is passed in.

use std::time::{Duration, Instant};

/// Acknowledged events per second, over windows of one second.
pub struct Rate {
    since: Instant,
    events: u64,
    last: u64,
}

impl Rate {
    /// Starts without acknowledged events before `now`.
    pub fn new(now: Instant) -> Self {
        Self { since: now, events: 0, last: 0 }
    }

    /// Adds events acknowledged at `now` and returns the rate per second.
    pub fn add(&mut self, events: u64, now: Instant) -> u64 {
        self.events += events;
        let elapsed = now.saturating_duration_since(self.since);
        if elapsed >= Duration::from_secs(1) {
            self.last = (self.events as f64 / elapsed.as_secs_f64()) as u64;
            (self.since, self.events) = (now, 0);
        }
        self.last.max(self.events)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_that_of_the_last_second() {
        let start = Instant::now();
        let mut rate = Rate::new(start);
        assert_eq!(rate.add(50, start), 50);
        assert_eq!(rate.add(50, start + Duration::from_secs(2)), 50);
        assert_eq!(rate.add(10, start + Duration::from_secs(2)), 50);
    }
}
