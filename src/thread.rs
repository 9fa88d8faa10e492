//! Named threads: the one way in which this crate starts a thread that lives on.

use std::io;
use std::thread::{Builder, JoinHandle};

/// Starts a thread whose name shows in `top -H`, in a debugger and in the message of a panic.
///
/// # Errors
/// The system has none left.
pub fn spawn<T: Send + 'static>(
    name: impl Into<String>,
    body: impl FnOnce() -> T + Send + 'static,
) -> io::Result<JoinHandle<T>> {
    Builder::new().name(name.into()).spawn(body)
}
