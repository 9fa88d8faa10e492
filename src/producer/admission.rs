//! Decides whether a request is accepted now, and answers those that are not.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::access::origins::preflight_fields;
use crate::producer::admitted::Admitted;
use crate::producer::answer::Answer;
use crate::producer::handler::Handler;
use crate::producer::head::Head;
use crate::producer::pages::{self, not_ready};
use crate::producer::record_headers;
use crate::producer::routes::{Body, Route, Verdict, judge};
use crate::producer::status::{ErrorTag, Status};

impl Handler {
    /// Decides about a request. If its body may be read, as many bytes as `room` says are reserved for it.
    ///
    /// # Errors
    /// The answer to a request that has none, or whose body is not read.
    pub fn decide(
        &self,
        head: &Head<'_>,
        now: Instant,
        room: impl FnOnce(&Body) -> usize,
    ) -> Result<Admitted, Answer> {
        let origins = &self.policy.origins;
        let origin = if origins.is_empty() { None } else { origins.find(head.others.get("Origin")) };
        match self.judge(head, now, room) {
            Ok(admitted) => Ok(Admitted { origin, ..admitted }),
            Err(answer) => Err(answer.readable_by(origin.as_deref())),
        }
    }

    fn judge(
        &self,
        head: &Head<'_>,
        now: Instant,
        room: impl FnOnce(&Body) -> usize,
    ) -> Result<Admitted, Answer> {
        match judge(head, &self.policy) {
            Verdict::Show(route) => {
                if let Some(gate) = self.gate.as_ref().filter(|_| route == Route::Metrics) {
                    gate.admit(head, false, now)?;
                    self.metrics.access.show_last_used(&gate.keys());
                }
                Err(pages::show(route, self.server, &self.queue, &self.health, &self.metrics))
            }
            Verdict::Preflight => Err(preflight(self.policy.origins.find(head.others.get("Origin")))),
            Verdict::Refuse(answer) => {
                match answer.status {
                    Status::ContentTooLarge => self.metrics.refuse("max_body_bytes"),
                    Status::BadRequest | Status::LengthRequired if answer.close => {
                        self.metrics.refuse("framing");
                    }
                    _ => {}
                }
                Err(answer)
            }
            Verdict::Take(body) => {
                self.admit(head, body, now, room).map_err(|answer| answer.closing(!body.is_here))
            }
        }
    }

    /// Reserves room for a body, if events are accepted now and its sender may post them.
    fn admit(
        &self,
        head: &Head<'_>,
        body: Body,
        now: Instant,
        room: impl FnOnce(&Body) -> usize,
    ) -> Result<Admitted, Answer> {
        let caller = self.gate.as_ref().map(|gate| gate.admit(head, true, now)).transpose()?;
        let idempotency_key = self.intake.idempotency_key(head)?;
        self.health.check(now).map_err(|reason| not_ready(&reason))?;
        let throttled = self.health.throttled_for(now);
        if throttled > self.delivery_timeout {
            let what = format!("a quota of Kafka is exceeded for another {} s", throttled.as_secs());
            return Err(self.overloaded(&what));
        }
        let share = caller.as_ref().map(|caller| caller.client().share.clone());
        let reservation = self.queue.reserve(0, room(&body), share).ok_or_else(|| self.queue_full())?;
        let client = caller.as_ref().map(|caller| caller.client().name.as_str());
        let headers = record_headers::of_request(&self.intake.headers, head.others, client);
        let caller = caller.map(Box::new);
        Ok(Admitted { body, reservation, caller, idempotency_key, headers, origin: None })
    }

    /// How long a refused client should wait: until the pending events have left, or until a quota lets Kafka
    /// accept events again, whichever is later.
    pub fn retry_after(&self) -> Duration {
        self.queue.usage().retry_after().max(self.health.throttled_for(Instant::now()))
    }

    /// The answer when the queue has no room.
    pub fn queue_full(&self) -> Answer {
        self.overloaded(match self.gate {
            Some(_) => "the queue is full, or this client has its share of it",
            None => "the queue is full",
        })
    }

    /// The answer when one of our limits is reached.
    pub fn overloaded(&self, what: &str) -> Answer {
        pages::overloaded(what, self.retry_after())
    }
}

/// The answer to a browser that asks whether a page of `origin` may post.
fn preflight(origin: Option<Arc<str>>) -> Answer {
    if origin.is_none() {
        let message = "this origin may not read our answers; add it to CORS_ALLOW_ORIGINS";
        return Answer::error(ErrorTag::OriginNotAllowed, message);
    }
    Answer::new(Status::NoContent, "", &b""[..]).with_headers(preflight_fields())
}
