//! The state machine of one connection: bytes and the time go in; requests, bytes and deadlines come out.
//!
//! It has no sockets, clock or threads, so it can be tested and fuzzed as it is.

mod body;
mod chunked;
mod fields;
mod head;
mod input;
mod limits;
mod machine;
mod reader;
mod reading;
mod refusal;
mod replies;
mod scan;
mod signals;

#[cfg(fuzzing)]
#[path = "tests/fuzz.rs"]
mod fuzz;
#[cfg(any(test, fuzzing))]
#[path = "tests/owner.rs"]
mod owner;
#[cfg(test)]
#[path = "tests/properties.rs"]
mod properties;
#[cfg(test)]
mod tests;

pub use fields::Length;
#[cfg(fuzzing)]
pub use fuzz::fuzzed;
pub use limits::Limits;
pub use machine::Connection;
pub use refusal::Refusal;
pub use signals::{Expired, Moment, Socket, Step};
