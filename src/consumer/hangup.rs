//! SIGHUP as messages: logrotate sends it after it has renamed the log.

use std::io;
use std::thread::JoinHandle;

use crossbeam::channel::{Receiver, bounded};
use signal_hook::consts::SIGHUP;
use signal_hook::iterator::{Handle, Signals};

use crate::thread::spawn;

/// Listens until it is dropped.
pub struct Hangups {
    /// One message a signal; several at once may become one.
    pub messages: Receiver<()>,
    handle: Handle,
    thread: Option<JoinHandle<()>>,
}

impl Hangups {
    /// Begins to listen.
    ///
    /// # Errors
    /// When the handler or the thread cannot be installed.
    pub fn listen() -> io::Result<Self> {
        let mut signals = Signals::new([SIGHUP])?;
        let handle = signals.handle();
        let (send, messages) = bounded(1);
        let thread = spawn("hangups", move || {
            for _ in signals.forever() {
                // A full channel: the writer looks anyway.
                let _ = send.try_send(());
            }
        })?;
        Ok(Self { messages, handle, thread: Some(thread) })
    }
}

impl Drop for Hangups {
    fn drop(&mut self) {
        self.handle.close();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
