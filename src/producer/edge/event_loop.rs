//! One event loop: reads, serves and writes the connections of one thread.

use std::io;
use std::net::{Shutdown, TcpStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam::channel::Receiver;

use crate::producer::answer::Answer;
use crate::producer::clock::Date;
use crate::producer::edge::clients::{Client, Clients};
use crate::producer::edge::connection::{Connection, Expired, Limits, Moment, Socket};
use crate::producer::edge::mailbox::{Mail, Mailbox, Token};
use crate::producer::edge::poller::{Events, Poller, Ready};
use crate::producer::edge::serve::Serve;
use crate::producer::edge::steps::{gave_up, serve};

/// Most bytes read at once.
const READ_BYTES: usize = 64 << 10;

/// Reads from one connection before the others have their turn.
const READS_PER_TURN: usize = 4;

/// Most bytes of answers that the clients of one loop have not read. Above it, those that read least are cut off.
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
            self.mailbox.closed(client.is_refused);
            if !client.is_refused {
                self.service.connections(-1);
            }
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
            Mail::Connection(socket, refusal) => self.open(socket, refusal),
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
                    // A request that has arrived is still answered: closing on it would reset the connection.
                    client.readable = true;
                    if !std::mem::replace(&mut client.listed, true) {
                        self.ready.push(token);
                    }
                }
            }
            Mail::Stop => return false,
        }
        true
    }

    fn open(&mut self, socket: TcpStream, refusal: Option<Answer>) {
        let mut connection = Connection::new(self.limits.clone(), self.now);
        if let Some(answer) = &refusal {
            connection.turn_away(answer, Moment { now: self.now, date: self.date.text() });
        } else if self.retiring {
            connection.retire();
        }
        let token = self.clients.next_token();
        if self.poller.add(&socket, token.0).is_err() {
            return self.mailbox.closed(refusal.is_some());
        }
        self.clients.add(Client::new(socket, connection, refusal.is_some()));
        if refusal.is_none() {
            self.service.connections(1);
        }
        self.ready.push(token);
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
            client.read(&mut self.buffer)?;
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

    fn serve(&mut self, token: Token) -> bool {
        let moment = Moment { now: self.now, date: self.date.text() };
        let Some(client) = self.clients.get(token) else { return true };
        serve(client, token, &*self.service, &self.mailbox, moment)
    }

    /// Writes what is ready to be sent, and ends the connection if it is time to.
    fn finish(&mut self, token: Token) -> io::Result<()> {
        let Some(client) = self.clients.get(token) else { return Ok(()) };
        client.write(self.now)?;
        let unsent = client.connection.unsent_bytes();
        self.unsent = self.unsent - client.unsent + unsent;
        client.unsent = unsent;
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
        if self.unsent > MAX_UNSENT_BYTES {
            self.shed();
        }
        Ok(())
    }

    /// Cuts off the clients that have read nothing for the longest time, until the answers to the others fit.
    fn shed(&mut self) {
        while self.unsent > MAX_UNSENT_BYTES {
            let clients = self.clients.iter_mut();
            let stuck = clients.filter_map(|(token, client)| Some((client.connection.stuck_since()?, token)));
            let Some((_, token)) = stuck.min_by_key(|(since, _)| *since) else { return };
            self.service.expired(Expired::Unread);
            self.remove(token);
        }
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
