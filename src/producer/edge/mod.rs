//! The HTTP front of our own: event loops over epoll, with every limit of a connection enforced.

mod acceptor;
mod clients;
mod connection;
mod event_loop;
mod exchange;
pub mod front;
mod loops;
mod mailbox;
mod poller;
mod serve;
mod service;
mod steps;
#[cfg(test)]
mod tests;

#[cfg(fuzzing)]
pub use connection::fuzzed;
