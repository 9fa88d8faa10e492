//! Decides whether a request is accepted now, and answers those that are not.

use std::time::{Duration, Instant};

use crate::producer::answer::Answer;
use crate::producer::handler::Handler;
use crate::producer::head::Head;
use crate::producer::pages::{self, not_ready};
use crate::producer::queue::Reservation;
use crate::producer::routes::{Body, Verdict, judge};
use crate::producer::status::Status;

/// A request whose body may be read.
pub struct Admitted {
    pub body: Body,
    /// Room in the queue for the body, and then for its events.
    pub reservation: Reservation,
}

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
        match judge(head, &self.policy) {
            Verdict::Show(route) => {
                Err(pages::show(route, self.server, &self.queue, &self.health, &self.metrics))
            }
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
            Verdict::Take(body) => match self.admit(room(&body), now) {
                Ok(reservation) => Ok(Admitted { body, reservation }),
                Err(answer) => Err(answer.closing(!body.is_here)),
            },
        }
    }

    /// Reserves `bytes` for a body, if events are accepted now.
    fn admit(&self, bytes: usize, now: Instant) -> Result<Reservation, Answer> {
        self.health.check(now).map_err(|reason| not_ready(&reason))?;
        let throttled = self.health.throttled_for(now);
        if throttled > self.delivery_timeout {
            let what = format!("a quota of Kafka is exceeded for another {} s", throttled.as_secs());
            return Err(self.overloaded(&what));
        }
        self.queue.reserve(0, bytes, None).ok_or_else(|| self.queue_full())
    }

    /// How long a refused client should wait: until the pending events have left, or until a quota lets Kafka
    /// accept events again, whichever is later.
    pub fn retry_after(&self) -> Duration {
        self.queue.usage().retry_after().max(self.health.throttled_for(Instant::now()))
    }

    /// The answer when the queue has no room.
    pub fn queue_full(&self) -> Answer {
        self.overloaded("the queue is full")
    }

    /// The answer when one of our limits is reached.
    pub fn overloaded(&self, what: &str) -> Answer {
        pages::overloaded(what, self.retry_after())
    }
}
