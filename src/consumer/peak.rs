//! Decides when memory that a backlog has needed is given back. Pure.

use std::time::{Duration, Instant};

/// As many bytes settled at once are a backlog.
const BACKLOG_BYTES: usize = 256 << 10;

/// How long no backlog must have been settled. Giving memory back and asking for it again takes time, so it must not
/// happen while one batch is large and the next one small.
const QUIET: Duration = Duration::from_secs(10);

/// The last backlog, if its memory was not given back yet.
#[derive(Debug, Default)]
pub struct Peak {
    last: Option<Instant>,
}

impl Peak {
    /// Returns true if it is time to give memory back, after `bytes` bytes were settled.
    pub fn is_over(&mut self, bytes: usize, now: Instant) -> bool {
        if bytes >= BACKLOG_BYTES {
            self.last = Some(now);
        }
        self.last.take_if(|last| now.duration_since(*last) >= QUIET).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_given_back_once_after_each_backlog() {
        let (mut peak, start) = (Peak::default(), Instant::now());
        let mut is_over = |bytes, second| peak.is_over(bytes, start + Duration::from_secs(second));
        assert!(!is_over(BACKLOG_BYTES - 1, 0) && !is_over(0, 100), "no backlog");
        assert!(!is_over(BACKLOG_BYTES, 200) && !is_over(0, 209));
        assert!(!is_over(BACKLOG_BYTES, 209) && !is_over(0, 218), "not between large batches");
        assert!(is_over(0, 219) && !is_over(0, 300), "once");
    }
}
