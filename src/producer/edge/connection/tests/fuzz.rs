//! The entry point of `fuzz/` into the state machine; compiled only there (`--cfg fuzzing`).

use std::time::{Duration, Instant};

use super::owner::{abandoned, outcome};
use super::signals::Socket;

/// Sends `bytes`, except for the first few, whole and in pieces of the sizes that those name, and panics if
/// the outcome depends on that, or if a client that abandons its connection keeps it. The owner of the connection checks how much memory it holds.
pub fn fuzzed(bytes: &[u8], now: Instant) {
    let Some((sizes, input)) = bytes.split_at_checked(4) else { return };
    let mut cuts = Vec::new();
    let mut at = 0;
    for size in sizes.iter().cycle() {
        at += 1 + usize::from(*size);
        if at >= input.len() {
            break;
        }
        cuts.push(at);
    }
    let whole = outcome(input, &[], false, now);
    assert_eq!(whole, outcome(input, &cuts, sizes[0] % 2 == 1, now));
    assert_eq!(whole.2, Socket::Close);
    let pause = Duration::from_millis(u64::from(sizes[2]) * 100);
    assert!(abandoned(input, &cuts, sizes[1] % 2 == 1, pause, now));
}
