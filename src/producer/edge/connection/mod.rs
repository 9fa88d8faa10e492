//! The state machine of one connection: bytes and the time go in; requests, bytes and deadlines come out.
//!
//! It has no sockets, clock or threads, so it can be tested and fuzzed as it is.

mod body;
mod chunked;
mod fields;
#[cfg(fuzzing)]
mod fuzz;
mod head;
mod input;
mod limits;
mod machine;
#[cfg(any(test, fuzzing))]
mod owner;
#[cfg(test)]
mod properties;
mod reader;
mod reading;
mod refusal;
mod replies;
mod scan;
mod signals;
#[cfg(test)]
mod tests;

pub use fields::Length;
#[cfg(fuzzing)]
pub use fuzz::fuzzed;
pub use limits::Limits;
pub use machine::Connection;
pub use refusal::Refusal;
pub use signals::{Expired, Moment, Socket, Step};
