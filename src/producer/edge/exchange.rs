//! One request with its whole body in memory, and the right to answer it.

use std::io;

use crate::producer::answer::Answer;
use crate::producer::edge::serve::Reply;
use crate::producer::front::{Exchange, Request};
use crate::producer::head::Head;

/// The only resource that takes a body.
pub const TARGET: &str = "/register_event";

/// A request whose body has been read.
pub struct EdgeExchange {
    /// The body; empty once it has been taken.
    pub body: Vec<u8>,
    /// Answers it.
    pub reply: Reply,
}

impl Exchange for EdgeExchange {
    fn target(&self) -> &str {
        TARGET
    }

    fn head(&self) -> Head<'_> {
        Head { method: "POST", target: TARGET, body_is_here: true, ..Head::default() }
    }

    fn await_body(&mut self) {}

    fn read_body(&mut self, _: usize, body: &mut Vec<u8>) -> io::Result<()> {
        std::mem::swap(body, &mut self.body);
        Ok(())
    }

    /// The loop of its connection sends the answer, and goes on with the next request by itself.
    fn respond(self: Box<Self>, answer: &Answer) -> Option<Request> {
        self.reply.send(answer.clone());
        None
    }
}
