//! Holds a request that is being served, together with the right to answer it.

use std::cell::RefCell;
use std::io::{self, Write};
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use crossbeam::channel::Sender;
use time::OffsetDateTime;
use time::macros::format_description;
use tiny_http::{HTTPVersion, HeaderField, Method, Request};

use crate::producer::answer::Answer;
use crate::producer::routes::{Head, Route};
use crate::producer::tiny_http::closer::{Ending, Order};
use crate::producer::tiny_http::connections::Connection;

/// tiny_http reads bodies up to this size before it returns the request, unless there is an `Expect` header.
const SMALL_BODY_BYTES: usize = 1024;

/// Longest `X-Request-Id` that is echoed, in bytes.
const MAX_REQUEST_ID_BYTES: usize = 128;

/// A request as it was received, before it may be served.
#[derive(Debug)]
pub struct Arrival {
    pub request: Request,
    /// When it was received.
    pub at: Instant,
}

/// A request that is being served. If it is dropped without an answer, it is answered 500 and its connection
/// ended, so a panic cannot leave the connection stuck.
pub struct Exchange {
    /// `None` once it has been answered or handed to the closer.
    request: Option<Request>,
    /// Its connection.
    pub connection: Arc<Connection<Arrival>>,
    closer: Sender<Order>,
    /// When its head was received.
    pub started: Instant,
    /// When work on it could first begin: it was next on its connection, and its body was complete. Our own
    /// timeouts start here, because the time before that is up to the client.
    pub complete: Instant,
}

impl Exchange {
    /// Starts to serve `arrival` on `connection`, where it became next in line at `turn`.
    pub fn new(
        arrival: Arrival,
        connection: Arc<Connection<Arrival>>,
        closer: Sender<Order>,
        turn: Instant,
    ) -> Self {
        let started = arrival.at;
        Self { request: Some(arrival.request), connection, closer, started, complete: turn }
    }

    fn request(&self) -> &Request {
        self.request.as_ref().expect("only `answer`, `end` and `drop` take it, and they consume the exchange")
    }

    /// The requested resource.
    pub fn route(&self) -> Route {
        Route::of(self.request().url())
    }

    /// The parts of the head that decide how to handle the request.
    pub fn head(&self) -> Head<'_> {
        let request = self.request();
        let mut head = Head { method: request.method().as_str(), target: request.url(), ..Head::default() };
        let mut expects = false;
        for header in request.headers() {
            let value = header.value.as_str();
            match known(&header.field) {
                Some(Known::ContentLength) if head.content_length.is_some() => head.repeated_length = true,
                Some(Known::ContentLength) => head.content_length = Some(value),
                Some(Known::TransferEncoding) => head.transfer_encoding = true,
                Some(Known::Connection) => head.upgrade |= value.to_ascii_lowercase().contains("upgrade"),
                Some(Known::ContentType) => head.content_type = Some(value),
                Some(Known::ContentEncoding) => head.content_encoding = Some(value),
                Some(Known::Expect) => expects = true,
                None => {}
            }
        }
        head.body_is_here = !expects && request.body_length().unwrap_or(0) <= SMALL_BODY_BYTES;
        head
    }

    /// Reads the body into `body`. This may block on the client, for a time that the guard limits.
    ///
    /// # Errors
    /// The client went away, or sent less than it announced.
    pub fn read_body(&mut self, length: usize, body: &mut Vec<u8>) -> io::Result<()> {
        body.resize(length, 0);
        let request = self.request.as_mut().expect("only `answer`, `end` and `drop` take it");
        request.as_reader().read_exact(body)
    }

    /// Sends the answer in one write and keeps the connection open.
    ///
    /// # Errors
    /// The client did not accept the answer; its connection is being shut down.
    pub fn answer(mut self, answer: &Answer) -> io::Result<()> {
        thread_local!(static BUFFER: RefCell<Vec<u8>> = RefCell::default());
        BUFFER.with_borrow_mut(|buffer| {
            buffer.clear();
            self.encode(answer, false, buffer);
            let Some(request) = self.request.take() else { return Ok(()) };
            let mut writer = request.into_writer();
            let written = writer.write_all(buffer).and_then(|()| writer.flush());
            if written.is_err() && self.connection.cut() {
                let _ = self.closer.send(Order::Shut(self.connection.peer));
            }
            written
        })
    }

    /// Hands the request to the closer, which answers it, abandons unread input, and ends the connection.
    /// Never blocks on the client.
    pub fn end(mut self, answer: &Answer) {
        let mut bytes = Vec::new();
        if !self.connection.is_cut() {
            self.encode(answer, true, &mut bytes);
        }
        self.hand_over(Some(bytes));
    }

    /// Abandons the request, and all that follow on its connection, without an answer. The connection has
    /// already been cut off.
    pub fn give_up(mut self) {
        self.hand_over(Some(Vec::new()));
    }

    fn hand_over(&mut self, bytes: Option<Vec<u8>>) {
        let Some(request) = self.request.take() else { return };
        let ending = Ending { request, connection: self.connection.clone(), bytes };
        // The closer is the last thread to end, after every connection has been shut down.
        let _ = self.closer.send(Order::End(Box::new(ending)));
    }

    fn encode(&self, answer: &Answer, close: bool, out: &mut Vec<u8>) {
        let id = self.request().headers().iter().find(|header| header.field.equiv("X-Request-Id"));
        let id = id
            .map(|header| header.value.as_str())
            .filter(|id| id.len() <= MAX_REQUEST_ID_BYTES && id.bytes().all(|byte| byte.is_ascii_graphic()));
        let last = close || self.ends_connection();
        let head_only = *self.request().method() == Method::Head;
        with_date(|date| answer.encode(date, id, last, head_only, out));
    }

    /// Whether tiny_http ends the connection after this request. The answer must say so; otherwise a client
    /// that keeps connections open (a proxy's pool) would send its next request on one that is about to end.
    fn ends_connection(&self) -> bool {
        let connection = self.request().headers().iter().find(|header| header.field.equiv("Connection"));
        let asks_for = |word| connection.is_some_and(|header| names(header.value.as_str(), word));
        asks_for("close") || *self.request().http_version() < HTTPVersion(1, 1) && !asks_for("keep-alive")
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        // The closer builds the answer: code that has just panicked must not run again while that panic
        // unwinds.
        self.hand_over(None);
    }
}

/// The encoded answer to a request that was lost in a panic.
pub fn lost() -> Vec<u8> {
    let mut bytes = Vec::new();
    with_date(|date| Answer::lost().encode(date, None, true, false, &mut bytes));
    bytes
}

/// Whether the comma-separated `list` contains `word`, ignoring case.
fn names(list: &str, word: &str) -> bool {
    list.split(',').any(|part| part.trim().eq_ignore_ascii_case(word))
}

enum Known {
    ContentLength,
    TransferEncoding,
    Connection,
    ContentType,
    ContentEncoding,
    Expect,
}

fn known(field: &HeaderField) -> Option<Known> {
    // The length is checked first because most headers of a request are none of these.
    match field.as_str().len() {
        6 if field.equiv("Expect") => Some(Known::Expect),
        10 if field.equiv("Connection") => Some(Known::Connection),
        12 if field.equiv("Content-Type") => Some(Known::ContentType),
        14 if field.equiv("Content-Length") => Some(Known::ContentLength),
        16 if field.equiv("Content-Encoding") => Some(Known::ContentEncoding),
        17 if field.equiv("Transfer-Encoding") => Some(Known::TransferEncoding),
        _ => None,
    }
}

/// Runs `use_date` with the current IMF-fixdate, which is formatted once per second in each thread.
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
