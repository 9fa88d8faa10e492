//! Turns SIGHUP, which logrotate sends after renaming the log, into channel messages.

use std::io;
use std::thread::JoinHandle;

use crossbeam::channel::{Receiver, bounded};
use signal_hook::consts::SIGHUP;
use signal_hook::iterator::{Handle, Signals};

use crate::thread::spawn;

/// Listens until it is dropped.
pub struct Hangups {
    /// One message per signal; signals in quick succession may share one.
    pub messages: Receiver<()>,
    handle: Handle,
    thread: Option<JoinHandle<()>>,
}

impl Hangups {
    /// Starts listening.
    ///
    /// # Errors
    /// The signal handler cannot be installed or the thread cannot be started.
    pub fn listen() -> io::Result<Self> {
        let mut signals = Signals::new([SIGHUP])?;
        let handle = signals.handle();
        let (send, messages) = bounded(1);
        let thread = spawn("hangups", move || {
            for _ in signals.forever() {
                // If the channel is full, the writer will check the files anyway.
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
