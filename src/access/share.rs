//! What one client holds of the producer's queue.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Events and bytes between a client's requests and their answers.
#[derive(Debug, Default)]
pub struct Share {
    requests: AtomicUsize,
    events: AtomicUsize,
    bytes: AtomicUsize,
}

impl Share {
    /// A request begins. Returns true if it is the only one.
    pub fn enter(&self) -> bool {
        self.requests.fetch_add(1, Ordering::AcqRel) == 0
    }

    /// A request has ended. Returns true if there is none left.
    pub fn leave(&self) -> bool {
        self.requests.fetch_sub(1, Ordering::AcqRel) == 1
    }

    /// Adds to what is held; returns what is held then.
    pub fn add(&self, events: usize, bytes: usize) -> (usize, usize) {
        (
            self.events.fetch_add(events, Ordering::AcqRel) + events,
            self.bytes.fetch_add(bytes, Ordering::AcqRel) + bytes,
        )
    }

    /// Takes back what was added.
    pub fn remove(&self, events: usize, bytes: usize) {
        self.events.fetch_sub(events, Ordering::AcqRel);
        self.bytes.fetch_sub(bytes, Ordering::AcqRel);
    }
}
