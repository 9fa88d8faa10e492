//! The HTTP front on tiny_http, and everything that exists only because of it: limits, repairs and endings.

pub mod closer;
pub mod connections;
pub mod exchange;
pub mod front;
pub mod guard;
pub mod mender;
pub mod plugs;
pub mod reaper;
pub mod watch;
