//! Passes requests from the event loops to the handler.

use std::sync::Arc;
use std::time::Instant;

use crate::producer::admitted::Admitted;
use crate::producer::answer::Answer;
use crate::producer::edge::connection::{Expired, Length, Refusal};
use crate::producer::edge::exchange::EdgeExchange;
use crate::producer::edge::serve::{Decision, Reply, Serve};
use crate::producer::front::Request;
use crate::producer::handler::Handler;
use crate::producer::head::Head;
use crate::producer::routes::{Body, Route};
use crate::producer::status::Status;

/// Bodies up to this size are validated in the event loop; larger ones would hold up its other connections.
const SMALL_BODY_BYTES: usize = 4 << 10;

/// Bytes reserved when a body begins. More are reserved as it arrives, so that clients that announce much and send
/// nothing cannot fill the queue.
const FIRST_ROOM_BYTES: usize = 4 << 10;

/// Serves requests with the handler.
pub struct Service {
    handler: Arc<Handler>,
}

/// A request whose body is being read.
pub struct Taking {
    /// Its length is the most that the body can have.
    admitted: Admitted,
    started: Instant,
}

impl Service {
    /// Creates a service for `handler`.
    pub fn new(handler: Arc<Handler>) -> Self {
        Self { handler }
    }

    fn count(&self, route: Route, status: Status, started: Instant) {
        self.handler.metrics.answered(route, status);
        self.handler.metrics.http.request_seconds.observe(started.elapsed().as_secs_f64());
    }
}

impl Serve for Service {
    type Taking = Taking;

    fn head(&self, head: Head<'_>, length: Length, now: Instant) -> Decision<Taking> {
        let route = Route::of(head.target);
        // The length of a chunked body is checked while it arrives.
        let content_length = head.content_length.or((length == Length::Chunked).then_some("0"));
        let most = |body: &Body| match length {
            Length::Chunked => self.handler.policy.max_body_bytes,
            _ => body.length,
        };
        let room = |body: &Body| most(body).min(FIRST_ROOM_BYTES);
        match self.handler.decide(&Head { content_length, ..head }, now, room) {
            Ok(mut admitted) => {
                let room = room(&admitted.body);
                admitted.body.length = most(&admitted.body);
                Decision::Accept { room, taking: Taking { admitted, started: now } }
            }
            Err(answer) => {
                self.count(route, answer.status, now);
                Decision::Answer(answer)
            }
        }
    }

    fn extend(&self, taking: &mut Taking, held: usize) -> Result<usize, Answer> {
        let most = taking.admitted.body.length;
        if held >= most {
            self.handler.metrics.refuse("max_body_bytes");
            return Err(Answer::too_large("body", most as u64));
        }
        let room = (2 * held).min(most);
        // Uploads that never end leave room for small bodies.
        let usage = self.handler.queue.usage();
        let fits = usage.bytes() + (room - held) <= usage.max_bytes() / 4 * 3;
        let reservation = &mut taking.admitted.reservation;
        if fits && reservation.resize(0, room) { Ok(room) } else { Err(self.handler.queue_full()) }
    }

    fn serve(&self, taking: Taking, bytes: Vec<u8>, reply: Reply, now: Instant) {
        let Taking { mut admitted, started } = taking;
        admitted.body.length = bytes.len();
        admitted.body.is_here = bytes.len() <= SMALL_BODY_BYTES;
        let exchange = Box::new(EdgeExchange { body: bytes, reply });
        let origin = admitted.origin.take();
        self.handler.take(Request { exchange, started, origin, complete: now }, admitted);
    }

    fn gave_up(&self, taking: Taking, status: Option<Status>) {
        if let Some(status) = status {
            self.count(Route::RegisterEvent, status, taking.started);
        }
    }

    fn refused(&self, refusal: Refusal, in_body: bool) {
        self.handler.metrics.refuse(refusal.limit());
        if !in_body {
            self.handler.metrics.answered(Route::Unknown, refusal.answer().status);
        }
    }

    fn lost(&self, status: Status) {
        self.handler.metrics.answered(Route::RegisterEvent, status);
    }

    fn expired(&self, expired: Expired) {
        match expired {
            Expired::Idle => self.handler.metrics.refuse("idle_timeout"),
            Expired::Unread => self.handler.metrics.refuse("write_timeout"),
            Expired::Slow(_) | Expired::Discarded => {}
        }
    }

    fn connections(&self, change: i64) {
        self.handler.metrics.http.connections.add(change);
    }
}
