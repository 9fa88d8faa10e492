//! What a request was admitted with, on its way from its head to its events.

use std::sync::Arc;

use crate::broker::Headers;
use crate::producer::gate::Caller;
use crate::producer::queue::Reservation;
use crate::producer::routes::Body;

/// A request whose body may be read.
pub struct Admitted {
    pub body: Body,
    /// Room in the queue for the body, and then for its events.
    pub reservation: Reservation,
    /// Who sends it, if there are keys.
    pub caller: Option<Box<Caller>>,
    /// Its `Idempotency-Key`, if events get ids.
    pub idempotency_key: Option<Box<str>>,
    /// What its records in Kafka get as headers.
    pub headers: Headers,
    /// The origin whose page may read the answer.
    pub origin: Option<Arc<str>>,
}
