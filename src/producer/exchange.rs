//! One request and the right to answer it.

use std::cell::RefCell;
use std::io::{self, Write};
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use crossbeam::channel::Sender;
use time::OffsetDateTime;
use time::macros::format_description;
use tiny_http::{HTTPVersion, HeaderField, Method, Request};

use super::answer::Answer;
use super::closer::{Ending, Order};
use super::connections::Connection;
use super::routes::{Head, Route};

/// tiny_http reads bodies up to here before it hands the request out, unless there is an `Expect`.
const SMALL_BODY_BYTES: usize = 1024;

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

/// A request whose turn it is. Dropped without an answer, it is answered 500 and its connection ended, so that a
/// panic takes no turn with it.
pub struct Exchange {
    /// `None` once it is answered or handed to the closer.
    request: Option<Request>,
    /// Its connection.
    pub connection: Arc<Connection<Arrival>>,
    closer: Sender<Order>,
    /// When its head was taken.
    pub started: Instant,
    /// When it could first be worked on: its turn had come and its body was complete. Waits of ours count from
    /// here, because the time before belongs to the client.
    pub complete: Instant,
}

impl Exchange {
    /// The turn of `arrival` on `connection`, which came at `turn`.
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

    /// The resource that is asked for.
    pub fn route(&self) -> Route {
        Route::of(self.request().url())
    }

    /// The parts of the head that decide.
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

    /// Reads the body into `body`; it may block on the client, which the guard bounds.
    ///
    /// # Errors
    /// The client went away, or sent less than it promised.
    pub fn read_body(&mut self, length: usize, body: &mut Vec<u8>) -> io::Result<()> {
        body.resize(length, 0);
        let request = self.request.as_mut().expect("only `answer`, `end` and `drop` take it");
        request.as_reader().read_exact(body)
    }

    /// Answers in one write; the connection goes on.
    ///
    /// # Errors
    /// The client did not take the answer; its connection is being shut.
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

    /// Has the closer answer, give up what is unread, and end the connection. Never blocks on the client.
    pub fn end(mut self, answer: &Answer) {
        let mut bytes = Vec::new();
        if !self.connection.is_cut() {
            self.encode(answer, true, &mut bytes);
        }
        self.hand_over(Some(bytes));
    }

    /// Gives the request up without an answer, and all behind it; its connection has been cut.
    pub fn give_up(mut self) {
        self.hand_over(Some(Vec::new()));
    }

    fn hand_over(&mut self, bytes: Option<Vec<u8>>) {
        let Some(request) = self.request.take() else { return };
        let ending = Ending { request, connection: self.connection.clone(), bytes };
        // The closer is the last thread to end, when every connection has been shut.
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

    /// Whether tiny_http ends the connection after this request. The client must be told, or one that keeps
    /// connections (a proxy's pool) sends its next request into the end of this one.
    fn ends_connection(&self) -> bool {
        let connection = self.request().headers().iter().find(|header| header.field.equiv("Connection"));
        let asks_for = |word| connection.is_some_and(|header| names(header.value.as_str(), word));
        asks_for("close") || *self.request().http_version() < HTTPVersion(1, 1) && !asks_for("keep-alive")
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        // The closer makes the answer: what has panicked once must not be called again while that panic unwinds.
        self.hand_over(None);
    }
}

/// The bytes of the answer to a request that was lost in a panic.
pub fn lost() -> Vec<u8> {
    let mut bytes = Vec::new();
    with_date(|date| Answer::lost().encode(date, None, true, false, &mut bytes));
    bytes
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
    Expect,
}

fn known(field: &HeaderField) -> Option<Known> {
    // The length is looked at first: most headers of a request are none of these.
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
