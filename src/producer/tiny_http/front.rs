//! Starts the HTTP front on tiny_http, and ends its threads in order.

use std::io;
use std::net::{Shutdown, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, Sender, bounded, unbounded};
use parking_lot::Mutex;

use crate::config::ProducerConfig;
use crate::producer::front::Front;
use crate::producer::handler::Handler;
use crate::producer::stop::Stop;
use crate::producer::tiny_http::closer::Closer;
use crate::producer::tiny_http::connections::Connections;
use crate::producer::tiny_http::exchange::Exchanges;
use crate::producer::tiny_http::guard::Guard;
use crate::producer::tiny_http::keep_warm::KeepWarm;
use crate::producer::tiny_http::listener::Listener;
use crate::producer::tiny_http::orders::Order;
use crate::producer::tiny_http::panics;
use crate::producer::tiny_http::reaper::Limits;
use crate::producer::tiny_http::supervisor::Supervisor;
use crate::producer::tiny_http::watch::Watch;
use crate::producer::tiny_http::worker::Worker;
use crate::sockets;
use crate::thread::{join_until, spawn};

/// Threads without a setting: closer, guard, watch and keep-warm, plus tiny_http's accept loop and its four
/// permanent threads.
const UNNAMED_THREADS: u64 = 4 + 1 + 4;

/// Threads that exist only at times: for 16 short connections of our own and one request of the watch, and for
/// a replaced server.
const PASSING_THREADS: u64 = 17 + 6;

/// Returns the number of threads needed to serve at all, and the number there can be when every limit is
/// reached.
pub fn thread_count(config: &ProducerConfig) -> (u64, u64) {
    let http = &config.http;
    let least = u64::from(http.workers) + UNNAMED_THREADS;
    (least, least + PASSING_THREADS + u64::from(http.max_connections()) + u64::from(http.leak_budget))
}

/// The front on tiny_http.
pub struct TinyHttpFront {
    supervisor: Arc<Supervisor>,
    workers: Vec<JoinHandle<()>>,
    closer: JoinHandle<()>,
    supervising: Vec<JoinHandle<()>>,
    /// Dropped to end the supervising threads.
    supervise: Option<Sender<()>>,
}

impl TinyHttpFront {
    /// Starts to listen, and passes requests to `handler`. Faults that cannot be repaired go to `stop`.
    ///
    /// # Errors
    /// The address cannot be bound or a thread cannot be started.
    pub fn start(config: &ProducerConfig, handler: &Arc<Handler>, stop: Sender<Stop>) -> io::Result<Self> {
        let listener = Arc::new(Listener::open(config.http.addr)?);
        panics::count(&handler.metrics, &listener);
        let (closer, orders) = unbounded();
        let parked = handler.metrics.http.parked.clone();
        let exchanges = Arc::new(Exchanges {
            connections: Connections::new(config.http.max_pipelined as usize, parked),
            closer,
            metrics: handler.metrics.clone(),
        });
        let closer = Closer::new(listener.local.port(), handler.clone(), exchanges.clone());
        let closer = spawn("closer", move || closer.run(&orders))?;
        let keep_warm = Arc::new(KeepWarm::new(listener.local));
        keep_warm.refill()?;
        let supervisor = Arc::new(Supervisor {
            worker: Worker { handler: handler.clone(), exchanges, listener },
            stop,
            retired: Mutex::default(),
            failed_rebuilds: AtomicU32::new(0),
            keep_warm,
        });
        let start_worker = |n| {
            let supervisor = supervisor.clone();
            let run = move || supervisor.worker.run(|generation| supervisor.rebuild(generation));
            spawn(format!("http-{n}"), run)
        };
        let workers = (0..config.http.workers).map(start_worker).collect::<io::Result<_>>()?;
        let (supervise, until) = bounded(0);
        let supervising = spawn_supervising(config, &supervisor, &until)?;
        Ok(Self { supervisor, workers, closer, supervising, supervise: Some(supervise) })
    }

    fn listener(&self) -> &Listener {
        &self.supervisor.worker.listener
    }
}

impl Front for TinyHttpFront {
    fn bound_addr(&self) -> SocketAddr {
        self.listener().bound
    }

    fn refuse_connections(&self) {
        self.listener().stop_accepting();
    }

    fn stop_receiving(&mut self, deadline: Instant) {
        self.supervise.take();
        join_until(self.supervising.drain(..), deadline);
        end_connections(self.listener().local.port());
        self.listener().stop();
        join_until(self.workers.drain(..), deadline);
        let retired = std::mem::take(&mut *self.supervisor.retired.lock());
        join_until(retired, deadline);
    }

    fn finish(self: Box<Self>, deadline: Instant) {
        let _ = self.supervisor.worker.exchanges.closer.send(Order::Stop);
        join_until([self.closer], deadline);
    }
}

/// Shuts the reading side of every connection, so that idle clients see it end instead of waiting for an
/// answer that cannot come.
fn end_connections(port: u16) {
    sockets::for_each_connection(|socket, local, _| {
        if local.port() == port {
            let _ = socket.shutdown(Shutdown::Read);
        }
    });
}

fn spawn_supervising(
    config: &ProducerConfig,
    supervisor: &Arc<Supervisor>,
    until: &Receiver<()>,
) -> io::Result<Vec<JoinHandle<()>>> {
    let http = &config.http;
    let Worker { handler, exchanges, listener } = supervisor.worker.clone();
    let keep_warm = supervisor.keep_warm.clone();
    let guard = Guard {
        handler,
        exchanges: exchanges.clone(),
        port: listener.local.port(),
        keep_warm: keep_warm.clone(),
        limits: Limits {
            idle: Duration::from_secs(http.idle_timeout_secs().into()),
            request: Duration::from_secs(http.request_timeout_secs.into()),
            connections: http.max_connections() as usize,
        },
        // A client that has hung up keeps its thread until its request is settled.
        lost_after: 2 * config.queue.delivery_timeout() + Duration::from_secs(1),
        leak_budget: http.leak_budget as usize,
    };
    let watch = Watch { listener, keep_warm: keep_warm.clone() };
    let (of_guard, of_watch) = (supervisor.clone(), supervisor.clone());
    let [until_1, until_2, until_3] = [until.clone(), until.clone(), until.clone()];
    Ok(vec![
        spawn("keep-warm", move || {
            keep_warm.run(&until_1, || exchanges.connections.first_requests.load(Ordering::Relaxed))
        })?,
        spawn("watch", move || watch.run(&until_2, |generation| of_watch.rebuild_silent(generation)))?,
        spawn("guard", move || guard.run(&until_3, |lost| of_guard.give_up(lost)))?,
    ])
}
