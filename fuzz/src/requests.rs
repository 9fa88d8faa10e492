//! Fuzzes the state machine of an HTTP connection: the outcome does not depend on how the bytes arrive, and
//! no input grows memory past the limits. `scripts/fuzz.sh` builds and runs it.

#![no_main]

use std::time::Instant;

use event_pipeline::producer::fuzzed;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| fuzzed(bytes, Instant::now()));
