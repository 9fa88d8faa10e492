//! The byte stream of a connection to a server: TCP, TLS, and a deadline for each call. Knows no protocol above it.

#[cfg(feature = "tls")]
mod anyone;
mod deadline;
mod stream;
pub mod tcp;
#[cfg(feature = "tls")]
pub mod tls;

pub use deadline::left;
pub use stream::{Refused, Transport, Until};
