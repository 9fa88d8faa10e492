//! Takes each request from its front to its answer: decides about it, passes its events to the queue, and answers
//! once they are settled.
//!
//! Nothing here blocks except writing to the client and, in the body threads, reading from it. Both are bounded.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::producer::additions::Sender;
use crate::producer::admitted::Admitted;
use crate::producer::answer::Answer;
use crate::producer::bodies::{BodyQueue, BodyTask};
use crate::producer::clock::with_stamp;
use crate::producer::decoding::decompress;
use crate::producer::front::Request;
use crate::producer::gate::Gate;
use crate::producer::health::{Health, NotReady};
use crate::producer::intake::{Events, Intake, Refusal};
use crate::producer::job::{Job, Lines};
use crate::producer::metrics::ProducerMetrics;
use crate::producer::pages::{RETRY_WHEN_DOWN, not_ready};
use crate::producer::queue::Queue;
use crate::producer::receipts::{self, Rejected};
use crate::producer::routes::{Body, Policy, Route};
use crate::producer::status::ErrorTag;
use crate::producer::ticket::{QueuedJob, Ticket};

/// An answer to be written, by a thread that the client may block.
pub struct Reply {
    request: Request,
    answer: Answer,
}

fn reply(request: Request, answer: Answer) -> Option<Reply> {
    Some(Reply { request, answer })
}

/// State shared by all threads that serve requests.
pub struct Handler {
    /// The topic named in receipts.
    pub topic: String,
    /// The name of the front, for `/version`.
    pub server: &'static str,
    pub policy: Policy,
    /// The keys, if there are any.
    pub gate: Option<Arc<Gate>>,
    pub intake: Intake,
    /// Longest time that a complete request waits for its acknowledgement.
    pub delivery_timeout: Duration,
    pub queue: Queue<QueuedJob>,
    pub health: Arc<Health>,
    pub metrics: Arc<ProducerMetrics>,
    pub bodies: BodyQueue,
}

impl Handler {
    /// Serves a request, and those that waited for its answer for as long as they can be answered at once. May
    /// block on the client.
    pub fn serve(&self, request: Request) {
        if let Some(reply) = self.advance(request) {
            self.answer(reply);
        }
    }

    /// Serves a request as far as possible without blocking on a client (except when the publisher has just
    /// died, which ends the process). Returns `None` if another thread will answer it.
    pub fn advance(&self, mut request: Request) -> Option<Reply> {
        // A large body and the lines made from it are held at the same time.
        let room = |body: &Body| if body.needs_thread() { 2 * body.length } else { body.length };
        match self.decide(&request.exchange.head(), request.complete, room) {
            Ok(mut admitted) => {
                request.origin = admitted.origin.take();
                self.read(request, admitted)
            }
            Err(answer) => reply(request, answer),
        }
    }

    /// Serves a request whose body is in memory, of which at least its own length is reserved. Never blocks.
    #[cfg(feature = "edge")]
    pub fn take(&self, request: Request, mut admitted: Admitted) {
        let Admitted { body, reservation, .. } = &mut admitted;
        let reply = if !body.needs_thread() || reservation.resize(0, 2 * body.length) {
            self.read(request, admitted)
        } else {
            reply(request, self.queue_full())
        };
        if let Some(reply) = reply {
            self.answer(reply);
        }
    }

    fn read(&self, request: Request, admitted: Admitted) -> Option<Reply> {
        if admitted.body.needs_thread() {
            self.enqueue_body(request, admitted)
        } else {
            self.read_at_once(request, admitted)
        }
    }

    /// Writes an answer, and those that become ready behind it. May block on the client.
    pub fn answer(&self, reply: Reply) {
        let mut reply = Some(reply);
        while let Some(Reply { request, answer }) = reply {
            let answer = answer.readable_by(request.origin.as_deref());
            let route = Route::of(request.exchange.target());
            let next = request.exchange.respond(&answer);
            self.metrics.answered(route, answer.status);
            self.metrics.http.request_seconds.observe(request.started.elapsed().as_secs_f64());
            reply = next.and_then(|next| self.advance(next));
        }
    }

    /// Panic boundary: a panic while one request is served ends only that request (answered 500) and its
    /// connection.
    pub fn catch_panic(&self, serve: impl FnOnce()) {
        if catch_unwind(AssertUnwindSafe(serve)).is_err() {
            log::error!("a request ended in a panic; {} panics so far", self.metrics.http.panics.get());
        }
    }

    fn read_at_once(&self, mut request: Request, admitted: Admitted) -> Option<Reply> {
        thread_local!(static BODY: RefCell<Vec<u8>> = RefCell::default());
        BODY.with_borrow_mut(|bytes| match request.exchange.read_body(admitted.body.length, bytes) {
            Ok(()) => self.accept(request, bytes, admitted),
            Err(_) => incomplete(request),
        })
    }

    /// Passes the request to the body threads: only they may wait for a body that is still on the socket, or
    /// spend the time to decompress one.
    fn enqueue_body(&self, mut request: Request, admitted: Admitted) -> Option<Reply> {
        let is_here = admitted.body.is_here;
        let Some(sender) = self.bodies.sender() else {
            return reply(request, not_ready(&NotReady::Draining).closing(!is_here));
        };
        request.exchange.await_body();
        let refused = sender.try_send(BodyTask { request, admitted }).err()?;
        self.metrics.refuse("body_threads");
        let answer = self.overloaded("all threads that read large bodies are busy");
        reply(refused.into_inner().request, answer.closing(!is_here))
    }

    /// Reads a large body and serves its request, on a thread that the client may block.
    pub fn read_and_serve(&self, task: BodyTask) {
        let BodyTask { mut request, admitted } = task;
        let mut bytes = Vec::new();
        let read = request.exchange.read_body(admitted.body.length, &mut bytes);
        request.complete = Instant::now();
        let reply = match (read, self.health.check(request.complete)) {
            (Err(_), _) => incomplete(request),
            // Kafka may have gone away during the upload.
            (Ok(()), Err(reason)) => reply(request, not_ready(&reason)),
            (Ok(()), Ok(())) => self.accept(request, &bytes, admitted),
        };
        drop(bytes);
        if let Some(reply) = reply {
            self.answer(reply);
        }
    }

    fn accept(&self, request: Request, bytes: &[u8], mut admitted: Admitted) -> Option<Reply> {
        match self.parse(bytes, &mut admitted, request.complete) {
            Ok(Events::Single(lines)) => {
                self.metrics.events.received.inc();
                self.submit(request, lines, None, admitted)
            }
            Ok(Events::Batch { lines, rejected }) => {
                self.metrics.events.received.inc_by((lines.len() + rejected.len()) as u64);
                for refused in &rejected {
                    self.metrics.reject(refused.error, 1);
                }
                if lines.is_empty() {
                    return reply(request, receipts::all_rejected(&self.topic, &rejected));
                }
                self.submit(request, lines, Some(rejected), admitted)
            }
            Err(refusal) => reply(request, self.refuse(refusal)),
        }
    }

    fn parse(
        &self,
        bytes: &[u8],
        Admitted { body, reservation, caller, idempotency_key, .. }: &mut Admitted,
        now: Instant,
    ) -> Result<Events, Refusal> {
        let webhook_id = match (&self.gate, caller.as_deref()) {
            (Some(gate), Some(caller)) => gate.check_body(caller, bytes, now).map_err(Refusal::Unusable)?,
            _ => None,
        };
        let sender = Sender {
            webhook_id,
            idempotency_key: idempotency_key.as_deref(),
            client: caller.as_deref().map(|caller| caller.client().name.as_str()),
        };
        let decompressed;
        let mut plain = bytes;
        if let Some(coding) = body.coding {
            let grow = |size| reservation.resize(0, bytes.len() + 2 * size);
            decompressed = decompress(coding, bytes, self.policy.max_body_bytes, grow)?;
            plain = &decompressed;
        }
        let held = bytes.len() + if body.coding.is_some() { plain.len() } else { 0 };
        let mut grow = |size| reservation.resize(0, held + size);
        with_stamp(|stamp| self.intake.parse(plain, body.media_type, stamp, sender, &mut grow))
    }

    fn refuse(&self, refusal: Refusal) -> Answer {
        match refusal {
            Refusal::Invalid(tag, answer) => {
                self.metrics.events.received.inc();
                self.metrics.reject(tag.as_str(), 1);
                answer
            }
            Refusal::TooMuch(limit, answer) => {
                self.metrics.refuse(limit);
                answer
            }
            Refusal::Unusable(answer) => answer,
            Refusal::NoRoom => self.queue_full(),
        }
    }

    fn submit(
        &self,
        request: Request,
        mut lines: Lines,
        rejected: Option<Vec<Rejected>>,
        Admitted { mut reservation, caller, headers, .. }: Admitted,
    ) -> Option<Reply> {
        lines.set_headers(headers);
        let events = lines.len();
        if let (Some(gate), Some(caller)) = (&self.gate, &caller)
            && let Err(answer) = gate.charge_events(caller, events, request.complete)
        {
            self.metrics.reject("rate_limited", events as u64);
            return reply(request, answer);
        }
        let bytes = lines.held_bytes() + rejected.as_deref().map_or(0, receipts::held_bytes);
        if !reservation.resize(events, bytes) {
            self.metrics.reject("queue_full", events as u64);
            return reply(request, self.queue_full());
        }
        let deadline = request.complete + self.delivery_timeout;
        let ticket = Ticket { request, rejected, reservation };
        match self.queue.submit(Box::new(Job::new(lines, deadline, ticket))) {
            Ok(()) => {
                self.metrics.events.accepted.inc_by(events as u64);
                if let Some(caller) = &caller {
                    self.metrics.access.accepted(&caller.client().name, events);
                }
                if self.queue.is_dead() {
                    self.refuse_orphans();
                }
                None
            }
            Err(job) => {
                let (reason, answer) = if self.queue.is_dead() {
                    ("closed", not_ready(&NotReady::Draining))
                } else {
                    ("queue_full", self.queue_full())
                };
                self.metrics.reject(reason, events as u64);
                reply(job.ticket.request, answer)
            }
        }
    }

    /// Answers a job whose events all have an outcome.
    pub fn settle(&self, job: QueuedJob) {
        self.metrics.settled(&job.outcomes, self.queue.is_dead());
        let retry_after =
            if self.health.is_connected(Instant::now()) { self.retry_after() } else { RETRY_WHEN_DOWN };
        let answer = match &job.ticket.rejected {
            None => receipts::single(&self.topic, &job, retry_after),
            Some(rejected) => receipts::batch(&self.topic, &job, rejected, retry_after),
        };
        let Ticket { request, reservation, .. } = job.ticket;
        // Free the room first, so that it is available to a client that has its answer.
        drop(reservation);
        self.answer(Reply { request, answer });
    }

    /// Answers the jobs that a dead publisher left in the queue.
    pub fn refuse_orphans(&self) {
        while let Some(mut job) = self.queue.take_orphan() {
            job.give_up(&"the publisher ended".into());
            self.settle(job);
        }
    }
}

/// The body did not arrive: the client went away, or was too slow and was cut off by the front.
fn incomplete(request: Request) -> Option<Reply> {
    reply(request, Answer::error(ErrorTag::BodyIncomplete, "the body did not arrive in time").closing(true))
}
