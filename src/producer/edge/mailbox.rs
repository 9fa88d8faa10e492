//! The way from other threads into an event loop.

use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crossbeam::channel::{Receiver, Sender, unbounded};

use crate::producer::answer::Answer;
use crate::producer::edge::poller::Bell;
use crate::producer::wake::wake;

/// Identifies a connection of an event loop; it is never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Token(pub u64);

/// What a loop is asked to do.
#[derive(Debug)]
pub enum Mail {
    /// Serve this connection, or refuse it with this answer.
    Connection(TcpStream, Option<Answer>),
    /// Answer a request; without an answer, it was lost in a panic.
    Answer(Token, u64, Option<Answer>),
    /// End every connection as soon as nothing is going on there.
    Retire,
    /// End at once.
    Stop,
}

/// The mailbox of one event loop. It holds at most one answer for each request that is being served, which the
/// loop limits.
#[derive(Debug)]
pub struct Mailbox {
    sender: Sender<Mail>,
    bell: Arc<Bell>,
    connections: AtomicUsize,
    refused: AtomicUsize,
}

impl Mailbox {
    /// Creates a mailbox that rings `bell`, and its receiving end.
    pub fn new(bell: Arc<Bell>) -> (Arc<Self>, Receiver<Mail>) {
        let (sender, receiver) = unbounded();
        (
            Arc::new(Self { sender, bell, connections: AtomicUsize::new(0), refused: AtomicUsize::new(0) }),
            receiver,
        )
    }

    /// Delivers `mail`; a loop that has ended needs none.
    pub fn post(&self, mail: Mail) {
        if self.sender.send(mail).is_ok() {
            wake(&self.bell);
        }
    }

    /// True if nothing has been posted that the loop has not taken.
    pub fn is_empty(&self) -> bool {
        self.sender.is_empty()
    }

    /// Connections of this loop that are served, including those on their way to it.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Acquire)
    }

    /// Connections of this loop that are being refused.
    pub fn refused(&self) -> usize {
        self.refused.load(Ordering::Acquire)
    }

    /// One more connection.
    pub fn opened(&self, is_refused: bool) {
        self.counter(is_refused).fetch_add(1, Ordering::AcqRel);
    }

    /// One connection fewer.
    pub fn closed(&self, is_refused: bool) {
        self.counter(is_refused).fetch_sub(1, Ordering::AcqRel);
    }

    fn counter(&self, is_refused: bool) -> &AtomicUsize {
        if is_refused { &self.refused } else { &self.connections }
    }
}
