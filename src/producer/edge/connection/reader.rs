//! Cuts the bytes of a client into heads and bodies.

use std::time::Instant;

use crate::producer::head::{Head, Others};

use super::body::Body;
use super::chunked::Pause;
use super::fields::Length;
use super::head::parse;
use super::input::Input;
use super::limits::Limits;
use super::reading::{Owed, Progress, Reading};
use super::refusal::Refusal;
use super::replies::{Asked, Replies};
use super::scan::Scan;

/// Most bytes of empty lines before a request line; some clients send one after a body.
const MAX_BLANK_BYTES: usize = 16;

/// What has been received and how it is being read.
#[derive(Debug)]
pub struct Reader {
    input: Input,
    reading: Reading,
    /// When the client began to owe what it owes.
    since: Instant,
    /// What is left after the last request is discarded.
    unread: bool,
}

impl Reader {
    /// Starts before the first request.
    pub fn new(now: Instant) -> Self {
        let reading = Reading::Head(Scan::default(), 0);
        Self { input: Input::default(), reading, since: now, unread: false }
    }

    /// Takes bytes from the client; they are dropped once nothing more is parsed.
    pub fn receive(&mut self, bytes: &[u8]) {
        if self.is_over() {
            self.unread = true;
            return;
        }
        self.input.push(bytes);
    }

    /// Reads the next part. `ended` says that no further input will come.
    ///
    /// # Errors
    /// The request is refused; call [`Reader::stop`].
    pub fn step(
        &mut self,
        limits: &Limits,
        ended: bool,
        replies: &mut Replies,
        now: Instant,
    ) -> Result<Progress, Refusal> {
        match &mut self.reading {
            Reading::Head(..) => self.head(limits, ended, replies, now),
            Reading::Body(..) => self.body(ended, replies, now),
            Reading::Skip(_) => Ok(self.skip(ended, now)),
            Reading::Decide(..) | Reading::Over => Ok(Progress::Wait),
        }
    }

    fn head(
        &mut self,
        limits: &Limits,
        ended: bool,
        replies: &mut Replies,
        now: Instant,
    ) -> Result<Progress, Refusal> {
        let Reading::Head(scan, blank) = &mut self.reading else { return Ok(Progress::Wait) };
        while scan.is_new() && self.input.unparsed().starts_with(b"\r\n") {
            self.input.consume(2);
            *blank += 2;
            if *blank > MAX_BLANK_BYTES {
                return Err(Refusal::BadHead("too many empty lines before a request"));
            }
        }
        let input = self.input.unparsed();
        // Half an empty line is not the start of a head.
        let length = match input {
            [] => None,
            b"\r" if scan.is_new() => None,
            _ => {
                // Empty lines do not keep a connection alive.
                if scan.is_new() {
                    self.since = now;
                }
                scan.advance(input, limits.head_bytes)?
            }
        };
        let Some(length) = length else {
            return match (ended, input) {
                (false, _) => Ok(Progress::Wait),
                (true, []) => {
                    self.stop();
                    Ok(Progress::Wait)
                }
                (true, _) => Err(Refusal::BadHead("the connection ended within a head")),
            };
        };
        let head = &input[..length];
        let parsed = parse(head)?;
        let asked = Asked {
            request_id: parsed.request_id(head).map(Into::into),
            head_only: parsed.is_head,
            persists: parsed.persists,
        };
        self.reading = Reading::Decide(replies.open(asked), parsed);
        Ok(Progress::Wait)
    }

    fn body(&mut self, ended: bool, replies: &mut Replies, now: Instant) -> Result<Progress, Refusal> {
        let Reading::Body(body, persists) = &mut self.reading else { return Ok(Progress::Wait) };
        if !self.input.is_empty() {
            replies.has_begun(body.number);
        }
        let (used, pause) = body.feed(self.input.unparsed())?;
        self.input.consume(used);
        match pause {
            Pause::Room => return Ok(Progress::Room(body.number, body.len())),
            Pause::Input if ended => return Err(Refusal::SlowBody),
            Pause::Input => return Ok(Progress::Wait),
            Pause::Done => {}
        }
        let persists = *persists;
        let Reading::Body(body, _) = self.restart(persists, now) else { return Ok(Progress::Wait) };
        Ok(Progress::Body(body.number, body.into_data()))
    }

    fn skip(&mut self, ended: bool, now: Instant) -> Progress {
        let Reading::Skip(left) = &mut self.reading else { return Progress::Wait };
        let used = self.input.unparsed().len().min(usize::try_from(*left).unwrap_or(usize::MAX));
        *left -= used as u64;
        self.input.consume(used);
        match *left {
            0 => {
                self.restart(true, now);
                return Progress::Again;
            }
            _ if ended => self.stop(),
            _ => {}
        }
        Progress::Wait
    }

    /// Goes on with the next head, or stops after the last request. Returns the former state.
    fn restart(&mut self, persists: bool, now: Instant) -> Reading {
        self.since = now;
        let next = if persists { Reading::Head(Scan::default(), 0) } else { Reading::Over };
        let former = std::mem::replace(&mut self.reading, next);
        if !persists {
            self.unread = !self.input.is_empty();
            self.input = Input::default();
        }
        former
    }

    /// Parses nothing more. What the client still sends is discarded.
    pub fn stop(&mut self) {
        if !self.is_over() {
            self.unread = !self.is_between();
            self.reading = Reading::Over;
            self.input = Input::default();
        }
    }

    /// Parses nothing at all. What the client sends is discarded.
    pub fn discard(&mut self) {
        self.stop();
        self.unread = true;
    }

    /// The request that the owner has to decide about.
    pub fn pending(&self) -> Option<(u64, Head<'_>, Length)> {
        let Reading::Decide(number, parsed) = &self.reading else { return None };
        let head = Head { others: Others::of(&self.input), ..parsed.head(self.input.unparsed()) };
        Some((*number, head, parsed.length))
    }

    /// Reads the body of the pending request, for which `room` bytes are reserved.
    pub fn accept(&mut self, room: usize, replies: &mut Replies, now: Instant) {
        let Reading::Decide(number, parsed) = &self.reading else { return };
        let (number, parsed) = (*number, *parsed);
        self.input.consume(parsed.bytes);
        self.since = now;
        if parsed.expects && self.input.is_empty() {
            replies.continue_with(number);
        }
        self.reading = Reading::Body(Body::new(number, parsed.length, room), parsed.persists);
    }

    /// The body being read may have `room` bytes in total.
    pub fn extend(&mut self, room: usize) {
        if let Reading::Body(body, _) = &mut self.reading {
            body.extend(room);
        }
    }

    /// Request `number` is being answered. Returns true if its unread body ends the connection.
    pub fn answered(&mut self, number: u64, limits: &Limits, now: Instant) -> bool {
        match &self.reading {
            Reading::Body(body, _) if body.number == number => {
                self.stop();
                true
            }
            Reading::Decide(pending, parsed) if *pending == number => {
                let parsed = *parsed;
                match parsed.length {
                    Length::Absent | Length::Known(0) => {
                        self.input.consume(parsed.bytes);
                        self.restart(parsed.persists, now);
                        false
                    }
                    Length::Known(left)
                        if left <= limits.skipped_bytes && parsed.persists && !parsed.expects =>
                    {
                        self.input.consume(parsed.bytes);
                        self.since = now;
                        self.reading = Reading::Skip(left);
                        false
                    }
                    _ => {
                        self.stop();
                        true
                    }
                }
            }
            _ => false,
        }
    }

    /// The request whose body is being read.
    pub fn body_number(&self) -> Option<u64> {
        let Reading::Body(body, _) = &self.reading else { return None };
        Some(body.number)
    }

    /// Whatever the client owes, its time starts now.
    pub fn restart_clock(&mut self, now: Instant) {
        self.since = now;
    }

    /// What the client has to send, and when it is too late. `replies` may hold the reason to wait longer.
    pub fn owed(&self, limits: &Limits, is_full: bool, replies: &Replies) -> Option<(Owed, Instant)> {
        let (owed, time) = match &self.reading {
            Reading::Head(scan, _) if !scan.is_new() => (Owed::Head, limits.head_time),
            Reading::Head(..) if replies.is_idle() => (Owed::Nothing, limits.idle_time),
            // It waits until earlier requests have been answered.
            Reading::Body(body, _) if replies.keeps_waiting(body.number) => return None,
            Reading::Body(body, _) => (Owed::Body, limits.time_for_body(body.timed_bytes())),
            Reading::Skip(left) => (Owed::Skipped, limits.time_for_body(*left)),
            Reading::Head(..) | Reading::Decide(..) | Reading::Over => return None,
        };
        (owed != Owed::Head || !is_full).then_some((owed, self.since + time))
    }

    /// True if heads may follow, and none has begun.
    pub fn is_between(&self) -> bool {
        matches!(self.reading, Reading::Head(..)) && self.input.is_empty()
    }

    /// True if no request is being read, so that the next one can wait.
    pub fn waits_for_room(&self) -> bool {
        matches!(self.reading, Reading::Head(..))
    }

    /// True if bytes are read: a head only if `may_begin` says that there is room for another request.
    pub fn wants_input(&self, may_begin: bool) -> bool {
        match &self.reading {
            Reading::Head(..) => may_begin,
            Reading::Body(..) | Reading::Skip(_) => true,
            Reading::Decide(..) | Reading::Over => false,
        }
    }

    /// True if nothing more is parsed.
    pub fn is_over(&self) -> bool {
        matches!(self.reading, Reading::Over)
    }

    /// True if the client has sent, or may yet send, what is not parsed.
    pub fn is_unread(&self) -> bool {
        self.unread
    }

    /// Memory held for input and bodies, in bytes.
    #[cfg(any(test, fuzzing))]
    pub fn held_bytes(&self) -> usize {
        let body = if let Reading::Body(body, _) = &self.reading { body.held_bytes() } else { 0 };
        self.input.held_bytes() + body
    }
}
