//! Named threads: the one way in which this crate starts a thread that lives on.

use std::io;
use std::thread::{Builder, JoinHandle};

use crate::thread_limit;

/// Starts a thread whose name shows in `top -H`, in a debugger and in the message of a panic.
///
/// # Errors
/// The system has none left; the message names the limit.
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
