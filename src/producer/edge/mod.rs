//! The HTTP front of our own: event loops over epoll, with every limit of a connection enforced.

mod connection;

#[cfg(fuzzing)]
pub use connection::fuzzed;
