//! One request and the right to answer it: the only file that writes to a client.

use std::cell::RefCell;
use std::io::{self, Write};
use std::mem;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use time::OffsetDateTime;
use time::macros::format_description;
use tiny_http::{HTTPVersion, HeaderField, Method, Request};

use crate::linux;

use super::answer::Answer;
use super::connections::Connection;
use super::routes::{Head, Route};

/// Above this, dropping an unread request could abort the process: tiny_http allocates the rest of the body at
/// once. Up to here the allocation is never touched.
const DRAINABLE_BYTES: usize = 64 << 20;

/// Longest `X-Request-Id` that is echoed.
const MAX_REQUEST_ID_BYTES: usize = 128;

/// A request as it was taken, before its turn.
#[derive(Debug)]
pub struct Arrival {
    /// The request.
    pub request: Request,
    /// When it was taken.
    pub at: Instant,
}

/// A request whose turn it is.
pub struct Exchange {
    request: Request,
    /// Its connection.
    pub connection: Arc<Connection<Arrival>>,
    /// When it was taken.
    pub started: Instant,
}

impl Exchange {
    /// The turn of `arrival` on `connection`.
    pub fn new(arrival: Arrival, connection: Arc<Connection<Arrival>>) -> Self {
        Self { request: arrival.request, connection, started: arrival.at }
    }

    /// The resource that is asked for.
    pub fn route(&self) -> Route {
        Route::of(self.request.url())
    }

    /// The parts of the head that decide.
    pub fn head(&self) -> Head<'_> {
        let mut head =
            Head { method: self.request.method().as_str(), target: self.request.url(), ..Head::default() };
        for header in self.request.headers() {
            let value = header.value.as_str();
            match known(&header.field) {
                Some(Known::ContentLength) if head.content_length.is_some() => head.repeated_length = true,
                Some(Known::ContentLength) => head.content_length = Some(value),
                Some(Known::TransferEncoding) => head.transfer_encoding = true,
                Some(Known::Connection) => head.upgrade |= value.to_ascii_lowercase().contains("upgrade"),
                Some(Known::ContentType) => head.content_type = Some(value),
                Some(Known::ContentEncoding) => head.content_encoding = Some(value),
                None => {}
            }
        }
        head
    }

    /// True when tiny_http already holds the whole body, so that reading it cannot block.
    pub fn body_is_here(&self) -> bool {
        let expects = || self.request.headers().iter().any(|header| header.field.equiv("Expect"));
        self.request.body_length().unwrap_or(0) <= 1024 && !expects()
    }

    /// Reads the body into `body`; it may block on the client, which the guard bounds.
    ///
    /// # Errors
    /// The client went away, or sent less than it promised.
    pub fn read_body(&mut self, length: usize, body: &mut Vec<u8>) -> io::Result<()> {
        body.resize(length, 0);
        self.request.as_reader().read_exact(body)
    }

    /// Answers in one write. With `close`, the client's unread body is given up and the connection ends.
    ///
    /// # Errors
    /// The client did not take the answer; its connection has been shut.
    pub fn answer(self, answer: &Answer, close: bool, port: u16) -> io::Result<()> {
        thread_local!(static BUFFER: RefCell<Vec<u8>> = RefCell::default());
        BUFFER.with_borrow_mut(|buffer| {
            buffer.clear();
            self.encode(answer, close, buffer);
            if close {
                return self.write_and_close(buffer, port);
            }
            let connection = self.connection.clone();
            let mut writer = self.request.into_writer();
            let written = writer.write_all(buffer).and_then(|()| writer.flush());
            if written.is_err() && connection.cut() {
                shut(port, connection.peer, Shutdown::Both);
            }
            written
        })
    }

    /// Gives the request up without an answer; its connection has been cut.
    pub fn give_up(self) {
        drop(self.request.into_writer());
    }

    fn encode(&self, answer: &Answer, close: bool, out: &mut Vec<u8>) {
        let id = self.request.headers().iter().find(|header| header.field.equiv("X-Request-Id"));
        let id = id
            .map(|header| header.value.as_str())
            .filter(|id| id.len() <= MAX_REQUEST_ID_BYTES && id.bytes().all(|byte| byte.is_ascii_graphic()));
        let last = close || self.ends_connection();
        let head_only = *self.request.method() == Method::Head;
        with_date(|date| answer.encode(date, id, last, head_only, out));
    }

    /// Whether tiny_http ends the connection after this request. The client must be told, or one that keeps
    /// connections (a proxy's pool) sends its next request into the end of this one.
    fn ends_connection(&self) -> bool {
        let connection = self.request.headers().iter().find(|header| header.field.equiv("Connection"));
        let asks_for = |word| connection.is_some_and(|header| names(header.value.as_str(), word));
        asks_for("close") || *self.request.http_version() < HTTPVersion(1, 1) && !asks_for("keep-alive")
    }

    /// tiny_http would read the rest of the body before it writes: with the reading side shut it finds the end
    /// at once.
    fn write_and_close(self, bytes: &[u8], port: u16) -> io::Result<()> {
        let peer = self.connection.peer;
        if self.request.body_length().is_some_and(|length| length > DRAINABLE_BYTES) {
            return self.write_and_leak(bytes, port);
        }
        shut(port, peer, Shutdown::Read);
        let mut writer = self.request.into_writer();
        writer.write_all(bytes).and_then(|()| writer.flush())
    }

    /// Dropping this request would abort the process, so it is leaked (a thread and two descriptors, counted by
    /// the guard) and its socket is served directly.
    fn write_and_leak(self, bytes: &[u8], port: u16) -> io::Result<()> {
        let mut written = Ok(());
        let mut done = false;
        on_sockets(port, self.connection.peer, |mut socket| {
            if !done {
                done = true;
                written = socket.write_all(bytes);
                let _ = socket.shutdown(Shutdown::Both);
            }
        });
        mem::forget(self.request);
        written
    }
}

/// Whether the comma separated `list` holds `word`, in any case.
fn names(list: &str, word: &str) -> bool {
    list.split(',').any(|part| part.trim().eq_ignore_ascii_case(word))
}

enum Known {
    ContentLength,
    TransferEncoding,
    Connection,
    ContentType,
    ContentEncoding,
}

fn known(field: &HeaderField) -> Option<Known> {
    // The length is looked at first: most headers of a request are none of these.
    match field.as_str().len() {
        10 if field.equiv("Connection") => Some(Known::Connection),
        12 if field.equiv("Content-Type") => Some(Known::ContentType),
        14 if field.equiv("Content-Length") => Some(Known::ContentLength),
        16 if field.equiv("Content-Encoding") => Some(Known::ContentEncoding),
        17 if field.equiv("Transfer-Encoding") => Some(Known::TransferEncoding),
        _ => None,
    }
}

/// Shuts the connection that `peer` has with our `port`.
pub fn shut(port: u16, peer: SocketAddr, how: Shutdown) {
    on_sockets(port, peer, |socket| {
        let _ = socket.shutdown(how);
    });
}

fn on_sockets(port: u16, peer: SocketAddr, mut act: impl FnMut(&TcpStream)) {
    linux::for_each_connection(|socket, local, other| {
        if local.port() == port && other == peer {
            act(socket);
        }
    });
}

/// Runs `use_date` with the current IMF-fixdate, formatted once a second and thread.
fn with_date(use_date: impl FnOnce(&str)) {
    thread_local!(static DATE: RefCell<(u64, String)> = RefCell::default());
    let now = SystemTime::now();
    let second = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |age| age.as_secs());
    DATE.with_borrow_mut(|(cached, text)| {
        if *cached != second {
            let format = format_description!(
                "[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT"
            );
            *text = OffsetDateTime::from(now).format(format).unwrap_or_default();
            *cached = second;
        }
        use_date(text);
    });
}
