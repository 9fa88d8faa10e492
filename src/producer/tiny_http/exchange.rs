//! Passes requests on in the order of their connections, and answers them.

use std::cell::RefCell;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use crossbeam::channel::Sender;
use tiny_http::{HTTPVersion, Method, Request};

use crate::producer::answer::{After, Answer};
use crate::producer::clock::with_date;
use crate::producer::front::{self, Exchange};
use crate::producer::head::{Head, Headers, Others};
use crate::producer::metrics::ProducerMetrics;
use crate::producer::tiny_http::connections::{Connection, Connections, Entry};
use crate::producer::tiny_http::orders::{Arrival, Ending, Order};

/// tiny_http reads bodies up to this size before it returns the request, unless there is an `Expect` header.
const SMALL_BODY_BYTES: usize = 1024;

const TAKEN_ONCE: &str = "only an answer or a drop takes it, and they consume the exchange";

/// All connections, and the way to end one.
pub struct Exchanges {
    /// Keeps the requests of each connection in order.
    pub connections: Connections<Arrival>,
    /// Orders for the closer, which ends connections.
    pub closer: Sender<Order>,
    /// Counts floods and lost requests.
    pub metrics: Arc<ProducerMetrics>,
}

impl Exchanges {
    /// Registers a request in the order of arrival, and returns it if it can be served now.
    pub fn arrive(self: &Arc<Self>, arrival: Arrival) -> Option<Box<TinyHttpExchange>> {
        // A TCP listener always knows the peer; see `Request::remote_addr`.
        let peer = *arrival.request.remote_addr()?;
        let at = arrival.at;
        match self.connections.enter(peer, arrival) {
            Entry::Next(arrival, connection) => return Some(self.begin(arrival, connection, at)),
            Entry::Parked => {}
            Entry::Flood(peer) => {
                self.metrics.refuse("max_pipelined");
                self.order(Order::Shut(peer));
            }
            Entry::Late(peer) => self.order(Order::Late(peer)),
        }
        None
    }

    /// Moves the requests that arrived on a new connection of `peer` to it, and returns the first of them.
    pub fn revive(self: &Arc<Self>, peer: SocketAddr) -> Option<front::Request> {
        let (arrival, connection) = self.connections.revive(peer)?;
        self.begin(arrival, connection, Instant::now()).into_request()
    }

    fn begin(
        self: &Arc<Self>,
        arrival: Arrival,
        connection: Arc<Connection<Arrival>>,
        ready: Instant,
    ) -> Box<TinyHttpExchange> {
        let (request, started, all) = (Some(arrival.request), arrival.at, self.clone());
        Box::new(TinyHttpExchange { request, connection, all, started, ready, awaits_body: false })
    }

    fn order(&self, order: Order) {
        // The closer is the last thread to end, after every connection has been shut down.
        let _ = self.closer.send(order);
    }
}

/// A request that is next on its connection.
pub struct TinyHttpExchange {
    /// `None` once it has been answered or passed to the closer.
    request: Option<Request>,
    connection: Arc<Connection<Arrival>>,
    all: Arc<Exchanges>,
    /// When it was received.
    started: Instant,
    /// When it became next on its connection.
    ready: Instant,
    awaits_body: bool,
}

impl Exchange for TinyHttpExchange {
    fn target(&self) -> &str {
        self.request().url()
    }

    fn head(&self) -> Head<'_> {
        let request = self.request();
        let headers = request.headers().iter();
        let headers = headers.map(|header| (header.field.as_str().as_str(), header.value.as_str()));
        let mut head = Head::new(request.method().as_str(), request.url(), headers);
        head.others = Others::of(self);
        head.body_is_here = !head.expects && request.body_length().unwrap_or(0) <= SMALL_BODY_BYTES;
        head
    }

    fn await_body(&mut self) {
        self.awaits_body = true;
        self.connection.set_body_awaited(Some(Instant::now()));
    }

    fn read_body(&mut self, length: usize, body: &mut Vec<u8>) -> io::Result<()> {
        body.resize(length, 0);
        let read = self.request.as_mut().expect(TAKEN_ONCE).as_reader().read_exact(body);
        if self.awaits_body {
            self.connection.set_body_awaited(None);
        }
        read
    }

    /// An answer that ends the connection goes to the closer, so it never blocks on the client.
    fn respond(mut self: Box<Self>, answer: &Answer) -> Option<front::Request> {
        if answer.close || self.connection.is_last() || self.connection.is_cut() {
            self.end(answer);
            return None;
        }
        let (all, connection) = (self.all.clone(), self.connection.clone());
        // Becomes an exchange before the answer is written, so that a panic there cannot leave the connection
        // stuck.
        let next = all.connections.leave(&connection);
        let next = next.map(|arrival| all.begin(arrival, connection.clone(), self.ready));
        if self.write(answer).is_err() {
            log::debug!("{}: the client did not accept the answer", connection.peer);
        }
        let mut next = next?;
        next.ready = Instant::now();
        next.into_request()
    }
}

impl Headers for TinyHttpExchange {
    fn nth(&self, name: &str, n: usize) -> Option<&[u8]> {
        let is_named =
            |header: &&tiny_http::Header| header.field.as_str().as_str().eq_ignore_ascii_case(name);
        self.request().headers().iter().filter(is_named).nth(n).map(|header| header.value.as_str().as_bytes())
    }
}

impl TinyHttpExchange {
    /// The request as the handler serves it; `None` if its connection has been cut off, and then it is abandoned.
    pub fn into_request(mut self: Box<Self>) -> Option<front::Request> {
        if self.connection.is_cut() {
            self.pass_to_closer(Some(Vec::new()));
            return None;
        }
        Some(front::Request { started: self.started, origin: None, complete: self.ready, exchange: self })
    }

    fn request(&self) -> &Request {
        self.request.as_ref().expect(TAKEN_ONCE)
    }

    /// Sends the answer in one write and keeps the connection open.
    fn write(&mut self, answer: &Answer) -> io::Result<()> {
        thread_local!(static BUFFER: RefCell<Vec<u8>> = RefCell::default());
        BUFFER.with_borrow_mut(|buffer| {
            buffer.clear();
            self.encode(answer, false, buffer);
            let mut writer = self.request.take().expect(TAKEN_ONCE).into_writer();
            let written = writer.write_all(buffer).and_then(|()| writer.flush());
            if written.is_err() && self.connection.cut() {
                self.all.order(Order::Shut(self.connection.peer));
            }
            written
        })
    }

    /// Passes the request to the closer, which answers it, abandons unread input, and ends the connection.
    fn end(&mut self, answer: &Answer) {
        let mut bytes = Vec::new();
        if !self.connection.is_cut() {
            self.encode(answer, true, &mut bytes);
        }
        self.pass_to_closer(Some(bytes));
    }

    fn pass_to_closer(&mut self, bytes: Option<Vec<u8>>) {
        let Some(request) = self.request.take() else { return };
        self.all.order(Order::End(Box::new(Ending { request, connection: self.connection.clone(), bytes })));
    }

    fn encode(&self, answer: &Answer, close: bool, out: &mut Vec<u8>) {
        let id = self.header("X-Request-Id");
        let last = close || self.ends_connection();
        let after = if last { After::Close } else { After::Stay };
        let head_only = *self.request().method() == Method::Head;
        with_date(|date| answer.encode(date, id, after, head_only, out));
    }

    /// Whether tiny_http ends the connection after this request. The answer must say so; otherwise a client
    /// that keeps connections open (a proxy's pool) would send its next request on one that is about to end.
    fn ends_connection(&self) -> bool {
        let connection = self.header("Connection");
        let asks_for = |word: &str| {
            connection.is_some_and(|list| list.split(',').any(|part| part.trim().eq_ignore_ascii_case(word)))
        };
        asks_for("close") || *self.request().http_version() < HTTPVersion(1, 1) && !asks_for("keep-alive")
    }

    fn header(&self, name: &'static str) -> Option<&str> {
        let header = self.request().headers().iter().find(|header| header.field.equiv(name))?;
        Some(header.value.as_str())
    }
}

impl Drop for TinyHttpExchange {
    fn drop(&mut self) {
        // The closer builds the answer: code that has just panicked must not run again while that panic
        // unwinds.
        self.pass_to_closer(None);
    }
}
