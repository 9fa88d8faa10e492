//! Watches the file of keys, and the files of secrets that it names, on a thread of its own.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam::channel::{RecvTimeoutError, Sender, bounded};

use crate::producer::gate::Gate;
use crate::producer::metrics::ProducerMetrics;
use crate::thread::spawn;

/// How often the files are read. They are compared by content, since a mounted secret changes by a symbolic link.
const INTERVAL: Duration = Duration::from_secs(1);

/// The running thread; dropping it ends the thread.
pub struct KeysWatch {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl KeysWatch {
    /// Starts to watch.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn start(gate: Arc<Gate>, metrics: Arc<ProducerMetrics>) -> io::Result<Self> {
        let (stop, stopped) = bounded::<()>(0);
        let thread = spawn("keys", move || {
            let mut reported = None;
            while stopped.recv_timeout(INTERVAL) == Err(RecvTimeoutError::Timeout) {
                match gate.reload() {
                    Ok(false) => {}
                    Ok(true) => {
                        metrics.access.reloads.with_label_values(&["ok"]).inc();
                        let keys = gate.keys();
                        log::info!(
                            "new keys in force: clients={} keys={}",
                            keys.clients.len(),
                            keys.by_id.len()
                        );
                        reported = None;
                    }
                    Err(reason) if reported.as_ref() == Some(&reason) => {}
                    Err(reason) => {
                        metrics.access.reloads.with_label_values(&["refused"]).inc();
                        log::error!("{reason}; the keys from before stay in force");
                        reported = Some(reason);
                    }
                }
            }
        })?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for KeysWatch {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
