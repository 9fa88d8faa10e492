//! The time left until a deadline.

use std::time::{Duration, Instant};

/// Time until `deadline`; zero once it has passed.
pub fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}
