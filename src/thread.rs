//! Starts named threads; every long-lived thread of this crate is started here.

use std::io;
use std::thread::{Builder, JoinHandle};

use crate::thread_limit;

/// Starts a thread whose name is shown by `top -H`, debuggers and panic messages.
///
/// # Errors
/// The system cannot start another thread; the message names the limit.
pub fn spawn<T: Send + 'static>(
    name: impl Into<String>,
    body: impl FnOnce() -> T + Send + 'static,
) -> io::Result<JoinHandle<T>> {
    let name = name.into();
    Builder::new().name(name.clone()).spawn(body).map_err(|error| {
        let limit = thread_limit::tightest().map_or_else(String::new, |room| format!("; see {}", room.limit));
        io::Error::new(error.kind(), format!("cannot start thread {name}: {error}{limit}"))
    })
}
