//! The tables of a PostgreSQL database as a destination: rows by COPY, and the offsets in the same transaction.
//!
//! ```text
//! records ─▶ batch ─▶ transaction { offsets (fence), events, rejects } ─▶ COMMIT ─▶ covered
//! ```
//!
//! What `event_offsets` says is the progress. A commit of unknown outcome is resolved by reading it again, and a
//! transaction of a consumer that was replaced changes no row of it, so it is rolled back.

pub mod batch;
pub mod check;
pub mod connection;
pub mod copy;
pub mod destination;
#[cfg(feature = "tls")]
pub mod endpoint;
pub mod error;
pub mod hosts;
pub mod login;
pub mod metrics;
pub mod offsets;
pub mod open;
pub mod probe;
pub mod refusal;
pub mod resume;
pub mod rows;
pub mod session;
pub mod take;
pub mod transaction;
