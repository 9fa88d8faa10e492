//! Rebuilds the tiny_http server when its accept loop ends, and gives up when that cannot help.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam::channel::Sender;
use parking_lot::Mutex;
use tiny_http::Server;

use crate::producer::stop::Stop;
use crate::producer::tiny_http::keep_warm::KeepWarm;
use crate::producer::tiny_http::worker::Worker;
use crate::thread::spawn;

/// Failures in a row to rebuild the accept loop after which the process has to be replaced, and the pause
/// between attempts: together about a minute.
const MAX_FAILED_REBUILDS: u32 = 300;
const REBUILD_PAUSE: Duration = Duration::from_millis(200);

/// State shared by the threads that can notice a failure.
pub struct Supervisor {
    /// Serves the clients of replaced servers.
    pub worker: Worker,
    /// Where faults that cannot be repaired are reported.
    pub stop: Sender<Stop>,
    /// Threads of replaced servers.
    pub retired: Mutex<Vec<JoinHandle<()>>>,
    /// Failures in a row to rebuild.
    pub failed_rebuilds: AtomicU32,
    pub keep_warm: Arc<KeepWarm>,
}

impl Supervisor {
    /// Rebuilds the accept loop of `generation`; tries until that succeeds or the producer stops.
    pub fn rebuild(&self, generation: u64) {
        while !self.try_rebuild(generation) {
            thread::sleep(REBUILD_PAUSE);
        }
    }

    /// Rebuilds the accept loop of `generation`, which does not answer; the next check tries again.
    pub fn rebuild_silent(&self, generation: u64) {
        log::error!("no answer from our own port; rebuilding the accept loop");
        self.try_rebuild(generation);
    }

    /// Stops the producer because too many connection threads are `lost`; the process has to be replaced.
    pub fn give_up(&self, lost: usize) {
        if self.worker.handler.health.drain() {
            let _ = self.stop.send(Stop::LeakBudget(lost));
        }
    }

    /// Returns true if there is nothing left to do for this generation.
    fn try_rebuild(&self, generation: u64) -> bool {
        match self.worker.listener.rebuild(generation) {
            Ok(None) => true,
            Ok(Some(old)) => {
                self.failed_rebuilds.store(0, Ordering::Relaxed);
                self.worker.handler.metrics.http.accept_restarts.inc();
                self.keep_warm.close();
                self.retire(old);
                log::info!("rebuilt the accept loop");
                true
            }
            // Most likely out of descriptors or threads, which become free again when clients leave.
            Err(error) => {
                let failed = self.failed_rebuilds.fetch_add(1, Ordering::Relaxed);
                if failed == 0 {
                    log::error!("cannot rebuild the accept loop yet: {error}; still trying");
                } else if failed == MAX_FAILED_REBUILDS {
                    let _ = self.stop.send(Stop::ListenerLost(error));
                }
                failed >= MAX_FAILED_REBUILDS
            }
        }
    }

    fn retire(&self, server: Arc<Server>) {
        let worker = self.worker.clone();
        match spawn("http-retired", move || worker.serve_replaced(&server)) {
            Ok(thread) => self.retired.lock().push(thread),
            Err(error) => log::error!("clients of the replaced server are not served: {error}"),
        }
    }
}
