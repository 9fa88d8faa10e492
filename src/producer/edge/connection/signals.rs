//! Names what a connection and its owner tell each other.

use std::time::Instant;

use crate::producer::head::Head;

use super::fields::Length;
use super::refusal::Refusal;

/// The time of a call.
#[derive(Clone, Copy, Debug)]
pub struct Moment<'a> {
    /// On the monotonic clock.
    pub now: Instant,
    /// The same as an IMF-fixdate.
    pub date: &'a str,
}

/// What the owner of a connection has to do next. Requests are numbered from 0.
#[derive(Debug)]
pub enum Step<'a> {
    /// A head is complete: `Connection::accept` its body, or `Connection::answer` it.
    Request(u64, Head<'a>, Length),
    /// The body of a request needs more than these bytes: `Connection::extend` its room, or answer it.
    Room(u64, usize),
    /// The body of a request is complete; answer it at any time.
    Body(u64, Vec<u8>),
    /// The connection has refused a request by itself. There is nothing to do but count it.
    Refused(Refusal),
    /// Nothing, until there is input, an answer or a deadline.
    Wait,
}

/// What to do with the socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Socket {
    /// Keep it as it is.
    Keep,
    /// Shut its sending side, and go on reading.
    ShutWrite,
    /// Close it.
    Close,
}

/// What a deadline has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expired {
    /// A connection on which nothing was sent for too long.
    Idle,
    /// A connection whose client does not read its answers.
    Unread,
    /// A request that took too long. It has been answered.
    Slow(Refusal),
    /// The wait for the client to close, or for a body that is discarded.
    Discarded,
}
