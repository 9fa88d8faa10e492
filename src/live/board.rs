//! Hands the latest snapshot to all viewers: one slot, which the next snapshot replaces.
//!
//! A slow viewer misses snapshots instead of making them wait, so memory does not depend on how viewers read.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use tungstenite::Utf8Bytes;

/// One snapshot, rendered once for all viewers. A clone shares the text.
#[derive(Debug)]
pub struct Snapshot {
    /// Rises by one.
    pub number: u64,
    /// Everything, with the last five minutes.
    pub whole: Utf8Bytes,
    /// The same for a viewer that has the snapshot before this one.
    pub change: Utf8Bytes,
}

/// What a viewer finds.
#[derive(Debug)]
pub enum Next {
    Snapshot(Arc<Snapshot>),
    /// Nothing new within the limit.
    Nothing,
    /// There will be no more.
    Ended,
}

/// The slot.
#[derive(Debug, Default)]
pub struct Board {
    slot: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    latest: Option<Arc<Snapshot>>,
    has_ended: bool,
}

impl Board {
    /// Replaces the latest snapshot.
    pub fn publish(&self, snapshot: Snapshot) {
        self.slot.lock().latest = Some(Arc::new(snapshot));
        self.changed.notify_all();
    }

    /// Lets all viewers end.
    pub fn end(&self) {
        self.slot.lock().has_ended = true;
        self.changed.notify_all();
    }

    /// True once there is a snapshot.
    pub fn has_begun(&self) -> bool {
        self.slot.lock().latest.is_some()
    }

    /// Waits at most `limit` for a snapshot other than number `seen`.
    pub fn next(&self, seen: u64, limit: Duration) -> Next {
        let deadline = Instant::now() + limit;
        let mut state = self.slot.lock();
        loop {
            if state.has_ended {
                return Next::Ended;
            }
            if let Some(latest) = state.latest.as_ref().filter(|latest| latest.number != seen) {
                return Next::Snapshot(latest.clone());
            }
            if self.changed.wait_until(&mut state, deadline).timed_out() {
                return Next::Nothing;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(number: u64) -> Snapshot {
        Snapshot { number, whole: "whole".into(), change: "change".into() }
    }

    #[test]
    fn a_viewer_gets_the_latest_and_then_waits() {
        let board = Board::default();
        assert!(matches!(board.next(0, Duration::ZERO), Next::Nothing) && !board.has_begun());
        (1..=3).for_each(|number| board.publish(snapshot(number)));
        assert!(matches!(board.next(0, Duration::ZERO), Next::Snapshot(found) if found.number == 3));
        assert!(matches!(board.next(3, Duration::from_millis(1)), Next::Nothing));
        board.end();
        assert!(matches!(board.next(0, Duration::from_secs(60)), Next::Ended));
    }

    #[test]
    fn a_waiting_viewer_is_woken() {
        let board = Arc::new(Board::default());
        let waiting = board.clone();
        let viewer = std::thread::spawn(move || waiting.next(0, Duration::from_secs(60)));
        board.publish(snapshot(1));
        assert!(matches!(viewer.join().expect("no panic"), Next::Snapshot(_)));
    }
}
