//! Carries a request along with its events, from the handler through the queue to its answer.

use crate::producer::front::Request;
use crate::producer::job::Job;
use crate::producer::queue::Reservation;
use crate::producer::receipts::Rejected;

/// What is needed to answer a request once its events are settled.
pub struct Ticket {
    pub request: Request,
    /// Its events that were rejected; `None` for an event posted on its own.
    pub rejected: Option<Vec<Rejected>>,
    pub reservation: Reservation,
}

/// A job as it travels through the queue, boxed to keep the channel's slots small.
pub type QueuedJob = Box<Job<Ticket>>;
