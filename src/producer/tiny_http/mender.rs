//! Runs the workers' loop, and rebuilds the tiny_http server when it breaks.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam::channel::Sender;
use tiny_http::Server;

use crate::producer::Stop;
use crate::producer::handler::{Due, Handler};
use crate::producer::metrics::ProducerMetrics;
use crate::producer::tiny_http::exchange::{Arrival, Exchange};
use crate::producer::tiny_http::front::{Front, Took};
use crate::producer::tiny_http::plugs::Plugs;
use crate::thread::spawn;

/// How often the thread of a replaced server checks whether it should end.
const RETIRED_TICK: Duration = Duration::from_secs(1);

/// Failures in a row to rebuild the accept loop after which the process has to be replaced, and the pause
/// between attempts: together about a minute.
const MAX_FAILED_REBUILDS: u32 = 300;
const REBUILD_PAUSE: Duration = Duration::from_millis(200);

/// Receives requests, and supervises the front: rebuilds it when it breaks.
#[derive(Clone)]
pub struct Mender {
    /// Serves the requests.
    pub handler: Arc<Handler>,
    /// The front under supervision.
    pub front: Arc<Front>,
    /// Where faults that cannot be repaired are reported.
    pub stop: Sender<Stop>,
    /// Threads of replaced servers.
    pub retired: Arc<Mutex<Vec<JoinHandle<()>>>>,
    /// Failures in a row to rebuild.
    pub failed_rebuilds: Arc<AtomicU32>,
    /// Our own connections to the front.
    pub plugs: Arc<Plugs>,
}

impl Mender {
    /// A worker's loop. The worker keeps the permit to receive until it has something to write, which may
    /// block; passing the permit on after each call would cost one more sleep and wake-up.
    pub fn work(&self) {
        let (mut turns, mut due): (Vec<Exchange>, Vec<Due>) = (Vec::new(), Vec::new());
        loop {
            let mut took = Took::GoOn;
            let lead = self.front.lead();
            while due.is_empty() && matches!(took, Took::GoOn) {
                took = lead
                    .take(|arrival| shielded(&self.handler, || turns.extend(self.handler.arrive(arrival))));
                for exchange in turns.drain(..) {
                    shielded(&self.handler, || due.extend(self.handler.advance(exchange)));
                }
            }
            drop(lead);
            for due in due.drain(..) {
                shielded(&self.handler, || self.handler.answer(due));
            }
            match took {
                Took::GoOn => {}
                Took::Stopped => return,
                Took::Dead(generation, error) => {
                    log::error!("the accept loop ended: {error}; rebuilding it");
                    while !self.rebuild(generation) {
                        thread::sleep(REBUILD_PAUSE);
                    }
                }
            }
        }
    }

    /// Rebuilds the accept loop of `generation`, which does not answer.
    pub fn revive(&self, generation: u64) {
        log::error!("no answer from our own port; rebuilding the accept loop");
        self.rebuild(generation);
    }

    /// Stops the producer because too many connection threads are `lost`; the process has to be replaced.
    pub fn give_up(&self, lost: usize) {
        if !self.handler.health.is_exhausted() {
            self.handler.health.set_exhausted();
            let _ = self.stop.send(Stop::LeakBudget(lost));
        }
    }

    /// Returns true if there is nothing left to do for this generation.
    fn rebuild(&self, generation: u64) -> bool {
        match self.front.rebuild(generation) {
            Ok(None) => true,
            Ok(Some(old)) => {
                self.failed_rebuilds.store(0, Ordering::Relaxed);
                self.handler.metrics.http.accept_restarts.inc();
                self.plugs.pull();
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

    /// Connections of a replaced server stay open and keep sending requests to it; one thread receives those.
    fn retire(&self, server: Arc<Server>) {
        let (handler, front) = (self.handler.clone(), self.front.clone());
        let thread = spawn("http-retired", move || {
            front.await_leave(&server);
            while !front.is_stopped() {
                let Ok(Some(request)) = server.recv_timeout(RETIRED_TICK) else { continue };
                shielded(&handler, || {
                    if let Some(exchange) = handler.arrive(Arrival { request, at: Instant::now() }) {
                        handler.serve(exchange);
                    }
                });
            }
        });
        match thread {
            Ok(thread) => self.retired.lock().unwrap_or_else(PoisonError::into_inner).push(thread),
            Err(error) => log::error!("clients of the replaced server are not served: {error}"),
        }
    }
}

/// Panic boundary: a panic while one request is served ends only that request (answered 500) and its
/// connection.
pub fn shielded(handler: &Handler, serve: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(serve)).is_err() {
        log::error!("a request ended in a panic; {} panics so far", handler.metrics.http.panics.get());
    }
}

/// Counts panics. Some clients make tiny_http's threads panic (a reset right after connecting); these panics
/// are logged only at debug level, so that a scanner cannot fill the log. Panics of our own threads are
/// logged in full. tiny_http's accept thread panics silently when it cannot duplicate a socket.
pub fn count_panics(metrics: &Arc<ProducerMetrics>, front: &Arc<Front>) {
    let (metrics, front) = (metrics.clone(), front.clone());
    let tell = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        metrics.http.panics.inc();
        if thread::current().name().is_some() {
            return tell(info);
        }
        log::debug!("a thread of tiny_http panicked: {info}");
        if info.location().is_some_and(|at| at.file().ends_with("refined_tcp_stream.rs")) {
            front.suspect();
        }
    }));
}
