//! Decides how long a batch waits for more events; `now` is passed in.
//!
//! A call to Kafka costs the same processor time for one event as for some dozens, so a steady stream is cheaper in
//! larger batches. But an event that comes alone must not wait. So the time is counted from the last call, not from the
//! first event of the batch, and the wait ends with the events that were there last time.
//!
//! Clients that send again once they are answered gain nothing from it: all of them would wait for the last one. They
//! are known by calls during which nothing arrives.

use std::time::{Duration, Instant};

/// Most events for which a batch waits. Above it, more of them save little.
const ENOUGH_EVENTS: usize = 16;

/// Time from one call to the next while events are waited for: so many times as long as a call takes, within a limit.
const CALLS: u32 = 4;
const MAX_GAP: Duration = Duration::from_millis(2);

/// Weight of the last call in the mean duration of a call is one in this.
const WEIGHT: u32 = 8;

/// After so many calls in a row during which nothing arrived, as many others do not wait.
const QUIET_CALLS: u32 = 8;
const UNGROUPED_CALLS: u32 = 500;

/// What was seen of the last calls.
#[derive(Debug, Default)]
pub struct Grouping {
    /// When the last successful call began.
    last: Option<Instant>,
    /// Mean duration of a call.
    call: Duration,
    /// Events that were on their way when it ended: its own, and those that had arrived meanwhile.
    expected: usize,
    /// Calls in a row with several events during which nothing arrived.
    quiet: u32,
    /// Calls that are still to be made without waiting.
    ungrouped: u32,
}

impl Grouping {
    /// Notes a call with `sent` events from `began` to `now`, at the end of which `waiting` others had arrived.
    pub fn called(&mut self, began: Instant, now: Instant, sent: usize, waiting: usize) {
        let call = now.saturating_duration_since(began);
        let is_first = self.last.is_none();
        self.call = if is_first { call } else { (self.call * (WEIGHT - 1) + call) / WEIGHT };
        (self.last, self.expected) = (Some(began), sent + waiting);
        self.quiet = if waiting == 0 && sent > 1 { self.quiet + 1 } else { 0 };
        self.ungrouped = self.ungrouped.saturating_sub(1);
        if self.quiet == QUIET_CALLS {
            (self.quiet, self.ungrouped) = (0, UNGROUPED_CALLS);
        }
    }

    /// True if a batch of so many events need not wait.
    pub fn is_enough(&self, events: usize) -> bool {
        self.ungrouped > 0 || events >= self.expected.min(ENOUGH_EVENTS)
    }

    /// Until when a batch that is not enough waits. Past if the last call began long ago.
    pub fn until(&self, now: Instant) -> Instant {
        self.last.map_or(now, |last| last + (self.call * CALLS).min(MAX_GAP))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLI: Duration = Duration::from_millis(1);

    /// Batches of a stream with `every` between two events, and a call that takes `call`: events and the longest wait.
    fn stream(every: Duration, call: Duration, batches: usize) -> (usize, Duration) {
        let start = Instant::now();
        let mut grouping = Grouping::default();
        let (mut now, mut next, mut events, mut longest) = (start, start, 0, Duration::ZERO);
        for _ in 0..batches {
            now = now.max(next);
            let (first, mut batch) = (next, 0);
            while next <= now {
                (next, batch) = (next + every, batch + 1);
            }
            let until = grouping.until(now);
            while !grouping.is_enough(batch) && next <= until {
                now = now.max(next);
                (next, batch) = (next + every, batch + 1);
            }
            if !grouping.is_enough(batch) {
                now = now.max(until);
            }
            longest = longest.max(now.saturating_duration_since(first));
            events += batch;
            let began = now;
            now += call;
            let waiting = now.saturating_duration_since(next).as_nanos() / every.as_nanos();
            grouping.called(began, now, batch, waiting as usize + usize::from(next <= now));
        }
        (events, longest)
    }

    #[test]
    fn an_event_that_comes_alone_does_not_wait() {
        for every in [2 * MILLI, 10 * MILLI, 1000 * MILLI] {
            assert_eq!(stream(every, MILLI / 2, 100), (100, Duration::ZERO), "{every:?}");
        }
    }

    #[test]
    fn a_steady_stream_is_grouped_and_waits_no_longer_than_the_gap() {
        // 10,000 per second, and calls in which three of them arrive.
        let (events, longest) = stream(MILLI / 10, 3 * MILLI / 10, 1000);
        assert!(events / 1000 >= 10, "{} per batch", events / 1000);
        assert!(longest <= 12 * MILLI / 10, "{longest:?}");
    }

    #[test]
    fn a_large_batch_does_not_wait() {
        let mut grouping = Grouping::default();
        let start = Instant::now();
        grouping.called(start, start + MILLI, 10_000, 10_000);
        assert!(grouping.is_enough(ENOUGH_EVENTS) && !grouping.is_enough(ENOUGH_EVENTS - 1));
        assert_eq!(grouping.until(start), start + MAX_GAP, "however long calls take");
    }

    #[test]
    fn those_who_send_again_once_answered_are_not_made_to_wait_for_each_other() {
        let mut grouping = Grouping::default();
        let start = Instant::now();
        // Ten clients: five were answered, five wait.
        grouping.called(start, start + MILLI / 4, 5, 5);
        assert!(!grouping.is_enough(5) && grouping.is_enough(10));
        assert_eq!(grouping.until(start), start + MILLI);
        // Now all ten come together, so nothing arrives during the call.
        for _ in 0..QUIET_CALLS {
            assert!(!grouping.is_enough(5));
            grouping.called(start, start + MILLI / 4, 10, 0);
        }
        for _ in 0..UNGROUPED_CALLS {
            assert!(grouping.is_enough(5));
            grouping.called(start, start + MILLI / 4, 5, 5);
        }
        assert!(!grouping.is_enough(5), "it is tried again");
    }
}
