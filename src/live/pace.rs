//! Once a second, in step: the programs are asked, and a moment later the snapshot shows what they said.

use std::time::{Duration, Instant};

use crate::shutdown::Shutdown;

/// Time from one round to the next.
const PERIOD: Duration = Duration::from_secs(1);
/// What happens when in a second. Between the two there is time for an answer; one that takes longer is shown in the
/// next second.
pub const ASK: Duration = Duration::from_millis(50);
pub const SHOW: Duration = Duration::from_millis(150);

/// The beginning of the seconds.
#[derive(Clone, Copy, Debug)]
pub struct Pace(Instant);

impl Pace {
    /// The first second begins at `now`.
    pub fn new(now: Instant) -> Self {
        Self(now)
    }

    /// Does `what` once a second, `phase` after its beginning, until the shutdown. Seconds that pass meanwhile are left out.
    pub fn each(self, phase: Duration, shutdown: &Shutdown, mut what: impl FnMut()) {
        loop {
            let now = Instant::now();
            let _ = shutdown.closed().recv_timeout(self.next(phase, now) - now);
            if shutdown.requested() {
                return;
            }
            what();
        }
    }

    /// The first time from `now` on that is `phase` after the beginning of a second.
    fn next(self, phase: Duration, now: Instant) -> Instant {
        let first = self.0 + phase;
        let seconds = now.saturating_duration_since(first).as_nanos().div_ceil(PERIOD.as_nanos());
        first + PERIOD * u32::try_from(seconds).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_stay_in_step_however_long_one_takes() {
        let start = Instant::now();
        let pace = Pace::new(start);
        let millis = |millis| start + Duration::from_millis(millis);
        for (now, next) in [(0, 150), (149, 150), (150, 150), (151, 1150), (1150, 1150), (4999, 5150)] {
            assert_eq!(pace.next(SHOW, millis(now)), millis(next), "at {now} ms");
        }
    }
}
