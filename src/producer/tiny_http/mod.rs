//! The HTTP front on tiny_http, and everything that exists only because of it: limits, repairs and endings.

mod closer;
mod connections;
mod exchange;
pub mod front;
mod guard;
mod keep_warm;
mod listener;
mod orders;
mod panics;
mod reaper;
mod supervisor;
mod watch;
mod worker;
