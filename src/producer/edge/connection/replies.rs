//! Keeps the answers of one connection in the order of its requests, and the bytes that are ready to be sent.

use std::collections::VecDeque;

use crate::producer::answer::{After, Answer};

/// Sent before the body of a client that waits for it.
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// A larger buffer is given back once it is empty, so that an idle connection is small.
const KEPT_BYTES: usize = 4 << 10;

/// What a request decides about its answer.
#[derive(Debug, Default)]
pub struct Asked {
    /// The `X-Request-Id` to echo.
    pub request_id: Option<Box<str>>,
    /// The answer has no body.
    pub head_only: bool,
    /// The connection stays open after the answer.
    pub persists: bool,
}

/// A request whose answer is not yet among the bytes to send.
#[derive(Debug)]
struct Slot {
    asked: Asked,
    /// The client waits for [`CONTINUE`].
    waits: bool,
    /// The encoded answer, if it is ready before those of earlier requests.
    answer: Vec<u8>,
}

/// The answers of one connection.
#[derive(Debug)]
pub struct Replies {
    slots: VecDeque<Slot>,
    /// Number of the request in the first slot.
    first: u64,
    /// Bytes in the slots' answers.
    parked: usize,
    out: Vec<u8>,
    sent: usize,
    /// The last slot has an answer after which the connection ends.
    ends: bool,
    /// Value of `Keep-Alive: timeout`, in seconds.
    idle_secs: u64,
}

impl Replies {
    /// Creates it for a connection that is closed after `idle_secs` seconds of silence.
    pub fn new(idle_secs: u64) -> Self {
        let (slots, out) = (VecDeque::new(), Vec::new());
        Self { slots, first: 0, parked: 0, out, sent: 0, ends: false, idle_secs }
    }

    /// Registers the next request and returns its number.
    pub fn open(&mut self, asked: Asked) -> u64 {
        self.slots.push_back(Slot { asked, waits: false, answer: Vec::new() });
        self.first + self.slots.len() as u64 - 1
    }

    /// Sends `100 Continue` once every earlier request has been answered. Returns true if that is now.
    pub fn continue_with(&mut self, number: u64) -> bool {
        if let Some(slot) = self.slot(number) {
            slot.waits = true;
        }
        self.flush()
    }

    /// The body has begun to arrive without `100 Continue`.
    pub fn has_begun(&mut self, number: u64) {
        if let Some(slot) = self.slot(number) {
            slot.waits = false;
        }
    }

    /// True if the client still waits for `100 Continue`.
    pub fn keeps_waiting(&self, number: u64) -> bool {
        let slot = number.checked_sub(self.first).and_then(|at| self.slots.get(at as usize));
        slot.is_some_and(|slot| slot.waits)
    }

    /// Answers request `number`. With `close`, the connection ends after that, and later requests get no
    /// answer. Returns true if `100 Continue` was sent to the next request.
    pub fn answer(&mut self, number: u64, answer: &Answer, close: bool, date: &str) -> bool {
        let Some(at) = number.checked_sub(self.first).map(|at| at as usize) else { return false };
        let Some(slot) = self.slots.get_mut(at).filter(|slot| slot.answer.is_empty()) else { return false };
        let close = close || !slot.asked.persists;
        let after = if close { After::Close } else { After::StayFor(self.idle_secs) };
        let id = slot.asked.request_id.as_deref();
        let out = if at == 0 { &mut self.out } else { &mut slot.answer };
        answer.encode(date, id, after, slot.asked.head_only, out);
        self.parked += slot.answer.len();
        if close {
            self.ends = true;
            let dropped = self.slots.drain(at + 1..).map(|slot| slot.answer.len());
            self.parked -= dropped.sum::<usize>();
        }
        if at == 0 {
            self.slots.pop_front();
            self.first += 1;
            return self.flush();
        }
        false
    }

    /// Moves answers whose turn has come to the bytes to send. Returns true if the next request may send its
    /// body.
    fn flush(&mut self) -> bool {
        while let Some(slot) = self.slots.front_mut() {
            if slot.answer.is_empty() {
                let continues = std::mem::take(&mut slot.waits);
                if continues {
                    self.out.extend_from_slice(CONTINUE);
                }
                return continues;
            }
            self.out.extend_from_slice(&slot.answer);
            self.parked -= slot.answer.len();
            self.slots.pop_front();
            self.first += 1;
        }
        false
    }

    fn slot(&mut self, number: u64) -> Option<&mut Slot> {
        self.slots.get_mut(number.checked_sub(self.first)? as usize)
    }

    /// Number of requests without an answer that could be sent.
    pub fn open_requests(&self) -> usize {
        self.slots.len()
    }

    /// The bytes to send.
    pub fn output(&self) -> &[u8] {
        &self.out[self.sent..]
    }

    /// The first `count` bytes of the output have been sent.
    pub fn sent(&mut self, count: usize) {
        self.sent += count;
        if self.sent == self.out.len() {
            self.sent = 0;
            self.out.clear();
            if self.out.capacity() > KEPT_BYTES {
                self.out = Vec::new();
            }
        }
    }

    /// Bytes of answers that have not been sent.
    pub fn waiting_bytes(&self) -> usize {
        self.out.len() - self.sent + self.parked
    }

    /// True once an answer was given after which the connection ends.
    pub fn ends(&self) -> bool {
        self.ends
    }

    /// True if every request has been answered and every answer sent.
    pub fn is_idle(&self) -> bool {
        self.slots.is_empty() && self.out.len() == self.sent
    }

    /// Memory held for answers, in bytes.
    #[cfg(any(test, fuzzing))]
    pub fn held_bytes(&self) -> usize {
        let ids = self.slots.iter().flat_map(|slot| &slot.asked.request_id).map(|id| id.len());
        self.out.capacity() + self.parked + self.slots.len() * size_of::<Slot>() + ids.sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::producer::status::Status;

    fn replies(requests: u64) -> Replies {
        let mut replies = Replies::new(75);
        for number in 0..requests {
            assert_eq!(replies.open(Asked { persists: true, ..Asked::default() }), number);
        }
        replies
    }

    fn answer(replies: &mut Replies, number: u64, close: bool) -> bool {
        {
            let body = format!("<{number}>").into_bytes();
            replies.answer(number, &Answer::new(Status::Ok, "text/plain", body), close, "now")
        }
    }

    fn bodies(replies: &Replies) -> String {
        let text = String::from_utf8_lossy(replies.output()).into_owned();
        text.split('<').skip(1).filter_map(|part| part.split('>').next()).collect()
    }

    #[test]
    fn answers_leave_in_the_order_of_their_requests() {
        let mut replies = replies(4);
        answer(&mut replies, 2, false);
        answer(&mut replies, 1, false);
        assert!(replies.output().is_empty() && replies.waiting_bytes() > 0);
        answer(&mut replies, 0, false);
        assert_eq!((bodies(&replies), replies.open_requests()), ("012".into(), 1));
        answer(&mut replies, 0, false);
        answer(&mut replies, 3, false);
        answer(&mut replies, 4, false);
        assert_eq!(bodies(&replies), "0123");
        replies.sent(replies.output().len());
        assert!(replies.is_idle() && !replies.ends() && replies.waiting_bytes() == 0);
    }

    #[test]
    fn nothing_follows_an_answer_that_closes() {
        let mut replies = replies(3);
        answer(&mut replies, 2, false);
        answer(&mut replies, 1, true);
        assert!(replies.ends() && replies.output().is_empty());
        answer(&mut replies, 2, false);
        answer(&mut replies, 0, false);
        assert_eq!((bodies(&replies), replies.open_requests()), ("01".into(), 0));
        let text = String::from_utf8_lossy(replies.output()).into_owned();
        assert_eq!(text.matches("Connection: close").count(), 1);
        assert_eq!(text.matches("Connection: keep-alive\r\nKeep-Alive: timeout=75\r\n").count(), 1);
    }

    #[test]
    fn a_client_that_waits_is_told_to_continue_in_its_turn() {
        let mut replies = replies(2);
        assert!(!replies.continue_with(1) && replies.keeps_waiting(1));
        assert!(answer(&mut replies, 0, false) && !replies.keeps_waiting(1));
        assert!(replies.output().ends_with(CONTINUE));
        let mut replies = self::replies(2);
        replies.continue_with(1);
        replies.has_begun(1);
        assert!(!answer(&mut replies, 0, false));
    }
}
