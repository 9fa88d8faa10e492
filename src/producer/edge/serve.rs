//! What the event loops need from the part of the producer that serves requests.

use std::sync::Arc;
use std::time::Instant;

use crate::producer::answer::Answer;
use crate::producer::edge::connection::{Expired, Length, Refusal};
use crate::producer::edge::mailbox::{Mail, Mailbox, Token};
use crate::producer::head::Head;
use crate::producer::status::Status;

/// What to do with a request whose head is complete.
#[derive(Debug)]
pub enum Decision<T> {
    /// Answer it without its body.
    Answer(Answer),
    /// Read its body, for which `room` bytes are reserved for now.
    Accept {
        /// Bytes.
        room: usize,
        /// Returned with the body.
        taking: T,
    },
}

/// Serves requests. Nothing here may block, because it runs in the event loops.
pub trait Serve: Send + Sync + 'static {
    /// What belongs to a request while its body is being read.
    type Taking: Send;

    /// Decides about a request.
    fn head(&self, head: Head<'_>, length: Length, now: Instant) -> Decision<Self::Taking>;

    /// A body has `held` bytes and is not complete. Returns how many bytes it may have.
    ///
    /// # Errors
    /// It may not have more.
    fn extend(&self, taking: &mut Self::Taking, held: usize) -> Result<usize, Answer>;

    /// Serves a request whose body is complete.
    fn serve(&self, taking: Self::Taking, body: Vec<u8>, reply: Reply, now: Instant);

    /// A request was answered by its connection while its body was being read; without a status, the client
    /// has gone away.
    fn gave_up(&self, taking: Self::Taking, status: Option<Status>);

    /// A connection has refused a request by itself. With `in_body`, its body was being read, and
    /// [`Serve::gave_up`] is called too.
    fn refused(&self, refusal: Refusal, in_body: bool);

    /// A request whose [`Reply`] was dropped is answered with this status.
    fn lost(&self, status: Status);

    /// A deadline has ended a connection or a request.
    fn expired(&self, expired: Expired);

    /// The number of open connections has changed by `change`.
    fn connections(&self, change: i64);
}

/// The right to answer one request. If it is dropped, the request is answered 500.
#[derive(Debug)]
pub struct Reply {
    mailbox: Option<Arc<Mailbox>>,
    token: Token,
    number: u64,
}

impl Reply {
    /// The right to answer request `number` on connection `token` of the loop with this mailbox.
    pub fn new(mailbox: Arc<Mailbox>, token: Token, number: u64) -> Self {
        Self { mailbox: Some(mailbox), token, number }
    }

    /// Sends the answer.
    pub fn send(mut self, answer: Answer) {
        if let Some(mailbox) = self.mailbox.take() {
            mailbox.post(Mail::Answer(self.token, self.number, Some(answer)));
        }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        // The loop builds the answer: code that has just panicked must not run again while that panic unwinds.
        if let Some(mailbox) = self.mailbox.take() {
            mailbox.post(Mail::Answer(self.token, self.number, None));
        }
    }
}
