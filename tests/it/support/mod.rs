//! What the tests stand on: real brokers, our real programs, sockets with faults, and waiting with a deadline.

#![allow(dead_code, reason = "a tool may wait for the first test that needs it")]

pub mod admin;
#[cfg(feature = "tls")]
pub mod certificates;
pub mod control;
pub mod http;
pub mod java;
pub mod kafka;
pub mod machine;
pub mod memory;
#[cfg(feature = "postgres")]
pub mod postgres;
pub mod preload;
pub mod process;
pub mod proxy;
#[cfg(feature = "s3")]
pub mod s3;
#[cfg(feature = "tls")]
pub mod secured;
pub mod topic;
pub mod wait;
