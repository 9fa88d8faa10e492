//! Fuzzes the decoding of broker responses: no panic, no wrong page, no memory beyond the limits.
//! `scripts/fuzz.sh` builds and runs it.

#![no_main]

use event_pipeline::broker::fuzzed;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| fuzzed(bytes));
