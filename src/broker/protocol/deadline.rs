//! Arithmetic with deadlines: one broker's share of the time left, and extra time for large transfers.

use std::time::{Duration, Instant};

use crate::transport::left;

/// Minimum speed of a transfer that takes longer than its request's deadline, in bytes per second.
const SLOWEST: usize = 1 << 20;

/// Time for a broker's response to arrive after the broker has stopped waiting for replicas.
const ANSWER_TIME: Duration = Duration::from_millis(250);

/// A deadline that leaves equal time for each of `waiting` brokers, the first of which starts now.
pub fn share(deadline: Instant, waiting: usize) -> Instant {
    Instant::now() + left(deadline) / u32::try_from(waiting.max(1)).unwrap_or(u32::MAX)
}

/// Extra time for a request that transfers `bytes`, compared with one of the usual size.
pub fn transfer_time(bytes: usize) -> Duration {
    Duration::from_millis((bytes / (SLOWEST / 1000)) as u64)
}

/// How long a broker may wait for its replicas so that its response still reaches us before `deadline`.
pub fn ack_timeout(deadline: Instant) -> Duration {
    let left = left(deadline);
    left - (left / 4).min(ANSWER_TIME)
}
