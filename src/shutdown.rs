//! Turns SIGTERM and SIGINT into a channel that disconnects when the program must shut down.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam::channel::{Receiver, Sender, bounded};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::thread;

/// Signals any number of threads that the process must stop. Clones share one state.
#[derive(Clone)]
pub struct Shutdown {
    requested: Arc<AtomicBool>,
    /// Never carries a message, but disconnects when the shutdown begins.
    closed: Receiver<()>,
}

/// The other end of a [`Shutdown`]. Dropping it begins the shutdown.
pub struct Trigger {
    requested: Arc<AtomicBool>,
    _open: Sender<()>,
}

impl Drop for Trigger {
    fn drop(&mut self) {
        self.requested.store(true, Ordering::SeqCst);
    }
}

impl Shutdown {
    /// Creates a shutdown that begins when the trigger is dropped, for tests and embedding.
    pub fn manual() -> (Trigger, Self) {
        let (open, closed) = bounded(0);
        let requested = Arc::new(AtomicBool::new(false));
        (Trigger { requested: requested.clone(), _open: open }, Self { requested, closed })
    }

    /// Creates a shutdown that begins at the first SIGTERM or SIGINT. At the second signal, `on_second` runs
    /// in the signal thread.
    ///
    /// # Errors
    /// The signal handlers cannot be installed or the thread cannot be started.
    pub fn on_signals(on_second: impl FnOnce() + Send + 'static) -> io::Result<Self> {
        let (trigger, shutdown) = Self::manual();
        let mut signals = Signals::new([SIGTERM, SIGINT])?;
        thread::spawn("signals", move || {
            let mut forever = signals.forever();
            let first = forever.next();
            log::info!("stopping after signal {}; a second signal exits at once", first.unwrap_or_default());
            drop(trigger);
            if forever.next().is_some() {
                on_second();
            }
        })?;
        Ok(shutdown)
    }

    /// True once the shutdown has begun.
    pub fn requested(&self) -> bool {
        self.requested.load(Ordering::SeqCst)
    }

    /// A channel for `select!` and `recv` that disconnects when the shutdown begins.
    pub fn closed(&self) -> &Receiver<()> {
        &self.closed
    }

    /// Blocks until the shutdown begins.
    pub fn wait(&self) {
        let _ = self.closed.recv();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dropping_the_trigger_reaches_every_clone() {
        let (trigger, shutdown) = Shutdown::manual();
        let clone = shutdown.clone();
        assert!(!clone.requested());
        drop(trigger);
        clone.wait();
        assert!(shutdown.requested() && clone.requested());
    }
}
