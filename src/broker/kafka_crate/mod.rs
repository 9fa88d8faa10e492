//! The client built on the `kafka` crate, for brokers that support version 0 requests.
//!
//! No other module uses the crate. Each broker has its own `KafkaClient`, so that one broker's failure does
//! not affect the others and each client has exactly one socket, whose calls can be bounded by shutting it
//! down. Any error other than a broker's code ends the client. The crate never notices that a connection is
//! dead, and after a lost response it takes the next one for it.

mod client;
mod fetch;
mod limit;
mod next;
mod session;

pub use client::CrateConnector;
