//! Limits a client to a rate with a burst (GCRA: the generic cell rate algorithm of ATM traffic management).
//!
//! One time is kept: when everything that was taken so far would have been earned at the rate. Takes `now`; has no
//! clock and no thread.

use std::time::{Duration, Instant};

/// So many units per second, and how many may come at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Units per second, at least one.
    pub per_second: u64,
    /// Most units that pass at one moment after a pause; at least the largest request.
    pub burst: u64,
}

impl Rate {
    /// How long `units` take to be earned.
    fn time_of(self, units: u64) -> Duration {
        let nanos = u128::from(units) * 1_000_000_000 / u128::from(self.per_second.max(1));
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// How many units are earned in `time`.
    fn units_in(self, time: Duration) -> u64 {
        let units = time.as_nanos() * u128::from(self.per_second) / 1_000_000_000;
        u64::try_from(units).unwrap_or(u64::MAX)
    }

    /// Seconds in which the burst is earned, rounded up: the window of `RateLimit-Policy`.
    pub fn window_seconds(self) -> u64 {
        self.burst.div_ceil(self.per_second.max(1)).max(1)
    }
}

/// What one client has used of one rate.
#[derive(Clone, Copy, Debug, Default)]
pub struct Meter {
    /// When all that was taken is earned; `None` before the first take.
    earned_at: Option<Instant>,
}

impl Meter {
    /// Takes `units`, all or none.
    ///
    /// # Errors
    /// They do not fit now; the duration after which they will. More than the burst never fit.
    pub fn take(&mut self, rate: Rate, units: u64, now: Instant) -> Result<(), Duration> {
        let earned_at = self.earned_at.map_or(now, |at| at.max(now)) + rate.time_of(units);
        let ahead = earned_at.saturating_duration_since(now);
        let allowed = rate.time_of(rate.burst);
        if ahead > allowed {
            return Err(ahead - allowed);
        }
        self.earned_at = Some(earned_at);
        Ok(())
    }

    /// How many units would pass now.
    pub fn left(&self, rate: Rate, now: Instant) -> u64 {
        let ahead = self.earned_at.map_or(Duration::ZERO, |at| at.saturating_duration_since(now));
        rate.units_in(rate.time_of(rate.burst).saturating_sub(ahead)).min(rate.burst)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RATE: Rate = Rate { per_second: 10, burst: 5 };

    #[test]
    fn a_burst_passes_then_the_rate() {
        let (mut meter, start) = (Meter::default(), Instant::now());
        assert_eq!(meter.take(RATE, 5, start), Ok(()));
        assert_eq!(meter.take(RATE, 1, start), Err(Duration::from_millis(100)));
        assert_eq!(meter.left(RATE, start), 0);
        let later = start + Duration::from_millis(100);
        assert_eq!(meter.left(RATE, later), 1);
        assert_eq!(meter.take(RATE, 2, later), Err(Duration::from_millis(100)), "all or none");
        assert_eq!(meter.take(RATE, 1, later), Ok(()));
        let much_later = start + Duration::from_secs(3600);
        assert_eq!(meter.left(RATE, much_later), 5, "a pause earns no more than the burst");
        assert!(meter.take(RATE, 6, much_later).is_err());
        assert_eq!(RATE.window_seconds(), 1);
    }

    proptest! {
        /// In any span no more passes than the burst and what the span earns; what is refused passes after the wait.
        #[test]
        fn no_span_lets_more_through(
            per_second in 1_u64..100_000,
            burst in 1_u64..10_000,
            takes in prop::collection::vec((1_u64..200, 0_u64..50_000_000), 1..200),
        ) {
            let rate = Rate { per_second, burst };
            let (mut meter, start) = (Meter::default(), Instant::now());
            let (mut now, mut passed) = (start, 0);
            for (units, pause) in takes {
                now += Duration::from_nanos(pause);
                match meter.take(rate, units, now) {
                    Ok(()) => passed += units,
                    Err(wait) if units <= burst => {
                        let mut after = meter;
                        prop_assert_eq!(after.take(rate, units, now + wait), Ok(()));
                    }
                    Err(_) => {}
                }
                // Each take may round down by less than a nanosecond.
                let earned = rate.units_in(now - start + Duration::from_nanos(200));
                prop_assert!(passed <= burst + earned + 1, "{passed} of {burst} + {earned}");
            }
        }
    }
}
