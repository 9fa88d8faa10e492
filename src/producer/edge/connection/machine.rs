//! Drives one connection from its first byte to its end.

use std::sync::Arc;
use std::time::Instant;

use crate::producer::answer::Answer;

use super::limits::Limits;
use super::reader::Reader;
use super::reading::{Owed, Progress};
use super::refusal::Refusal;
use super::replies::{Asked, Replies};
use super::signals::{Expired, Moment, Socket, Step};

/// Discards what a client still sends after the last answer. Closing at once would reset the connection, and
/// the client could lose the answer.
#[derive(Debug)]
struct Linger {
    left: u64,
    until: Instant,
}

/// One connection.
#[derive(Debug)]
pub struct Connection {
    limits: Arc<Limits>,
    reader: Reader,
    replies: Replies,
    /// The client has shut its sending side.
    ended: bool,
    /// The connection ends without anything further.
    cut: bool,
    /// The connection ends as soon as nothing is going on.
    retiring: bool,
    /// The client was too slow.
    is_slow: bool,
    /// A request may be waiting unparsed until others have been answered.
    stalled: bool,
    linger: Option<Linger>,
    /// When sending last made progress.
    wrote: Instant,
}

impl Connection {
    /// Starts a connection that was accepted at `now`.
    pub fn new(limits: Arc<Limits>, now: Instant) -> Self {
        Self {
            reader: Reader::new(now),
            replies: Replies::new(limits.idle_time.as_secs()),
            limits,
            ended: false,
            cut: false,
            retiring: false,
            is_slow: false,
            stalled: false,
            linger: None,
            wrote: now,
        }
    }

    /// Refuses the connection before its first request, with an answer that closes it. The client may have sent
    /// a request, and can read the answer for as long as after being too slow.
    pub fn turn_away(&mut self, answer: &Answer, moment: Moment<'_>) {
        let number = self.replies.open(Asked::default());
        self.reader.discard();
        self.is_slow = true;
        self.answer(number, answer, moment);
    }

    /// False while the client has to wait: read nothing from the socket then.
    pub fn wants_input(&self) -> bool {
        !self.ended && !self.cut && (self.linger.is_some() || self.reader.wants_input(!self.is_full()))
    }

    /// True while no further request may begin: answers have to be given and sent first.
    fn is_full(&self) -> bool {
        self.replies.open_requests() >= self.limits.pipelined
            || self.replies.waiting_bytes() > self.limits.output_bytes / 2
    }

    /// True once [`Connection::next`] may have something again without further input.
    pub fn may_resume(&self) -> bool {
        self.stalled && !self.is_full()
    }

    /// True if everything has been parsed and another request may follow.
    pub fn is_between(&self) -> bool {
        self.reader.is_between()
    }

    /// Takes bytes from the client.
    pub fn receive(&mut self, bytes: &[u8]) {
        if let Some(linger) = &mut self.linger {
            linger.left = linger.left.saturating_sub(bytes.len() as u64);
            self.cut |= linger.left == 0;
        }
        self.reader.receive(bytes);
    }

    /// The client sends nothing more. It may still wait for its answers.
    pub fn end_of_input(&mut self) {
        self.ended = true;
    }

    /// Returns what to do next; call this until it says [`Step::Wait`].
    pub fn next(&mut self, moment: Moment<'_>) -> Step<'_> {
        loop {
            self.stalled = self.is_full() && self.reader.waits_for_room();
            if self.cut || self.stalled {
                return Step::Wait;
            }
            match self.reader.step(&self.limits, self.ended, &mut self.replies, moment.now) {
                Ok(Progress::Again) => {}
                Ok(Progress::Wait) => break,
                Ok(Progress::Room(number, held)) => return Step::Room(number, held),
                Ok(Progress::Body(number, data)) => return Step::Body(number, data),
                Err(refusal) => {
                    self.refuse(refusal, moment);
                    return Step::Refused(refusal);
                }
            }
        }
        self.reader.pending().map_or(Step::Wait, |(number, head, length)| Step::Request(number, head, length))
    }

    fn refuse(&mut self, refusal: Refusal, moment: Moment<'_>) {
        let number = self.reader.body_number().unwrap_or_else(|| self.replies.open(Asked::default()));
        self.reader.stop();
        self.answer(number, &refusal.answer(), moment);
    }

    /// Reads the body of the request that [`Step::Request`] named, for which `room` bytes are reserved.
    pub fn accept(&mut self, room: usize, now: Instant) {
        let is_quiet = self.replies.output().is_empty();
        self.reader.accept(room, &mut self.replies, now);
        if is_quiet {
            self.wrote = now;
        }
    }

    /// The body being read may have `room` bytes in total.
    pub fn extend(&mut self, room: usize) {
        self.reader.extend(room);
    }

    /// Answers request `number`. The connection ends after that if the answer or the client says so, or if too
    /// much of the request is unread.
    pub fn answer(&mut self, number: u64, answer: &Answer, moment: Moment<'_>) {
        if self.replies.waiting_bytes() > self.limits.output_bytes {
            self.cut = true;
            return;
        }
        let (is_quiet, was_full) = (self.replies.output().is_empty(), self.is_full());
        let unread = self.reader.answered(number, &self.limits, moment.now);
        let last = self.retiring && self.replies.open_requests() == 1 && self.reader.is_between();
        let continues = self.replies.answer(number, answer, answer.close || unread || last, moment.date);
        if self.replies.ends() {
            self.reader.stop();
        }
        if is_quiet {
            self.wrote = moment.now;
        }
        if continues || was_full && !self.is_full() {
            self.reader.restart_clock(moment.now);
        }
    }

    /// The bytes to send.
    pub fn output(&self) -> &[u8] {
        self.replies.output()
    }

    /// Bytes of answers that have not been sent, including those that wait for earlier ones.
    pub fn unsent_bytes(&self) -> usize {
        self.replies.waiting_bytes()
    }

    /// Since when the client has read nothing, if something is to be sent.
    pub fn stuck_since(&self) -> Option<Instant> {
        (!self.output().is_empty()).then_some(self.wrote)
    }

    /// The first `count` bytes of the output have been sent.
    pub fn sent(&mut self, count: usize, now: Instant) {
        if count == 0 {
            return;
        }
        let was_full = self.is_full();
        self.replies.sent(count);
        self.wrote = now;
        if self.replies.is_idle() && self.reader.is_between() || was_full && !self.is_full() {
            self.reader.restart_clock(now);
        }
    }

    /// Ends the connection as soon as every request that has begun is answered.
    pub fn retire(&mut self) {
        self.retiring = true;
    }

    /// Returns what to do with the socket; call this after everything else. [`Socket::ShutWrite`] is returned
    /// once.
    pub fn socket(&mut self, now: Instant) -> Socket {
        let is_done = self.reader.is_over() || self.retiring && self.reader.is_between();
        match &self.linger {
            _ if self.cut => Socket::Close,
            Some(_) if self.ended => Socket::Close,
            Some(_) => Socket::Keep,
            None if !is_done || !self.replies.is_idle() => Socket::Keep,
            None if self.ended || !self.reader.is_unread() => Socket::Close,
            None => {
                let limits = &self.limits;
                let time = if self.is_slow { limits.slow_linger_time } else { limits.linger_time };
                let until = now + time;
                self.linger = Some(Linger { left: self.limits.linger_bytes, until });
                Socket::ShutWrite
            }
        }
    }

    /// When to call [`Connection::expire`], unless something happens before.
    pub fn deadline(&self) -> Option<Instant> {
        if let Some(linger) = &self.linger {
            return Some(linger.until);
        }
        let sending = (!self.output().is_empty()).then(|| self.wrote + self.limits.write_time);
        let owed = self.reader.owed(&self.limits, self.is_full(), &self.replies).map(|(_, until)| until);
        [sending, owed].into_iter().flatten().min()
    }

    /// Ends what is overdue, if anything is.
    pub fn expire(&mut self, moment: Moment<'_>) -> Option<Expired> {
        if self.deadline().is_none_or(|deadline| moment.now < deadline) {
            return None;
        }
        if self.linger.is_some() {
            self.cut = true;
            return Some(Expired::Discarded);
        }
        let owed = self.reader.owed(&self.limits, self.is_full(), &self.replies);
        let refusal = match owed.filter(|(_, until)| *until <= moment.now) {
            Some((Owed::Head, _)) => Refusal::SlowHead,
            Some((Owed::Body, _)) => Refusal::SlowBody,
            Some((owed, _)) => {
                self.cut = true;
                return Some(if owed == Owed::Nothing { Expired::Idle } else { Expired::Discarded });
            }
            None => {
                self.cut = true;
                return Some(Expired::Unread);
            }
        };
        self.is_slow = true;
        self.refuse(refusal, moment);
        Some(Expired::Slow(refusal))
    }

    /// Memory held, in bytes.
    #[cfg(any(test, fuzzing))]
    pub fn held_bytes(&self) -> usize {
        self.reader.held_bytes() + self.replies.held_bytes()
    }
}
