//! Starts the HTTP front of our own for the handler, and ends it.

use std::io;
use std::net::SocketAddr;
use std::panic::{set_hook, take_hook};
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::config::HttpConfig;
use crate::producer::edge::connection::Limits;
use crate::producer::edge::loops::{Loops, Settings, loop_count};
use crate::producer::edge::service::Service;
use crate::producer::front::Front;
use crate::producer::handler::Handler;
use crate::producer::metrics::ProducerMetrics;
use crate::thread::join_until;

/// Longest wait for clients that are still sending or reading when the producer ends.
const FAREWELL: Duration = Duration::from_secs(2);

/// Interval between two checks whether all connections have ended.
const STEP: Duration = Duration::from_millis(2);

/// Returns the number of threads of this front.
pub fn thread_count(config: &HttpConfig) -> u64 {
    loop_count(config.event_loops.map(usize::from)) as u64 + 1
}

/// The front on event loops.
pub struct EdgeFront {
    loops: Loops,
}

impl EdgeFront {
    /// Starts to listen, and passes requests to `handler`.
    ///
    /// # Errors
    /// The address cannot be bound or a thread cannot be started.
    pub fn start(config: &HttpConfig, handler: &Arc<Handler>) -> io::Result<Self> {
        count_panics(&handler.metrics);
        let settings = Settings {
            addr: config.addr,
            loops: config.event_loops.map(usize::from),
            max_connections: config.max_connections() as usize,
            limits: limits(config),
        };
        let refusing = handler.clone();
        let refuse = move || {
            refusing.metrics.refuse("max_connections");
            refusing.overloaded("too many connections").closing(true)
        };
        let service = Arc::new(Service::new(handler.clone()));
        Ok(Self { loops: Loops::start(&settings, &service, refuse)? })
    }
}

fn limits(config: &HttpConfig) -> Limits {
    let request_time = Duration::from_secs(config.request_timeout_secs.into());
    Limits {
        head_bytes: config.max_head_bytes as usize,
        head_time: request_time,
        idle_time: Duration::from_secs(config.idle_timeout_secs().into()),
        body_time: request_time,
        body_bytes_per_second: config.min_body_rate.into(),
        output_bytes: config.max_output_bytes as usize,
        pipelined: config.max_pipelined as usize,
        ..Limits::default()
    }
}

/// Counts panics from now on; they are logged as before.
fn count_panics(metrics: &Arc<ProducerMetrics>) {
    let (metrics, log_in_full) = (metrics.clone(), take_hook());
    set_hook(Box::new(move |info| {
        metrics.http.panics.inc();
        log_in_full(info);
    }));
}

impl Front for EdgeFront {
    fn bound_addr(&self) -> SocketAddr {
        self.loops.bound()
    }

    fn answers_without_blocking(&self) -> bool {
        true
    }

    fn refuse_connections(&self) {
        self.loops.stop_accepting();
    }

    /// Idle connections end now, and the others after their last answer.
    fn stop_receiving(&mut self, _: Instant) {
        self.loops.retire();
    }

    fn finish(self: Box<Self>, deadline: Instant) {
        let farewell = deadline.min(Instant::now() + FAREWELL);
        while self.loops.connections() > 0 && Instant::now() < farewell {
            sleep(STEP);
        }
        join_until(self.loops.stop(), deadline);
    }
}
