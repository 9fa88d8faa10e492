//! Computes when each request of a phase starts and when the phase ends. Pure: `now` is passed in.

use std::time::{Duration, Instant};

/// How long after the end of a phase requests that are behind schedule may still begin.
const GRACE: Duration = Duration::from_secs(1);

/// A part of a run with its own clock: the warm-up or the measurement.
#[derive(Clone, Copy, Debug)]
pub struct Phase {
    /// Number of requests; `None` if only the duration ends the phase.
    pub requests: Option<u64>,
    /// Duration of the schedule; `None` if only the number of requests ends the phase.
    pub duration: Option<Duration>,
    /// Requests per second on a fixed schedule (open loop). With `None`, each thread sends as soon as it has
    /// a response (closed loop).
    pub rate: Option<f64>,
}

impl Phase {
    /// The intended start of request `index` of a phase that began at `start`. Returns `None` if the phase
    /// ends before that, or if it ended so long ago that the request is given up.
    pub fn intended_start(&self, index: u64, start: Instant, now: Instant) -> Option<Instant> {
        if self.requests.is_some_and(|requests| index >= requests) {
            return None;
        }
        let intended = match self.rate {
            Some(rate) => start + Duration::from_secs_f64(index as f64 / rate),
            None => now,
        };
        let ended = self.duration.is_some_and(|duration| intended >= start + duration);
        let given_up = self.last_moment(start).is_some_and(|last| now > last);
        (!ended && !given_up).then_some(intended)
    }

    /// The time after which no request or retry begins; `None` if only the number of requests ends the phase.
    pub fn last_moment(&self, start: Instant) -> Option<Instant> {
        self.duration.map(|duration| start + duration + GRACE)
    }

    /// Number of requests on the schedule of an open loop with a duration; `None` for any other phase.
    pub fn scheduled(&self) -> Option<u64> {
        let by_time = (self.rate? * self.duration?.as_secs_f64()).ceil() as u64;
        Some(self.requests.map_or(by_time, |requests| requests.min(by_time)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn an_open_loop_keeps_its_schedule_however_late_it_is_until_its_time_is_long_over() {
        let start = Instant::now();
        let phase = Phase { requests: None, duration: Some(SECOND), rate: Some(4.0) };
        let late = start + SECOND + GRACE;
        let starts: Vec<_> =
            (0..5).map(|index| phase.intended_start(index, start, late).map(|at| at - start)).collect();
        let quarter = SECOND / 4;
        assert_eq!(starts, [Some(Duration::ZERO), Some(quarter), Some(quarter * 2), Some(quarter * 3), None]);
        assert_eq!(phase.scheduled(), Some(4));
        assert_eq!(Phase { requests: Some(3), ..phase }.scheduled(), Some(3));
        assert_eq!(phase.intended_start(0, start, late + Duration::from_nanos(1)), None);
    }

    #[test]
    fn a_closed_loop_begins_now_until_the_count_or_the_time_is_used_up() {
        let start = Instant::now();
        let phase = Phase { requests: Some(2), duration: Some(SECOND), rate: None };
        let now = start + SECOND / 2;
        assert_eq!(phase.intended_start(1, start, now), Some(now));
        assert_eq!(phase.intended_start(2, start, now), None);
        assert_eq!(phase.intended_start(1, start, start + SECOND), None);
    }
}
