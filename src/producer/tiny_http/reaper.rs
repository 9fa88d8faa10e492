//! Decides which connections to close, from what the kernel and the handler report about them.
//!
//! tiny_http has no timeouts of its own, so a client that sends nothing, or a byte now and then, would hold a
//! thread forever.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::linux::TcpCounters;
use crate::producer::tiny_http::connections::Progress;

/// How long one body may take, and how long it may pause, while other large bodies wait for a thread.
const PRESSED_BODY: Duration = Duration::from_secs(2);
const PRESSED_PAUSE: Duration = Duration::from_millis(300);

/// Limits on connections.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// A connection that sends nothing for this long is closed.
    pub idle: Duration,
    /// A request has to be complete this long after its first byte.
    pub request: Duration,
    /// Most open connections.
    pub connections: usize,
}

/// One open client connection, as seen in this sweep.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// The client's address.
    pub peer: SocketAddr,
    /// What the kernel counted.
    pub counters: TcpCounters,
    /// What the handler knows about it; `None` before the first request.
    pub progress: Option<Progress>,
}

/// Why a connection is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// It sent nothing for too long.
    Idle,
    /// It began a request and did not complete it in time.
    SlowHead,
    /// It sends the body of a request too slowly.
    SlowBody,
    /// There are too many, and it is among the newest.
    TooMany,
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    taken: u64,
    bytes_at_taken: u64,
    partial_since: Option<Instant>,
}

/// Remembers connections from one sweep to the next.
#[derive(Debug)]
pub struct Reaper {
    limits: Limits,
    seen: HashMap<SocketAddr, Seen>,
}

impl Reaper {
    /// Starts without connections.
    pub fn new(limits: Limits) -> Self {
        Self { limits, seen: HashMap::new() }
    }

    /// Decides about all open connections. `pressed` means that large bodies are waiting for a thread to read
    /// them.
    pub fn sweep(&mut self, samples: &[Sample], now: Instant, pressed: bool) -> Vec<(SocketAddr, Cut)> {
        let mut cuts = Vec::new();
        let mut seen = HashMap::with_capacity(samples.len());
        let mut room_for_new = self.limits.connections.saturating_sub(self.known(samples));
        for sample in samples {
            let known = self.seen.get(&sample.peer).copied();
            if known.is_none() {
                if room_for_new == 0 {
                    cuts.push((sample.peer, Cut::TooMany));
                    continue;
                }
                room_for_new -= 1;
            }
            let (next, cut) = self.judge(sample, known, now, pressed);
            cuts.extend(cut.map(|cut| (sample.peer, cut)));
            seen.insert(sample.peer, next);
        }
        self.seen = seen;
        cuts
    }

    fn known(&self, samples: &[Sample]) -> usize {
        samples.iter().filter(|sample| self.seen.contains_key(&sample.peer)).count()
    }

    fn judge(
        &self,
        sample: &Sample,
        known: Option<Seen>,
        now: Instant,
        pressed: bool,
    ) -> (Seen, Option<Cut>) {
        let taken = sample.progress.map_or(0, |progress| progress.taken);
        let bytes = sample.counters.bytes_received;
        let mut seen = known.unwrap_or(Seen { taken, bytes_at_taken: 0, partial_since: None });
        if taken != seen.taken || known.is_none() && taken > 0 {
            seen = Seen { taken, bytes_at_taken: bytes, partial_since: None };
        }
        if let Some(since) = sample.progress.and_then(|progress| progress.body_awaited_since) {
            let waited = now.saturating_duration_since(since);
            let paused = sample.counters.since_last_data > PRESSED_PAUSE;
            let limit = if pressed { self.limits.request.min(PRESSED_BODY) } else { self.limits.request };
            // A body that is complete and only waits for a thread loses nothing: what has arrived can still
            // be read.
            return (seen, (waited > limit || pressed && paused).then_some(Cut::SlowBody));
        }
        if sample.progress.is_some_and(|progress| progress.busy) {
            seen.partial_since = None;
            seen.bytes_at_taken = bytes;
            return (seen, None);
        }
        if bytes > seen.bytes_at_taken {
            let since = *seen.partial_since.get_or_insert(now);
            if now.saturating_duration_since(since) > self.limits.request {
                return (seen, Some(Cut::SlowHead));
            }
        }
        (seen, (sample.counters.since_last_data > self.limits.idle).then_some(Cut::Idle))
    }
}

#[cfg(test)]
mod tests {
    use crate::linux::TcpState;

    use super::*;

    const LIMITS: Limits =
        Limits { idle: Duration::from_secs(60), request: Duration::from_secs(20), connections: 2 };

    fn sample(port: u16, bytes_received: u64, idle_secs: u64, progress: Option<Progress>) -> Sample {
        let since_last_data = Duration::from_secs(idle_secs);
        let counters = TcpCounters { since_last_data, bytes_received, state: TcpState::Open };
        Sample { peer: ([127, 0, 0, 1], port).into(), counters, progress }
    }

    fn progress(taken: u64, busy: bool, body_awaited_since: Option<Instant>) -> Option<Progress> {
        Some(Progress { taken, busy, body_awaited_since })
    }

    /// Decisions about one connection over sweeps at the given seconds.
    fn verdicts(sweeps: &[(u64, Sample)], pressed: bool) -> Vec<Option<Cut>> {
        let (start, mut reaper) = (Instant::now(), Reaper::new(LIMITS));
        let mut verdict = |&(second, sample): &(u64, Sample)| {
            let cuts = reaper.sweep(&[sample], start + Duration::from_secs(second), pressed);
            cuts.first().map(|&(_, cut)| cut)
        };
        sweeps.iter().map(&mut verdict).collect()
    }

    #[test]
    fn silence_is_cut_unless_an_answer_is_due() {
        assert_eq!(verdicts(&[(0, sample(1, 0, 61, None))], false), [Some(Cut::Idle)]);
        assert_eq!(verdicts(&[(0, sample(1, 9, 61, progress(1, true, None)))], false), [None]);
    }

    #[test]
    fn a_trickled_head_is_cut_though_bytes_keep_coming() {
        let trickle = [(0, sample(1, 1, 0, None)), (10, sample(1, 2, 0, None)), (21, sample(1, 3, 0, None))];
        assert_eq!(verdicts(&trickle, false), [None, None, Some(Cut::SlowHead)]);
    }

    #[test]
    fn a_second_head_is_timed_from_its_own_first_byte() {
        let done = progress(1, false, None);
        let sweeps = [
            (0, sample(1, 100, 0, done)),
            (30, sample(1, 100, 30, done)),
            (31, sample(1, 101, 0, done)),
            (50, sample(1, 102, 0, done)),
            (52, sample(1, 103, 0, done)),
        ];
        assert_eq!(verdicts(&sweeps, false), [None, None, None, None, Some(Cut::SlowHead)]);
    }

    #[test]
    fn a_client_that_keeps_sending_whole_requests_is_left_alone() {
        let busy: Vec<_> =
            (0..10).map(|i| (i * 10, sample(1, i * 100, 0, progress(i, false, None)))).collect();
        assert_eq!(verdicts(&busy, false), [None; 10]);
    }

    #[test]
    fn a_slow_body_has_less_time_when_the_threads_are_busy() {
        let since = Instant::now();
        let reading = [(5, sample(1, 100, 0, progress(1, true, Some(since))))];
        assert_eq!(verdicts(&reading, false), [None]);
        assert_eq!(verdicts(&reading, true), [Some(Cut::SlowBody)]);
    }

    #[test]
    fn the_newest_go_when_there_are_too_many() {
        let (start, mut reaper) = (Instant::now(), Reaper::new(LIMITS));
        let all = [sample(1, 0, 0, None), sample(2, 0, 0, None), sample(3, 0, 0, None)];
        assert!(reaper.sweep(&all[..1], start, false).is_empty());
        assert_eq!(reaper.sweep(&all, start, false), [(all[2].peer, Cut::TooMany)]);
    }
}
