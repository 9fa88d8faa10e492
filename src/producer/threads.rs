//! Starts the producer's threads, connects them with each other, and ends them in order.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, Sender, unbounded};

use crate::access::origins::Origins;
use crate::broker::Sink;
#[cfg(feature = "edge")]
use crate::config::HttpServer;
use crate::config::ProducerConfig;
use crate::echo::Echo;
use crate::event;
use crate::producer::additions::{Field, Fields};
use crate::producer::batch::Batch;
use crate::producer::bodies::{BodyQueue, BodyTask};
#[cfg(feature = "edge")]
use crate::producer::edge;
use crate::producer::front::Front;
use crate::producer::gate::Gate;
use crate::producer::grouping::Grouping;
use crate::producer::handler::Handler;
use crate::producer::health::Health;
use crate::producer::intake::Intake;
use crate::producer::kafka::Kafka;
use crate::producer::keys_watch::KeysWatch;
use crate::producer::metrics::ProducerMetrics;
use crate::producer::operators::serve_pages;
use crate::producer::publisher::{AnswerJobs, Limits, Publisher};
use crate::producer::queue::{Input, Queue};
use crate::producer::rate::Rate;
use crate::producer::routes::Policy;
use crate::producer::stop::Stop;
use crate::producer::ticket::QueuedJob;
use crate::producer::tiny_http::front::{TinyHttpFront, thread_count};
#[cfg(feature = "edge")]
use crate::producer::wake::together;
use crate::status_page::StatusPage;
use crate::thread::{join_until, spawn};

/// All threads, and what is needed to end them.
pub struct Threads {
    /// Serves requests; shared by most threads.
    pub handler: Arc<Handler>,
    front: Box<dyn Front>,
    publisher: JoinHandle<()>,
    repliers: Vec<JoinHandle<()>>,
    body_readers: Vec<JoinHandle<()>>,
    stops: Receiver<Stop>,
    _keys_watch: Option<KeysWatch>,
    _pages: Option<StatusPage>,
}

/// Threads without a setting: signals, kafka-limit, echo, publisher, and with such settings keys and status.
const UNNAMED_THREADS: u64 = 6;

/// Returns the number of threads needed to serve at all, and the number there can be when every limit is
/// reached.
pub fn count(config: &ProducerConfig) -> (u64, u64) {
    let own = u64::from(config.http.body_threads) + u64::from(config.http.reply_threads()) + UNNAMED_THREADS;
    let (least, most) = match config.http.server() {
        #[cfg(feature = "edge")]
        HttpServer::Edge => {
            let threads = edge::front::thread_count(&config.http);
            (threads, threads)
        }
        _ => thread_count(config),
    };
    (own + least, own + most)
}

impl Threads {
    /// Starts all threads.
    ///
    /// # Errors
    /// The address cannot be bound or a thread cannot be started.
    pub fn start(config: &ProducerConfig, sink: Box<dyn Sink>) -> io::Result<Self> {
        let (handler, inputs, bodies) = handler(config)?;
        let handler = Arc::new(handler);
        let keys_watch = handler.gate.clone().map(|gate| KeysWatch::start(gate, handler.metrics.clone()));
        let keys_watch = keys_watch.transpose()?;
        let (stop, stops) = unbounded();
        // First, because the address may be in use. Until Kafka has answered, requests are refused anyway.
        let front = front(config, &handler, &stop)?;
        let admin_addr = config.access.admin_addr;
        let pages = admin_addr.map(|addr| serve_pages(addr, handler.clone())).transpose()?;
        let (settled, settled_end) = unbounded();
        let echo = Echo::start(config.event_echo, "✅ Event sent to Kafka:")?;
        let answer = front.answers_without_blocking().then(|| answer_jobs(&handler));
        let publisher = publisher(config, echo, sink, inputs, settled, answer, &handler);
        let publisher = spawn_publisher(publisher, handler.clone(), stop)?;
        let repliers = spawn_each("reply", config.http.reply_threads(), &settled_end, &handler, settle_all)?;
        let body_readers =
            spawn_each("body", config.http.body_threads, &bodies, &handler, |handler, task| {
                handler.catch_panic(|| handler.read_and_serve(task));
            })?;
        let (_keys_watch, _pages) = (keys_watch, pages);
        Ok(Self { handler, front, publisher, repliers, body_readers, stops, _keys_watch, _pages })
    }

    /// The address it listens on.
    pub fn bound_addr(&self) -> SocketAddr {
        self.front.bound_addr()
    }

    /// Reasons to stop other than a signal.
    pub fn stops(&self) -> &Receiver<Stop> {
        &self.stops
    }

    /// Refuses every event and every connection from now on.
    pub fn refuse_new(&self) {
        self.handler.health.drain();
        self.front.refuse_connections();
    }

    /// Ends all threads once nothing is pending any more. Threads that are still busy with a client at
    /// `deadline` are left until the process ends.
    pub fn join(mut self, deadline: Instant) {
        self.front.stop_receiving(deadline);
        self.handler.bodies.close();
        join_until(self.body_readers, deadline);
        self.handler.queue.close();
        join_until([self.publisher], deadline);
        join_until(self.repliers, deadline);
        self.front.finish(deadline);
    }
}

fn front(config: &ProducerConfig, handler: &Arc<Handler>, stop: &Sender<Stop>) -> io::Result<Box<dyn Front>> {
    match config.http.server() {
        #[cfg(feature = "edge")]
        HttpServer::Edge => Ok(Box::new(edge::front::EdgeFront::start(&config.http, handler)?)),
        _ => Ok(Box::new(TinyHttpFront::start(config, handler, stop.clone())?)),
    }
}

type Inputs = (Handler, Receiver<Input<QueuedJob>>, Receiver<BodyTask>);

fn handler(config: &ProducerConfig) -> io::Result<Inputs> {
    let (http, queue) = (&config.http, &config.queue);
    // Each job is one request of one connection, and few connections have more than one in progress.
    let max_jobs = http.max_connections() as usize + 64;
    let (bounded_queue, inputs) =
        Queue::new(max_jobs, queue.queue_max_events as usize, queue.queue_max_bytes as usize);
    let (bodies, bodies_end) = BodyQueue::new();
    let max_body_bytes = http.max_body_bytes as usize;
    let intake = Intake {
        limits: event::Limits {
            max_event_bytes: http.max_event_bytes as usize,
            max_depth: event::Limits::DEFAULT_MAX_DEPTH,
        },
        max_request_events: http.max_request_events as usize,
        key_field: queue.key_field.clone(),
        fields: Fields {
            id: config.fields.id().map(Field::new),
            client: config.fields.client().map(Field::new),
        },
        headers: config.send.headers.clone(),
    };
    let metrics = Arc::new(ProducerMetrics::new(http.server().name()));
    let handler = Handler {
        topic: config.kafka.topic.clone(),
        server: http.server().name(),
        policy: Policy {
            max_body_bytes,
            has_pages: config.access.admin_addr.is_none(),
            origins: Origins::new(&config.access.cors_allow_origins),
        },
        gate: gate(config, &metrics)?,
        intake,
        delivery_timeout: queue.delivery_timeout(),
        queue: bounded_queue,
        health: Arc::new(Health::new(Instant::now())),
        metrics,
        bodies,
    };
    Ok((handler, inputs, bodies_end))
}

fn gate(config: &ProducerConfig, metrics: &Arc<ProducerMetrics>) -> io::Result<Option<Arc<Gate>>> {
    let largest = config.http.largest_request();
    let keys = config.access.keys(largest, None).map_err(io::Error::other)?;
    let path = config.access.keys_file.clone().unwrap_or_default();
    Ok(keys.map(|keys| Arc::new(Gate::new(keys, path, largest, metrics.clone()))))
}

fn publisher(
    config: &ProducerConfig,
    echo: Echo,
    sink: Box<dyn Sink>,
    inputs: Receiver<Input<QueuedJob>>,
    settled: Sender<Vec<QueuedJob>>,
    answer: Option<AnswerJobs>,
    handler: &Handler,
) -> Publisher {
    let queue = &config.queue;
    Publisher {
        kafka: Kafka::new(
            sink,
            handler.health.clone(),
            handler.metrics.clone(),
            config.kafka.first_proof_timeout(),
        ),
        inputs,
        settled,
        answer,
        usage: handler.queue.usage().clone(),
        limits: Limits {
            batch_events: queue.batch_max_events as usize,
            batch_bytes: queue.batch_max_bytes as usize,
            linger: Duration::from_millis(queue.linger_ms),
            call: config.kafka.request_timeout(),
            least_call: config.kafka.request_timeout().min(queue.delivery_timeout() / 4),
            reply_threads: config.http.reply_threads().into(),
        },
        echo,
        batch: Batch::default(),
        rate: Rate::new(Instant::now()),
        grouping: Grouping::default(),
    }
}

/// Answers the jobs of a batch, and then wakes each thread that has to write some of the answers once.
fn settle_all(handler: &Handler, jobs: Vec<QueuedJob>) {
    together(|| {
        for job in jobs {
            handler.catch_panic(|| handler.settle(job));
        }
    });
}

fn answer_jobs(handler: &Arc<Handler>) -> AnswerJobs {
    let handler = handler.clone();
    Box::new(move |jobs| settle_all(&handler, jobs))
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

/// Starts `count` threads that run `serve` for each value of a channel.
fn spawn_each<T: Send + 'static>(
    name: &str,
    count: u16,
    values: &Receiver<T>,
    handler: &Arc<Handler>,
    serve: fn(&Handler, T),
) -> io::Result<Vec<JoinHandle<()>>> {
    let start = |n| {
        let (values, handler) = (values.clone(), handler.clone());
        spawn(format!("{name}-{n}"), move || values.iter().for_each(|value| serve(&handler, value)))
    };
    (0..count).map(start).collect()
}

/// No front of this build is woken.
#[cfg(not(feature = "edge"))]
fn together(work: impl FnOnce()) {
    work();
}
