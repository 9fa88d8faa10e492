//! Turns a settled job into the answer to its request.

use std::time::Instant;

use crate::producer::answer::Answer;
use crate::producer::handler::{Handler, QueuedJob, Ticket};
use crate::producer::job::{Job, Outcome};
use crate::producer::pages::RETRY_WHEN_DOWN;

impl Handler {
    /// Answers a job whose events all have an outcome.
    pub fn settle(&self, job: QueuedJob) {
        let acknowledged = job.acknowledged();
        self.metrics.events.acknowledged.inc_by(acknowledged as u64);
        if acknowledged < job.outcomes.len() {
            self.count_failures(&job);
        }
        let retry_after =
            if self.health.is_connected(Instant::now()) { self.retry_after() } else { RETRY_WHEN_DOWN };
        let answer = match &job.ticket.rejected {
            None => Answer::single(&self.topic, &job, retry_after),
            Some(rejected) => Answer::batch(&self.topic, &job, rejected, retry_after),
        };
        let Ticket { exchange, reservation, .. } = job.ticket;
        // Free the room first, so that it is available to a client that has its answer.
        drop(reservation);
        if let Some(next) = self.finish(exchange, &answer, false) {
            self.serve(next);
        }
    }

    fn count_failures(&self, job: &Job<Ticket>) {
        let stopped = self.queue.is_dead();
        for outcome in &job.outcomes {
            match outcome {
                Outcome::TooLarge(_) => self.metrics.fail("too_large", 1),
                Outcome::Rejected(_) => self.metrics.fail("rejected", 1),
                Outcome::Unacknowledged(_) if stopped => self.metrics.fail("stopped", 1),
                Outcome::Unacknowledged(_) => self.metrics.fail("timeout", 1),
                Outcome::Open | Outcome::Acknowledged(_) => {}
            }
        }
    }

    /// Answers the jobs that a dead publisher left in the queue.
    pub fn refuse_orphans(&self) {
        while let Some(mut job) = self.queue.take_orphan() {
            job.give_up(&"the publisher ended".into());
            self.settle(job);
        }
    }
}
