//! One event loop: reads, serves and writes the connections of one thread.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam::channel::Receiver;

use crate::producer::answer::Answer;
use crate::producer::clock::Date;
use crate::producer::edge::clients::{Client, Clients};
use crate::producer::edge::connection::{Connection, Expired, Limits, Moment, Refusal, Socket, Step};
use crate::producer::edge::mailbox::{Mail, Mailbox, Token};
use crate::producer::edge::poller::{Events, Poller, Ready};
use crate::producer::edge::serve::{Decision, Reply, Serve};

/// Most bytes read at once.
const READ_BYTES: usize = 64 << 10;

/// Reads from one connection before the others have their turn.
const READS_PER_TURN: usize = 4;

/// Most bytes of answers that the clients of one loop have not read. Above it, those that do not read are cut off.
const MAX_UNSENT_BYTES: usize = 16 << 20;

/// How often deadlines are checked; each may be missed by as much.
const SWEEP: Duration = Duration::from_millis(250);

/// One loop and its connections.
pub struct EventLoop<S: Serve> {
    service: Arc<S>,
    limits: Arc<Limits>,
    poller: Poller,
    mailbox: Arc<Mailbox>,
    mail: Receiver<Mail>,
    clients: Clients<S::Taking>,
    /// Connections that have something to read or to parse.
    ready: Vec<Token>,
    /// Connections that may have something to write or to end.
    touched: Vec<Token>,
    /// Bytes of answers that have not been sent.
    unsent: usize,
    buffer: Box<[u8]>,
    date: Date,
    now: Instant,
    swept: Instant,
    retiring: bool,
}

impl<S: Serve> EventLoop<S> {
    /// Creates a loop without connections, and its mailbox.
    ///
    /// # Errors
    /// The process is out of descriptors.
    pub fn new(service: Arc<S>, limits: Arc<Limits>) -> io::Result<(Self, Arc<Mailbox>)> {
        let poller = Poller::new()?;
        let (mailbox, mail) = Mailbox::new(poller.bell());
        let now = Instant::now();
        let this = Self {
            service,
            limits,
            poller,
            mailbox: mailbox.clone(),
            mail,
            clients: Clients::new(),
            ready: Vec::new(),
            touched: Vec::new(),
            unsent: 0,
            buffer: vec![0; READ_BYTES].into_boxed_slice(),
            date: Date::default(),
            now,
            swept: now,
            retiring: false,
        };
        Ok((this, mailbox))
    }

    /// Serves until [`Mail::Stop`].
    pub fn run(mut self) {
        let mut events = Events::new();
        loop {
            self.poller.listen();
            let is_busy = !self.ready.is_empty() || !self.mail.is_empty();
            self.poller.wait(&mut events, if is_busy { Duration::ZERO } else { SWEEP });
            self.now = Instant::now();
            self.date.refresh();
            events.iter().for_each(|event| self.mark(event));
            for token in std::mem::take(&mut self.ready) {
                self.catch_panic(token, Self::read);
                // Before the next connection is read, so that the answers to all of them cannot pile up.
                if !self.collect() {
                    return;
                }
                self.catch_panic(token, Self::finish);
            }
            if !self.collect() {
                return;
            }
            if self.now >= self.swept + SWEEP {
                self.sweep();
            }
            for token in std::mem::take(&mut self.touched) {
                self.catch_panic(token, Self::finish);
            }
        }
    }

    /// A panic costs one connection, not the loop.
    fn catch_panic(&mut self, token: Token, work: impl FnOnce(&mut Self, Token) -> io::Result<()>) {
        // The panic itself has been logged and counted.
        if !matches!(catch_unwind(AssertUnwindSafe(|| work(self, token))), Ok(Ok(()))) {
            self.remove(token);
        }
    }

    fn remove(&mut self, token: Token) {
        if let Some(client) = self.clients.remove(token) {
            self.unsent -= client.unsent;
            if let Some(taking) = client.taking {
                self.service.gave_up(taking, None);
            }
            self.mailbox.closed();
            self.service.connections(-1);
        }
    }

    /// Does what other threads have asked for; returns false if the loop ends.
    fn collect(&mut self) -> bool {
        while let Ok(mail) = self.mail.try_recv() {
            if !self.take(mail) {
                return false;
            }
        }
        true
    }

    /// Returns false if the loop ends.
    fn take(&mut self, mail: Mail) -> bool {
        match mail {
            Mail::Connection(socket) => {
                let mut connection = Connection::new(self.limits.clone(), self.now);
                if self.retiring {
                    connection.retire();
                }
                let token = self.clients.next_token();
                if self.poller.add(&socket, token.0).is_err() {
                    self.mailbox.closed();
                    return true;
                }
                let (readable, writable) = (true, true);
                let (hung_up, unsent, listed) = (false, 0, true);
                let client =
                    Client { socket, connection, taking: None, readable, hung_up, writable, unsent, listed };
                self.clients.add(client);
                self.service.connections(1);
                self.ready.push(token);
            }
            Mail::Answer(token, number, answer) => {
                let moment = Moment { now: self.now, date: self.date.text() };
                let answer = answer.unwrap_or_else(|| {
                    let lost = Answer::lost().closing(true);
                    self.service.lost(lost.status);
                    lost
                });
                let Some(client) = self.clients.get(token) else { return true };
                client.connection.answer(number, &answer, moment);
                self.touched.push(token);
            }
            Mail::Retire => {
                self.retiring = true;
                for (token, client) in self.clients.iter_mut() {
                    client.connection.retire();
                    self.touched.push(token);
                }
            }
            Mail::Stop => return false,
        }
        true
    }

    /// Reads from a connection, and serves the requests that are complete.
    fn read(&mut self, token: Token) -> io::Result<()> {
        if let Some(client) = self.clients.get(token) {
            client.listed = false;
        }
        for _ in 0..READS_PER_TURN {
            if !self.serve(token) {
                self.list(token);
                return Ok(());
            }
            let Some(client) = self.clients.get(token) else { return Ok(()) };
            if !client.readable || !client.connection.wants_input() {
                return Ok(());
            }
            match client.socket.read(&mut self.buffer) {
                Ok(0) => {
                    client.readable = false;
                    client.connection.end_of_input();
                }
                Ok(count) => {
                    // Fewer bytes than asked for are all that there are; more of them are reported. An end that
                    // has been reported already is not reported again.
                    client.readable = count == self.buffer.len() || client.hung_up;
                    client.connection.receive(&self.buffer[..count]);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => client.readable = false,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.serve(token);
        self.list(token);
        Ok(())
    }

    /// Has the connection looked at again.
    fn list(&mut self, token: Token) {
        if let Some(client) = self.clients.get(token).filter(|client| !client.listed) {
            client.listed = true;
            self.ready.push(token);
        }
    }

    /// Does what the connection asks for. Returns false if answers have to be sent before it goes on.
    fn serve(&mut self, token: Token) -> bool {
        let moment = Moment { now: self.now, date: self.date.text() };
        let Some(client) = self.clients.get(token) else { return true };
        loop {
            match client.connection.next(moment) {
                Step::Wait => return true,
                Step::Request(number, head, length) => match self.service.head(head, length, self.now) {
                    Decision::Answer(answer) => client.connection.answer(number, &answer, moment),
                    Decision::Accept { room, taking } => {
                        client.taking = Some(taking);
                        client.connection.accept(room, self.now);
                    }
                },
                Step::Room(number, held) => {
                    let Some(taking) = client.taking.as_mut() else { return true };
                    match self.service.extend(taking, held) {
                        Ok(room) => client.connection.extend(room),
                        Err(answer) => {
                            client.connection.answer(number, &answer, moment);
                            if let Some(taking) = client.taking.take() {
                                self.service.gave_up(taking, Some(answer.status));
                            }
                        }
                    }
                }
                Step::Body(number, body) => {
                    let Some(taking) = client.taking.take() else { return true };
                    let reply = Reply::new(self.mailbox.clone(), token, number);
                    let serve = AssertUnwindSafe(|| self.service.serve(taking, body, reply, self.now));
                    // A reply that is dropped in a panic answers 500.
                    let _ = catch_unwind(serve);
                    // It may have been answered at once, with much more than it had. The answer has to be sent
                    // before the next request, or a client that does not read could have any number of them.
                    if !self.mail.is_empty() && !client.connection.is_between() {
                        return false;
                    }
                }
                Step::Refused(refusal) => gave_up(&*self.service, refusal, client.taking.take()),
            }
        }
    }

    /// Writes what is ready to be sent, and ends the connection if it is time to.
    fn finish(&mut self, token: Token) -> io::Result<()> {
        let Some(client) = self.clients.get(token) else { return Ok(()) };
        while client.writable && !client.connection.output().is_empty() {
            let output = client.connection.output();
            match client.socket.write(output) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    client.writable = count == output.len();
                    client.connection.sent(count, self.now);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => client.writable = false,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        let unsent = client.connection.unsent_bytes();
        self.unsent = self.unsent - client.unsent + unsent;
        client.unsent = unsent;
        let is_unread = !client.connection.output().is_empty();
        if is_unread && self.unsent > MAX_UNSENT_BYTES {
            self.service.expired(Expired::Unread);
            self.remove(token);
            return Ok(());
        }
        match client.connection.socket(self.now) {
            Socket::Close => {
                self.remove(token);
                return Ok(());
            }
            Socket::ShutWrite => client.socket.shutdown(Shutdown::Write)?,
            Socket::Keep => {}
        }
        // It may have waited for this before it goes on reading or parsing.
        if client.connection.may_resume() || client.readable && client.connection.wants_input() {
            self.list(token);
        }
        Ok(())
    }

    /// Ends what is overdue.
    fn sweep(&mut self) {
        self.swept = self.now;
        let moment = Moment { now: self.now, date: self.date.text() };
        for (token, client) in self.clients.iter_mut() {
            if let Some(expired) = client.connection.expire(moment) {
                self.service.expired(expired);
                if let Expired::Slow(refusal) = expired {
                    gave_up(&*self.service, refusal, client.taking.take());
                }
                self.touched.push(token);
            }
        }
    }

    /// Notes what a socket is ready for.
    fn mark(&mut self, event: Ready) {
        let token = Token(event.token);
        let Some(client) = self.clients.get(token) else { return };
        if event.dead {
            return self.remove(token);
        }
        client.readable |= event.readable;
        client.hung_up |= event.hung_up;
        client.writable |= event.writable;
        self.list(token);
    }
}

/// Counts a refusal, whose request may have been accepted before.
fn gave_up<S: Serve>(service: &S, refusal: Refusal, taking: Option<S::Taking>) {
    service.refused(refusal, taking.is_some());
    if let Some(taking) = taking {
        service.gave_up(taking, Some(refusal.answer().status));
    }
}
