//! Limits on what one connection may send, hold and wait for.

use std::time::Duration;

/// Most header lines in one request.
pub const MAX_HEADERS: usize = 100;

/// Most bytes of a request target.
pub const MAX_TARGET_BYTES: usize = 8 << 10;

/// Most bytes of trailers after a chunked body.
pub const MAX_TRAILER_BYTES: usize = 8 << 10;

/// Most bytes of a chunk's size line, with its extensions.
pub const MAX_SIZE_LINE_BYTES: usize = 1 << 10;

/// The limits of every connection.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Most bytes from the method to the empty line.
    pub head_bytes: usize,
    /// Longest time from the first to the last byte of a head.
    pub head_time: Duration,
    /// Longest silence between two requests.
    pub idle_time: Duration,
    /// Time that every body may take, however small it is.
    pub body_time: Duration,
    /// Slowest upload: each of this many bytes adds a second to the time.
    pub body_bytes_per_second: u64,
    /// Longest time that any body may take.
    pub longest_body_time: Duration,
    /// Longest time without progress while an answer is being sent.
    pub write_time: Duration,
    /// Answers that may wait to be sent; a client that lets more of them pile up is cut off.
    pub output_bytes: usize,
    /// Most requests of one connection that are being served; the next ones wait unread.
    pub pipelined: usize,
    /// Largest body of a refused request that is read so that the connection survives.
    pub skipped_bytes: u64,
    /// Most bytes that are read and discarded after the last answer.
    pub linger_bytes: u64,
    /// Longest time for which bytes are read and discarded after the last answer.
    pub linger_time: Duration,
    /// The same after a client that was too slow.
    pub slow_linger_time: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head_bytes: 32 << 10,
            head_time: Duration::from_secs(20),
            idle_time: Duration::from_secs(75),
            body_time: Duration::from_secs(20),
            body_bytes_per_second: 16 << 10,
            longest_body_time: Duration::from_secs(600),
            write_time: Duration::from_secs(20),
            output_bytes: 256 << 10,
            pipelined: 64,
            skipped_bytes: 64 << 10,
            linger_bytes: 32 << 20,
            linger_time: Duration::from_secs(10),
            slow_linger_time: Duration::from_secs(1),
        }
    }
}

impl Limits {
    /// Longest time for a body of `bytes` bytes: announced ones, or those that have arrived if the client
    /// announces nothing.
    pub fn time_for_body(&self, bytes: u64) -> Duration {
        let upload = Duration::from_secs(bytes / self.body_bytes_per_second.max(1));
        self.body_time.saturating_add(upload).min(self.longest_body_time.max(self.body_time))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_has_time_in_proportion_to_its_size() {
        let limits = Limits::default();
        assert_eq!(limits.time_for_body(100), Duration::from_secs(20));
        assert_eq!(limits.time_for_body(1 << 20), Duration::from_secs(20 + 64));
        assert_eq!(limits.time_for_body(u64::MAX), Duration::from_secs(600));
    }
}
