//! Accepts connections: each has a thread of its own, which serves a page or becomes a viewer.

use std::io::{self, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tungstenite::handshake::server::{Request, create_response, write_response};

use crate::acceptor::Acceptor;
use crate::live::board::Board;
use crate::live::exchange::{Reply, read_request};
use crate::live::page;
use crate::live::rules::{Refused, Rules};
use crate::live::viewer;
use crate::thread::{join_until, spawn};
use crate::transport::Until;

/// Most viewers at once.
const MAX_VIEWERS: usize = 64;
/// Most connections at once. Browsers open some ahead of need, and every page is one for a moment.
const MAX_CONNECTIONS: usize = MAX_VIEWERS + 64;
/// Longest time until a request has arrived, and until an answer to a handshake is written.
const REQUEST_LIMIT: Duration = Duration::from_secs(5);
/// Longest time to say that there are too many connections.
const BUSY_LIMIT: Duration = Duration::from_millis(50);
/// Longest wait for the threads at the end.
const END_LIMIT: Duration = Duration::from_secs(2);

const BUSY: &str = "503 Service Unavailable";

/// Accepts connections until it is closed.
pub struct Door {
    acceptor: Acceptor,
    visits: Arc<Mutex<Vec<Visit>>>,
}

/// A connection, and the thread that owns and serves it.
struct Visit {
    client: Weak<TcpStream>,
    thread: JoinHandle<()>,
}

/// What every visit needs.
struct House {
    rules: Rules,
    board: Arc<Board>,
    viewers: AtomicUsize,
}

impl Door {
    /// Opens the door at `listener`.
    ///
    /// # Errors
    /// A thread cannot be started.
    pub fn open(listener: TcpListener, rules: Rules, board: Arc<Board>) -> io::Result<Self> {
        let house = Arc::new(House { rules, board, viewers: AtomicUsize::new(0) });
        let visits = Arc::new(Mutex::new(Vec::new()));
        let entered = visits.clone();
        let mut number = 0_u64;
        let acceptor = Acceptor::start("door", listener, move |client| {
            number += 1;
            if let Err(error) = enter(client, number, &house, &mut entered.lock()) {
                log::warn!("cannot serve a connection: {error}");
            }
        })?;
        Ok(Self { acceptor, visits })
    }

    /// The address that it listens on.
    pub fn addr(&self) -> SocketAddr {
        self.acceptor.addr()
    }

    /// Accepts no more, and waits until the visits have ended. The board must have ended before.
    pub fn close(self) {
        let Self { acceptor, visits } = self;
        drop(acceptor);
        let visits = std::mem::take(&mut *visits.lock());
        let threads = visits.into_iter().map(|visit| {
            // Wakes those that wait for a request; a viewer may still write its last words.
            if let Some(client) = visit.client.upgrade() {
                let _ = client.shutdown(Shutdown::Read);
            }
            visit.thread
        });
        join_until(threads.collect::<Vec<_>>(), Instant::now() + END_LIMIT);
    }
}

/// Starts a visit, after those that have ended were cleared away.
fn enter(client: TcpStream, number: u64, house: &Arc<House>, visits: &mut Vec<Visit>) -> io::Result<()> {
    for ended in visits.extract_if(.., |visit| visit.thread.is_finished()) {
        if ended.thread.join().is_err() {
            log::error!("the thread of a connection panicked; see the log above");
        }
    }
    if visits.len() >= MAX_CONNECTIONS {
        // In the thread that accepts, so without waiting for anything.
        return Reply::text(BUSY, "too many connections").with("Retry-After", "5").write(&client, BUSY_LIMIT);
    }
    let (client, house) = (Arc::new(client), house.clone());
    let weak = Arc::downgrade(&client);
    let thread = spawn(format!("viewer-{number}"), move || visit(&client, &house))?;
    visits.push(Visit { client: weak, thread });
    Ok(())
}

fn visit(client: &TcpStream, house: &House) {
    let deadline = Instant::now() + REQUEST_LIMIT;
    match read_request(client, deadline) {
        Ok(request) => match house.answer(&request) {
            Answer::Reply(reply) => reply.send(client),
            Answer::Watch(handshake) => {
                let Some(_seat) = Seat::take(&house.viewers) else {
                    let sentence = format!("there are {MAX_VIEWERS} viewers already");
                    return Reply::text(BUSY, &sentence).with("Retry-After", "5").send(client);
                };
                let written = Until { socket: client, deadline }.write_all(&handshake);
                if written.is_ok() {
                    viewer::serve(client, &house.board);
                }
            }
        },
        Err(Some(reply)) => reply.send(client),
        Err(None) => {}
    }
}

/// One of the places for viewers, which is free again when this is dropped.
struct Seat<'a>(&'a AtomicUsize);

impl<'a> Seat<'a> {
    fn take(taken: &'a AtomicUsize) -> Option<Self> {
        let before = taken.fetch_add(1, Ordering::SeqCst);
        // Given back at once if there is none.
        let seat = Self(taken);
        (before < MAX_VIEWERS).then_some(seat)
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// What becomes of a request.
enum Answer {
    Reply(Reply),
    /// A viewer, after these bytes.
    Watch(Vec<u8>),
}

impl House {
    fn answer(&self, request: &Request) -> Answer {
        let reply = match self.reply(request) {
            Ok(None) => return self.handshake(request),
            Ok(Some(reply)) => reply,
            Err(refused) => refusal(refused, request.uri().path()),
        };
        Answer::Reply(reply)
    }

    /// The answer, or `None` for a WebSocket that may be opened.
    fn reply(&self, request: &Request) -> Result<Option<Reply>, Refused> {
        let host = self.rules.host(&values(request, "host"))?;
        let path = request.uri().path();
        if path == "/livez" {
            return Ok(Some(Reply::text("200 OK", "the live page runs")));
        }
        if path == "/readyz" {
            let is_ready = self.board.has_begun();
            let not_yet = Reply::text(BUSY, "there is no snapshot yet");
            return Ok(Some(if is_ready { Reply::text("200 OK", "ok") } else { not_yet }));
        }
        if path == "/"
            && let Some(cookie) = self.rules.set_cookie(request.uri().query())
        {
            return Ok(Some(page::signed_in(cookie)));
        }
        self.rules.cookie(&values(request, "cookie"))?;
        match path {
            "/" => Ok(Some(page::page(host))),
            "/ws" => self.rules.origin(host, &values(request, "origin")).map(|()| None),
            _ => Ok(Some(Reply::text("404 Not Found", "there is no such page; the live page is at /"))),
        }
    }

    fn handshake(&self, request: &Request) -> Answer {
        let mut bytes = Vec::new();
        let made = create_response(request).and_then(|response| write_response(&mut bytes, &response));
        match made {
            Ok(()) => Answer::Watch(bytes),
            Err(error) => Answer::Reply(
                Reply::text("426 Upgrade Required", &format!("/ws is a WebSocket: {error}"))
                    .with("Upgrade", "websocket"),
            ),
        }
    }
}

/// The values of a header. One that is not text is an empty value, which no rule accepts.
fn values<'r>(request: &'r Request, name: &str) -> Vec<&'r str> {
    request.headers().get_all(name).iter().map(|value| value.to_str().unwrap_or_default()).collect()
}

fn refusal(refused: Refused, path: &str) -> Reply {
    match refused {
        Refused::HostMissing => Reply::text("400 Bad Request", "there must be one Host header"),
        Refused::Host => Reply::text("403 Forbidden", "this name is not served here; add it to LIVE_HOSTS"),
        Refused::Origin => Reply::text("403 Forbidden", "only the live page itself may open this WebSocket"),
        Refused::Token if path == "/" => page::sign_in(),
        Refused::Token => Reply::text("401 Unauthorized", "the token (LIVE_TOKEN) is missing; open / first"),
    }
}
