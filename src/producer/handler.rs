//! Serves a request once it is next in line on its connection, until it is answered; used by workers, body
//! readers and repliers.
//!
//! Events go into the queue and come back settled. Nothing here blocks except writing to the client and, in
//! the body threads, reading from it. Both are bounded.

use std::cell::RefCell;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crossbeam::channel::{Receiver, Sender, bounded};

use crate::event::{Format, Stamp};
use crate::producer::answer::{Answer, Rejected};
use crate::producer::health::{Health, NotReady};
use crate::producer::intake::{Intake, Taken, Unpack};
use crate::producer::job::{Job, Lines};
use crate::producer::metrics::ProducerMetrics;
use crate::producer::queue::{Queue, Reservation};
use crate::producer::routes::{Verdict, judge};
use crate::producer::tiny_http::closer::Order;
use crate::producer::tiny_http::connections::{Connection, Connections, Entry};
use crate::producer::tiny_http::exchange::{Arrival, Exchange};

/// Most large bodies that may wait for a thread to read them.
const BODY_LANE_CAPACITY: usize = 512;

/// What is needed to answer a request once its events are settled.
pub struct Ticket {
    pub exchange: Exchange,
    /// `None` for an event posted on its own.
    pub rejected: Option<Vec<Rejected>>,
    pub reservation: Reservation,
}

impl Ticket {
    /// When its request was complete.
    pub fn complete(&self) -> Instant {
        self.exchange.complete
    }
}

/// A job as it travels through the queue, boxed to keep the channel's slots small.
pub type QueuedJob = Box<Job<Ticket>>;

/// A request whose body is still on the socket, or has to be decompressed.
pub struct BodyTask {
    exchange: Exchange,
    body: Body,
    reservation: Reservation,
}

#[derive(Clone, Copy)]
struct Body {
    length: usize,
    /// tiny_http has already read it.
    here: bool,
    gzip: bool,
    format: Option<Format>,
}

/// An answer to be written now, by a thread that the client may block.
pub struct Due {
    exchange: Exchange,
    answer: Answer,
    close: bool,
}

fn due(exchange: Exchange, answer: Answer, close: bool) -> Option<Due> {
    Some(Due { exchange, answer, close })
}

/// State shared by all threads that serve requests.
pub struct Handler {
    /// Our port, used to find a client's socket.
    pub port: u16,
    /// The topic named in receipts.
    pub topic: String,
    /// Turns bodies into events.
    pub intake: Intake,
    /// Longest time that a complete request waits for its acknowledgement.
    pub delivery_timeout: Duration,
    /// Keeps the requests of each connection in order.
    pub connections: Connections<Arrival>,
    /// The queue to the publisher.
    pub queue: Queue<QueuedJob>,
    /// Whether Kafka acknowledges.
    pub health: Arc<Health>,
    /// The producer's metrics.
    pub metrics: Arc<ProducerMetrics>,
    /// Orders for the closer, which ends connections.
    pub closer: Sender<Order>,
    /// Requests for the body threads; `None` once it is closed.
    pub body_lane: Mutex<Option<Sender<BodyTask>>>,
}

/// The channel of requests for the body threads: the sender for the handler, the receiver for the threads.
pub fn body_lane() -> (Sender<BodyTask>, Receiver<BodyTask>) {
    bounded(BODY_LANE_CAPACITY)
}

impl Handler {
    /// Registers a request in the order of arrival, and returns it if it can be served now.
    pub fn arrive(&self, arrival: Arrival) -> Option<Exchange> {
        // A TCP listener always knows the peer; see `Request::remote_addr`.
        let peer = *arrival.request.remote_addr()?;
        let at = arrival.at;
        match self.connections.enter(peer, arrival) {
            Entry::Turn(arrival, connection) => return Some(self.turn(arrival, connection, at)),
            Entry::Parked => {}
            Entry::Flood(peer) => {
                self.metrics.refuse("max_pipelined");
                let _ = self.closer.send(Order::Shut(peer));
            }
            Entry::Late(peer) => {
                let _ = self.closer.send(Order::Late(peer));
            }
        }
        None
    }

    fn turn(&self, arrival: Arrival, connection: Arc<Connection<Arrival>>, at: Instant) -> Exchange {
        Exchange::new(arrival, connection, self.closer.clone(), at)
    }

    /// Serves a request, and those parked behind it for as long as they can be answered at once.
    pub fn serve(&self, exchange: Exchange) {
        if let Some(due) = self.advance(exchange) {
            self.answer(due);
        }
    }

    /// Writes an answer, and those that become ready behind it. May block on the client.
    pub fn answer(&self, due: Due) {
        let mut due = Some(due);
        while let Some(Due { exchange, answer, close }) = due {
            due = self.finish(exchange, &answer, close).and_then(|next| self.advance(next));
        }
    }

    /// Serves a request as far as possible without blocking on a client (except when the publisher has just
    /// died, which ends the process). Returns `None` if another thread will answer it.
    pub fn advance(&self, exchange: Exchange) -> Option<Due> {
        if exchange.connection.is_cut() {
            exchange.give_up();
            return None;
        }
        let head = exchange.head();
        let here = head.body_is_here;
        match judge(&head, self.intake.max_body_bytes) {
            Verdict::Show(route) => {
                let answer = self.show(route);
                due(exchange, answer, false)
            }
            Verdict::Refuse { answer, close } => {
                match answer.status {
                    413 => self.metrics.refuse("max_body_bytes"),
                    400 | 411 if close => self.metrics.refuse("framing"),
                    _ => {}
                }
                due(exchange, answer, close)
            }
            Verdict::Take { length, gzip, format } => {
                self.take(exchange, Body { length, here, gzip, format })
            }
        }
    }

    fn take(&self, mut exchange: Exchange, body: Body) -> Option<Due> {
        if let Err(reason) = self.health.check(exchange.complete) {
            return due(exchange, self.not_ready(&reason), !body.here);
        }
        let throttled = self.health.throttled_for(exchange.complete);
        if throttled > self.delivery_timeout {
            let what = format!("a quota of Kafka is exceeded for another {} s", throttled.as_secs());
            return due(exchange, self.overloaded(&what), !body.here);
        }
        // A small compressed body can grow a thousandfold, too much work for the thread that receives
        // requests.
        if !body.here || body.gzip {
            return self.enqueue_body(exchange, body);
        }
        let Some(reservation) = self.queue.reserve(0, body.length) else {
            return due(exchange, self.overloaded("the queue is full"), false);
        };
        thread_local!(static BODY: RefCell<Vec<u8>> = RefCell::default());
        BODY.with_borrow_mut(|bytes| match exchange.read_body(body.length, bytes) {
            Ok(()) => self.accept(exchange, bytes, body, reservation),
            Err(_) => self.abandon(exchange),
        })
    }

    /// Hands the request to the body threads: only they may wait for a body that is still on the socket, or
    /// spend the time to decompress one.
    fn enqueue_body(&self, exchange: Exchange, body: Body) -> Option<Due> {
        // The body and the lines made from it are held at the same time.
        let Some(reservation) = self.queue.reserve(0, 2 * body.length) else {
            return due(exchange, self.overloaded("the queue is full"), !body.here);
        };
        exchange.connection.awaits_body(Instant::now());
        let lane = self.body_lane.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let task = BodyTask { exchange, body, reservation };
        let Some(lane) = lane else {
            return due(task.exchange, self.not_ready(&NotReady::Draining), !body.here);
        };
        match lane.try_send(task) {
            Ok(()) => None,
            Err(refused) => {
                self.metrics.refuse("body_threads");
                let answer = self.overloaded("all threads that read large bodies are busy");
                due(refused.into_inner().exchange, answer, !body.here)
            }
        }
    }

    /// Reads a large body and serves its request, on a thread that the client may block.
    pub fn read_and_serve(&self, task: BodyTask) {
        let BodyTask { mut exchange, body, reservation } = task;
        let mut bytes = Vec::new();
        let read = exchange.read_body(body.length, &mut bytes);
        exchange.connection.body_complete();
        exchange.complete = Instant::now();
        let due = match (read, self.health.check(exchange.complete)) {
            (Err(_), _) => self.abandon(exchange),
            // Kafka may have gone away during the upload.
            (Ok(()), Err(reason)) => due(exchange, self.not_ready(&reason), false),
            (Ok(()), Ok(())) => self.accept(exchange, &bytes, body, reservation),
        };
        drop(bytes);
        if let Some(due) = due {
            self.answer(due);
        }
    }

    /// The body did not arrive: the client went away, or was too slow and was cut off by the guard.
    fn abandon(&self, exchange: Exchange) -> Option<Due> {
        due(exchange, Answer::body_incomplete(), true)
    }

    fn accept(
        &self,
        exchange: Exchange,
        bytes: &[u8],
        body: Body,
        mut reservation: Reservation,
    ) -> Option<Due> {
        let taken = if body.gzip {
            let held = bytes.len();
            match self.intake.unpack(bytes, |size| reservation.resize(0, held + 2 * size)) {
                Ok(unpacked) => with_stamp(|stamp| self.intake.take(&unpacked, body.format, stamp)),
                Err(reason) => return self.refuse_packed(exchange, &reason),
            }
        } else {
            with_stamp(|stamp| self.intake.take(bytes, body.format, stamp))
        };
        match taken {
            Ok(Taken::Single(lines)) => {
                self.metrics.events.received.inc();
                self.submit(exchange, lines, None, reservation)
            }
            Ok(Taken::Batch { lines, rejected }) => {
                self.metrics.events.received.inc_by((lines.len() + rejected.len()) as u64);
                for refused in &rejected {
                    self.metrics.reject(refused.error, 1);
                }
                if lines.is_empty() {
                    return due(exchange, Answer::all_rejected(&self.topic, &rejected), false);
                }
                self.submit(exchange, lines, Some(rejected), reservation)
            }
            Err(refusal) => {
                match refusal.kind {
                    Some(kind) => {
                        self.metrics.events.received.inc();
                        self.metrics.reject(kind.as_str(), 1);
                    }
                    None => self.metrics.refuse("max_request_events"),
                }
                due(exchange, refusal.answer, false)
            }
        }
    }

    fn refuse_packed(&self, exchange: Exchange, reason: &Unpack) -> Option<Due> {
        let answer = match reason {
            Unpack::NotGzip => Answer::error(
                400,
                "not_gzip",
                "Content-Encoding says gzip, but the body is not complete gzip data",
            ),
            Unpack::TooLarge => {
                self.metrics.refuse("max_body_bytes");
                Answer::too_large("decompressed body", self.intake.max_body_bytes as u64)
            }
            Unpack::NoRoom => self.overloaded("the queue is full"),
        };
        due(exchange, answer, false)
    }

    fn submit(
        &self,
        exchange: Exchange,
        lines: Lines,
        rejected: Option<Vec<Rejected>>,
        mut reservation: Reservation,
    ) -> Option<Due> {
        let events = lines.len();
        if !reservation.resize(events, lines.held_bytes()) {
            self.metrics.reject("queue_full", events as u64);
            return due(exchange, self.overloaded("the queue is full"), false);
        }
        let deadline = exchange.complete + self.delivery_timeout;
        let ticket = Ticket { exchange, rejected, reservation };
        match self.queue.submit(Box::new(Job::new(lines, deadline, ticket))) {
            Ok(()) => {
                self.metrics.events.accepted.inc_by(events as u64);
                if self.queue.is_dead() {
                    self.refuse_orphans();
                }
                None
            }
            Err(job) => {
                let (reason, answer) = if self.queue.is_dead() {
                    ("closed", self.not_ready(&NotReady::Draining))
                } else {
                    ("queue_full", self.overloaded("the queue is full"))
                };
                self.metrics.reject(reason, events as u64);
                due(job.ticket.exchange, answer, false)
            }
        }
    }

    /// Writes the answer and returns the request to serve next. With `close`, or if the client cannot receive
    /// the answer, the closer does the rest, and nothing more is served on this connection.
    pub fn finish(&self, exchange: Exchange, answer: &Answer, close: bool) -> Option<Exchange> {
        let connection = exchange.connection.clone();
        let (route, started) = (exchange.route(), exchange.started);
        let mut next = None;
        if close || connection.is_last() || connection.is_cut() {
            exchange.end(answer);
        } else {
            // Becomes an exchange before the answer is written, so that a panic there cannot leave the
            // connection stuck.
            next = self.connections.leave(&connection).map(|arrival| {
                let turn = Instant::now();
                self.turn(arrival, connection.clone(), turn)
            });
            if exchange.answer(answer).is_err() {
                log::debug!("{}: the client did not accept the answer", connection.peer);
            }
        }
        self.metrics.answered(route, answer.status);
        self.metrics.http.request_seconds.observe(started.elapsed().as_secs_f64());
        if let Some(next) = &mut next {
            next.complete = Instant::now();
        }
        next
    }
}

/// Runs `use_stamp` with the current time, which is formatted once per millisecond in each thread.
fn with_stamp<T>(use_stamp: impl FnOnce(&Stamp) -> T) -> T {
    thread_local!(static STAMP: RefCell<Option<(i64, Stamp)>> = const { RefCell::new(None) });
    let millis = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |age| age.as_millis() as i64);
    STAMP.with_borrow_mut(|cached| {
        if cached.as_ref().is_none_or(|(of, _)| *of != millis) {
            *cached = Some((millis, Stamp::from_unix_millis(millis)));
        }
        let (_, stamp) = cached.as_ref().expect("just set");
        use_stamp(stamp)
    })
}
