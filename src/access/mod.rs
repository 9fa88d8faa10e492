//! Who may write: keys of clients, their limits, and signatures of webhooks. Pure: no I/O, no threads, no clock.
//!
//! Start with `file`, which describes the lines of a key file, then `keys`, which decides about a request.

pub mod credential;
pub mod file;
pub mod key;
pub mod keys;
pub mod limit;
pub mod origins;
pub mod share;
pub mod webhook;

#[cfg(test)]
mod tests;
