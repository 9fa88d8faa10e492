//! Starts the producer's threads, connects them with each other, and ends them in order.

use std::io;
use std::net::{Shutdown, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, Sender, bounded, unbounded};

use crate::broker::Sink;
use crate::config::ProducerConfig;
use crate::echo::Echo;
use crate::event;
use crate::producer::Stop;
use crate::producer::batch::Batch;
use crate::producer::handler::{BodyTask, Handler, QueuedJob, body_lane};
use crate::producer::health::Health;
use crate::producer::intake::Intake;
use crate::producer::metrics::ProducerMetrics;
use crate::producer::publisher::{Limits, Publisher};
use crate::producer::queue::{Input, Queue};
use crate::producer::rate::Rate;
use crate::producer::tiny_http::closer::{Closer, Order};
use crate::producer::tiny_http::connections::Connections;
use crate::producer::tiny_http::front::Front;
use crate::producer::tiny_http::guard::Guard;
use crate::producer::tiny_http::mender::{Mender, count_panics, shielded};
use crate::producer::tiny_http::plugs::Plugs;
use crate::producer::tiny_http::reaper;
use crate::producer::tiny_http::watch::Watch;
use crate::sockets;
use crate::thread::spawn;

/// All threads, and what is needed to end them.
pub struct Threads {
    /// Serves requests; shared by most threads.
    pub handler: Arc<Handler>,
    front: Arc<Front>,
    publisher: JoinHandle<()>,
    repliers: Vec<JoinHandle<()>>,
    body_readers: Vec<JoinHandle<()>>,
    workers: Vec<JoinHandle<()>>,
    closer: JoinHandle<()>,
    keepers: Vec<JoinHandle<()>>,
    /// Dropped to end the keepers.
    keeping: Sender<()>,
    stops: Receiver<Stop>,
    retired: Arc<Mutex<Vec<JoinHandle<()>>>>,
}

/// Threads without a setting: signals, kafka-limit, echo, publisher, closer, guard, watch and kicker, plus
/// tiny_http's accept loop and its four permanent threads.
const UNNAMED_THREADS: u64 = 8 + 1 + 4;

/// Threads that exist only at times: for 16 short connections of the kicker and one request of the watch, and
/// for a replaced server.
const PASSING_THREADS: u64 = 17 + 6;

/// Returns the number of threads needed to serve at all, and the number there can be when every limit is
/// reached.
pub fn count(config: &ProducerConfig) -> (u64, u64) {
    let http = &config.http;
    let named = u64::from(http.workers) + u64::from(http.body_threads) + u64::from(http.reply_threads);
    let least = named + UNNAMED_THREADS;
    (least, least + PASSING_THREADS + u64::from(http.max_connections) + u64::from(http.leak_budget))
}

impl Threads {
    /// Starts all threads.
    ///
    /// # Errors
    /// The address cannot be bound or a thread cannot be started.
    pub fn start(config: &ProducerConfig, sink: Box<dyn Sink>) -> io::Result<Self> {
        let front = Arc::new(Front::open(config.http.addr)?);
        let (lane, lane_end) = body_lane();
        let (closer, orders) = unbounded();
        let (handler, inputs) = handler(config, front.local.port(), lane, closer);
        let handler = Arc::new(handler);
        let closer = Closer::new(handler.clone());
        let closer = spawn("closer", move || closer.run(&orders))?;
        count_panics(&handler.metrics, &front);
        let (stop, stops) = unbounded();
        let (settled, settled_end) = unbounded();
        let echo = Echo::start(config.event_echo, "✅ Event sent to Kafka:")?;
        let publisher = publisher(config, echo, sink, inputs, settled, &handler);
        let publisher = spawn_publisher(publisher, handler.clone(), stop.clone())?;
        let repliers = spawn_repliers(config.http.reply_threads, &settled_end, &handler)?;
        let body_readers = spawn_body_readers(config.http.body_threads, &lane_end, &handler)?;
        let plugs = Arc::new(Plugs::new(front.local));
        plugs.refill()?;
        let retired = Arc::new(Mutex::new(Vec::new()));
        let mender = Mender {
            handler: handler.clone(),
            front: front.clone(),
            stop,
            retired: retired.clone(),
            failed_rebuilds: Arc::default(),
            plugs,
        };
        let workers = (0..config.http.workers)
            .map(|n| {
                let mender = mender.clone();
                spawn(format!("http-{n}"), move || mender.work())
            })
            .collect::<io::Result<_>>()?;
        let (keeping, keep) = bounded(0);
        let keepers = spawn_keepers(config, &mender, &keep)?;
        Ok(Self {
            handler,
            front,
            publisher,
            repliers,
            body_readers,
            workers,
            closer,
            keepers,
            keeping,
            stops,
            retired,
        })
    }

    /// The address it listens on.
    pub fn bound_addr(&self) -> SocketAddr {
        self.front.bound
    }

    /// Reasons to stop other than a signal.
    pub fn stops(&self) -> &Receiver<Stop> {
        &self.stops
    }

    /// Refuses every event and every connection from now on.
    pub fn refuse_new(&self) {
        self.handler.health.drain();
        self.front.stop_accepting();
    }

    /// Ends all threads once nothing is pending any more. Threads that are still busy with a client at
    /// `deadline` are left until the process ends.
    pub fn join(self, deadline: Instant) {
        drop(self.keeping);
        join_until(self.keepers, deadline);
        end_connections(self.front.local.port());
        self.front.stop();
        join_until(self.workers, deadline);
        join_until(std::mem::take(&mut *lock(&self.retired)), deadline);
        drop(lock(&self.handler.body_lane).take());
        join_until(self.body_readers, deadline);
        self.handler.queue.close();
        join_until(vec![self.publisher], deadline);
        join_until(self.repliers, deadline);
        let _ = self.handler.closer.send(Order::Stop);
        join_until(vec![self.closer], deadline);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn join_until(threads: Vec<JoinHandle<()>>, deadline: Instant) {
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

/// Shuts the reading side of every connection, so that idle clients see it end instead of waiting for an
/// answer that cannot come.
fn end_connections(port: u16) {
    sockets::for_each_connection(|socket, local, _| {
        if local.port() == port {
            let _ = socket.shutdown(Shutdown::Read);
        }
    });
}

fn handler(
    config: &ProducerConfig,
    port: u16,
    lane: Sender<BodyTask>,
    closer: Sender<Order>,
) -> (Handler, Receiver<Input<QueuedJob>>) {
    let (http, queue) = (&config.http, &config.queue);
    // Each job is one request of one connection, and a connection has only one in progress.
    let max_jobs = http.max_connections as usize + 64;
    let (bounded_queue, inputs) =
        Queue::new(max_jobs, queue.queue_max_events as usize, queue.queue_max_bytes as usize);
    let intake = Intake {
        limits: event::Limits {
            max_event_bytes: http.max_event_bytes as usize,
            max_depth: event::Limits::DEFAULT_MAX_DEPTH,
        },
        max_request_events: http.max_request_events as usize,
        max_body_bytes: http.max_body_bytes as usize,
        key_field: queue.key_field.clone(),
    };
    let handler = Handler {
        port,
        topic: config.kafka.topic.clone(),
        intake,
        delivery_timeout: queue.delivery_timeout(),
        connections: Connections::new(http.max_pipelined as usize),
        queue: bounded_queue,
        health: Arc::new(Health::new(Instant::now())),
        metrics: Arc::new(ProducerMetrics::new()),
        closer,
        body_lane: Mutex::new(Some(lane)),
    };
    (handler, inputs)
}

fn publisher(
    config: &ProducerConfig,
    echo: Echo,
    sink: Box<dyn Sink>,
    inputs: Receiver<Input<QueuedJob>>,
    settled: Sender<Vec<QueuedJob>>,
    handler: &Handler,
) -> Publisher {
    let queue = &config.queue;
    Publisher {
        sink,
        inputs,
        settled,
        health: handler.health.clone(),
        metrics: handler.metrics.clone(),
        usage: handler.queue.usage().clone(),
        limits: Limits {
            batch_events: queue.batch_max_events as usize,
            batch_bytes: queue.batch_max_bytes as usize,
            linger: Duration::from_millis(queue.linger_ms),
            call: config.kafka.request_timeout(),
            connect: config.kafka.first_proof_timeout(),
            least_call: config.kafka.request_timeout().min(queue.delivery_timeout() / 4),
            reply_threads: config.http.reply_threads.into(),
        },
        echo,
        batch: Batch::default(),
        rate: Rate::new(Instant::now()),
        told: None,
    }
}

/// When the publisher ends, so does the queue: jobs that are still in it are answered before anything else
/// happens.
fn spawn_publisher(
    publisher: Publisher,
    handler: Arc<Handler>,
    stop: Sender<Stop>,
) -> io::Result<JoinHandle<()>> {
    spawn("publisher", move || {
        let end = publisher.run();
        handler.queue.mark_dead();
        handler.refuse_orphans();
        if let Err(error) = end {
            let _ = stop.send(Stop::PublisherEnded(error));
        }
    })
}

fn spawn_repliers(
    count: u16,
    settled: &Receiver<Vec<QueuedJob>>,
    handler: &Arc<Handler>,
) -> io::Result<Vec<JoinHandle<()>>> {
    let replier = |n| {
        let (settled, handler) = (settled.clone(), handler.clone());
        spawn(format!("reply-{n}"), move || {
            for jobs in settled {
                for job in jobs {
                    shielded(&handler, || handler.settle(job));
                }
            }
        })
    };
    (0..count).map(replier).collect()
}

fn spawn_body_readers(
    count: u16,
    lane: &Receiver<BodyTask>,
    handler: &Arc<Handler>,
) -> io::Result<Vec<JoinHandle<()>>> {
    let reader = |n| {
        let (lane, handler) = (lane.clone(), handler.clone());
        spawn(format!("body-{n}"), move || {
            for task in lane {
                shielded(&handler, || handler.read_and_serve(task));
            }
        })
    };
    (0..count).map(reader).collect()
}

fn spawn_keepers(
    config: &ProducerConfig,
    mender: &Mender,
    keep: &Receiver<()>,
) -> io::Result<Vec<JoinHandle<()>>> {
    let http = &config.http;
    let guard = Guard {
        handler: mender.handler.clone(),
        plugs: mender.plugs.clone(),
        limits: reaper::Limits {
            idle: Duration::from_secs(http.idle_timeout_secs.into()),
            request: Duration::from_secs(http.request_timeout_secs.into()),
            connections: http.max_connections as usize,
        },
        // A client that has hung up keeps its thread until its request is settled.
        lost_after: 2 * config.queue.delivery_timeout() + Duration::from_secs(1),
        leak_budget: http.leak_budget as usize,
    };
    let watch = Watch { front: mender.front.clone(), plugs: mender.plugs.clone() };
    let (plugs, handler) = (mender.plugs.clone(), mender.handler.clone());
    let (guarding, watching) = (mender.clone(), mender.clone());
    let (guard_keep, watch_keep, kicker_keep) = (keep.clone(), keep.clone(), keep.clone());
    Ok(vec![
        spawn("kicker", move || plugs.run(&kicker_keep, || handler.connections.first_requests()))?,
        spawn("watch", move || watch.run(&watch_keep, |generation| watching.revive(generation)))?,
        spawn("guard", move || guard.run(&guard_keep, |lost| guarding.give_up(lost)))?,
    ])
}
