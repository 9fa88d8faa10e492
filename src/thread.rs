//! Starts named threads and waits for them; every long-lived thread of this crate is started here.

use std::io;
use std::thread::{self, Builder, JoinHandle};
use std::time::{Duration, Instant};

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

/// Waits for `threads` to end. Those that are still busy at `deadline` are left until the process ends.
pub fn join_until(threads: impl IntoIterator<Item = JoinHandle<()>>, deadline: Instant) {
    for thread in threads {
        while !thread.is_finished() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(1));
        }
        if !thread.is_finished() {
            log::warn!("thread {} is still busy", thread.thread().name().unwrap_or("?"));
        } else if thread.join().is_err() {
            log::error!("a thread panicked; see the log above");
        }
    }
}
