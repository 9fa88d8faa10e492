//! An owner of a connection for tests and the fuzzer: it accepts bodies, answers, and checks the limits.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::producer::answer::Answer;
use crate::producer::status::Status;

use super::limits::Limits;
use super::machine::Connection;
use super::refusal::Refusal;
use super::signals::{Expired, Moment, Socket, Step};

/// Largest body that is accepted.
pub const MAX_BODY_BYTES: usize = 4 << 10;

/// Room that a body gets at a time.
const ROOM_BYTES: usize = 1 << 10;

/// Most bytes of one answer of this owner or of the machine.
const MOST_ANSWER_BYTES: usize = 1 << 10;

/// What happened on a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// A request with its method, target and body.
    Served(String, String, Vec<u8>),
    /// A request whose target starts with `/refused`, or whose body is too large.
    Refused(String),
    /// The machine has refused something.
    Broken(Refusal),
}

/// A connection, its owner and its client.
pub struct Owner {
    /// The machine.
    pub connection: Connection,
    /// What happened so far.
    pub seen: Vec<Seen>,
    /// What the client has received.
    pub received: Vec<u8>,
    /// The last instruction for the socket.
    pub socket: Socket,
    /// The present.
    pub now: Instant,
    /// Answers are given only when the machine waits for them.
    pub is_lazy: bool,
    /// The client takes what is sent to it.
    pub reads: bool,
    limits: Arc<Limits>,
    current: (String, String),
    open: VecDeque<u64>,
    longest: usize,
}

impl Owner {
    /// Starts with an eager owner and a client that reads.
    pub fn new(limits: Limits, now: Instant) -> Self {
        let limits = Arc::new(limits);
        Self {
            connection: Connection::new(limits.clone(), now),
            seen: Vec::new(),
            received: Vec::new(),
            socket: Socket::Keep,
            now,
            is_lazy: false,
            reads: true,
            limits,
            current: Default::default(),
            open: VecDeque::new(),
            longest: 0,
        }
    }

    /// Sends `bytes` as one piece, as soon as the machine wants input. Returns false if it never will.
    pub fn send(&mut self, bytes: &[u8]) -> bool {
        while !self.connection.wants_input() && self.socket != Socket::Close {
            if !self.answer_next() {
                return false;
            }
        }
        self.longest = self.longest.max(bytes.len());
        if self.socket != Socket::Close {
            self.connection.receive(bytes);
            self.work();
        }
        true
    }

    /// Shuts the client's sending side.
    pub fn end(&mut self) {
        self.connection.end_of_input();
        self.work();
        while self.answer_next() {}
    }

    /// Answers the oldest open request.
    pub fn answer_next(&mut self) -> bool {
        let Some(number) = self.open.pop_front() else { return false };
        self.answer(number, Status::Ok);
        self.work();
        true
    }

    /// Answers the request with this number.
    pub fn answer(&mut self, number: u64, status: Status) {
        let answer = Answer::new(status, "text/plain", format!("<{number}>").into_bytes());
        let moment = Moment { now: self.now, date: "now" };
        self.connection.answer(number, &answer, moment);
        self.flush();
    }

    /// Lets time pass.
    pub fn wait(&mut self, time: Duration) -> Option<Expired> {
        self.now += time;
        let expired = self.connection.expire(Moment { now: self.now, date: "now" });
        self.work();
        expired
    }

    /// Does what the machine asks for.
    pub fn work(&mut self) {
        loop {
            let moment = Moment { now: self.now, date: "now" };
            match self.connection.next(moment) {
                Step::Wait => break,
                Step::Request(number, head, _) => {
                    self.current = (head.method.to_owned(), head.target.to_owned());
                    if head.target.starts_with("/refused") {
                        self.refuse(number, Status::NotFound);
                    } else {
                        self.connection.accept(ROOM_BYTES, self.now);
                    }
                }
                Step::Room(number, held) if held >= MAX_BODY_BYTES => {
                    self.refuse(number, Status::ContentTooLarge)
                }
                Step::Room(_, held) => self.connection.extend(held + ROOM_BYTES),
                Step::Body(number, body) => {
                    assert!(body.len() <= MAX_BODY_BYTES);
                    let (method, target) = self.current.clone();
                    self.seen.push(Seen::Served(method, target, body));
                    match self.is_lazy {
                        true => self.open.push_back(number),
                        false => self.answer(number, Status::Ok),
                    }
                }
                Step::Refused(refusal) => self.seen.push(Seen::Broken(refusal)),
            }
            self.flush();
        }
        self.flush();
    }

    fn refuse(&mut self, number: u64, status: Status) {
        self.seen.push(Seen::Refused(self.current.1.clone()));
        self.answer(number, status);
    }

    fn flush(&mut self) {
        if self.reads {
            let count = self.connection.output().len();
            self.received.extend_from_slice(self.connection.output());
            self.connection.sent(count, self.now);
        }
        self.check();
        match self.connection.socket(self.now) {
            Socket::Keep => {}
            other => self.socket = other,
        }
    }

    fn check(&self) {
        let limits = &self.limits;
        // A buffer may have grown to twice what it needs.
        let input = 2 * (limits.head_bytes + self.longest).max(8 << 10);
        let body = 2 * (MAX_BODY_BYTES + ROOM_BYTES);
        let output = 2 * (limits.output_bytes + 2 * MOST_ANSWER_BYTES) + limits.pipelined * 1024;
        let held = self.connection.held_bytes();
        assert!(held <= input + body + output, "{held} bytes held");
    }

    /// Statuses of the answers that the client has received, `100 Continue` included.
    pub fn statuses(&self) -> Vec<u16> {
        let text = String::from_utf8_lossy(&self.received).into_owned();
        let lines = text.split("HTTP/1.1 ").skip(1);
        lines.filter_map(|line| line.get(..3)?.parse().ok()).collect()
    }
}

/// What becomes of `input`, split after the bytes that `cuts` name, on a connection that ends after it.
pub fn outcome(input: &[u8], cuts: &[usize], is_lazy: bool, now: Instant) -> (Vec<Seen>, Vec<u16>, Socket) {
    let mut owner = Owner::new(Limits::default(), now);
    owner.is_lazy = is_lazy;
    let _ = pieces(input, cuts).iter().all(|piece| owner.send(piece));
    owner.end();
    let mut statuses = owner.statuses();
    // Whether a client was still waiting for it depends on the split.
    statuses.retain(|status| *status != 100);
    (owner.seen, statuses, owner.socket)
}

/// Sends `input` with pauses, from a client that never ends the connection and may not read. Returns true if the
/// connection ends all the same.
pub fn abandoned(input: &[u8], cuts: &[usize], reads: bool, pause: Duration, now: Instant) -> bool {
    let mut owner = Owner::new(Limits::default(), now);
    (owner.is_lazy, owner.reads) = (true, reads);
    for piece in pieces(input, cuts) {
        if !owner.send(piece) {
            break;
        }
        owner.wait(pause);
    }
    let longest = owner.limits.longest_body_time;
    (0..1000).any(|_| {
        owner.answer_next();
        owner.wait(longest);
        owner.socket == Socket::Close
    })
}

/// `input`, split after the bytes that `cuts` name.
fn pieces<'a>(input: &'a [u8], cuts: &[usize]) -> Vec<&'a [u8]> {
    let mut ends: Vec<usize> = cuts.iter().map(|cut| cut % (input.len() + 1)).collect();
    ends.extend([0, input.len()]);
    ends.sort_unstable();
    ends.dedup();
    ends.windows(2).map(|pair| &input[pair[0]..pair[1]]).collect()
}

#[cfg(test)]
impl Owner {
    /// Starts now.
    pub fn start(limits: Limits) -> Self {
        Self::new(limits, Instant::now())
    }

    /// What becomes of `input`.
    pub fn outcome(input: &[u8], cuts: &[usize], is_lazy: bool) -> (Vec<Seen>, Vec<u16>, Socket) {
        outcome(input, cuts, is_lazy, Instant::now())
    }

    /// Whether a connection ends that its client abandons.
    pub fn abandoned(input: &[u8], cuts: &[usize], reads: bool, pause: Duration) -> bool {
        abandoned(input, cuts, reads, pause, Instant::now())
    }
}
