//! Keeps connections to our own port open, so that tiny_http's thread pool does not strand clients.
//!
//! The pool hands a new connection to an idle thread without counting how many connections already go to that
//! thread, so when several arrive together, some are accepted but never read. Four keep-warm connections
//! occupy the pool's four permanent threads, so that most new connections get a thread of their own. Each
//! short connection made after that frees one that was stranded anyway.

use std::collections::HashSet;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, RecvTimeoutError};
use parking_lot::Mutex;

/// tiny_http's `MIN_THREADS`.
const CONNECTIONS: usize = 4;

/// How often a short connection is made to free stranded ones: while clients are connecting, and otherwise.
/// Each keeps a pool thread from ending for five seconds, so there are few of them in quiet times.
const RESCUE: Duration = Duration::from_millis(20);
const QUIET_RESCUE: Duration = Duration::from_millis(500);

/// Clients count as connecting if one has sent its first request, or was seen waiting, within this time.
const CONNECTING: Duration = Duration::from_secs(1);

/// A short connection that is not closed within this time was itself stranded, so others are too.
const RESCUE_LIMIT: Duration = Duration::from_millis(10);

/// Short connections made at once, each of which frees one stranded connection: usually, and after some were
/// found to be stranded.
const RESCUES: usize = 4;
const MANY_RESCUES: usize = 16;

/// How long the accept loop may take to prove that it is alive.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);

const CONNECT_LIMIT: Duration = Duration::from_secs(1);

/// The keep-warm connections. Their addresses are known, so that no limit applies to them.
#[derive(Debug)]
pub struct KeepWarm {
    addr: SocketAddr,
    sockets: Mutex<Vec<TcpStream>>,
    /// Number of our own requests that were answered.
    own_requests: AtomicU64,
    /// A client has sent bytes that may not have been read.
    unread: AtomicBool,
}

impl KeepWarm {
    /// Starts without connections; they will go to `addr`.
    pub fn new(addr: SocketAddr) -> Self {
        Self {
            addr,
            sockets: Mutex::default(),
            own_requests: AtomicU64::new(0),
            unread: AtomicBool::new(false),
        }
    }

    /// Local addresses of the keep-warm connections.
    pub fn addresses(&self) -> HashSet<SocketAddr> {
        self.sockets.lock().iter().filter_map(|socket| socket.local_addr().ok()).collect()
    }

    /// Replaces keep-warm connections that have ended.
    ///
    /// # Errors
    /// Our own port cannot be reached.
    pub fn refill(&self) -> io::Result<()> {
        self.sockets.lock().retain(is_open);
        let missing = CONNECTIONS.saturating_sub(self.sockets.lock().len());
        for _ in 0..missing {
            // Connects without holding the lock; the guard would have to wait for it.
            let socket = TcpStream::connect_timeout(&self.addr, CONNECT_LIMIT)?;
            socket.set_nonblocking(true)?;
            self.sockets.lock().push(socket);
        }
        Ok(())
    }

    /// Closes all of them, which frees the threads of a replaced server for the connections stranded in it.
    pub fn close(&self) {
        self.sockets.lock().clear();
    }

    /// Records that a client has sent bytes but no request has come from it. It may be stranded behind others
    /// that have sent nothing yet, and each short connection frees only one of them.
    pub fn note_unread(&self) {
        self.unread.store(true, Ordering::Relaxed);
    }

    /// Returns true if a request on a new connection is answered.
    pub fn is_answered(&self) -> bool {
        let ask = || -> io::Result<bool> {
            let mut socket = TcpStream::connect_timeout(&self.addr, ANSWER_LIMIT)?;
            socket.set_read_timeout(Some(ANSWER_LIMIT))?;
            socket.write_all(b"GET /livez HTTP/1.1\r\nHost: self\r\nConnection: close\r\n\r\n")?;
            let mut status = [0; 8];
            socket.read_exact(&mut status)?;
            Ok(&status == b"HTTP/1.1")
        };
        let answered = ask().unwrap_or(false);
        self.own_requests.fetch_add(answered.into(), Ordering::Relaxed);
        answered
    }

    /// Makes short connections until `stop` disconnects; `first_requests` counts the connections that have
    /// sent a request.
    pub fn run(&self, stop: &Receiver<()>, first_requests: impl Fn() -> u64) {
        let (mut counted, mut connecting_until, mut last_rescue) = (0, Instant::now(), Instant::now());
        while stop.recv_timeout(RESCUE) == Err(RecvTimeoutError::Timeout) {
            let by_clients = first_requests().wrapping_sub(self.own_requests.load(Ordering::Relaxed));
            let now = Instant::now();
            if by_clients != counted || self.unread.swap(false, Ordering::Relaxed) {
                (counted, connecting_until) = (by_clients, now + CONNECTING);
            }
            if now > connecting_until && now.saturating_duration_since(last_rescue) < QUIET_RESCUE {
                continue;
            }
            last_rescue = now;
            // The watch thread deals with failures.
            let _ = self.refill();
            let further = match (rescue(self.addr), now > connecting_until) {
                (false, _) => MANY_RESCUES,
                (true, true) => 0,
                (true, false) => RESCUES - 1,
            };
            for _ in 0..further {
                let _ = TcpStream::connect_timeout(&self.addr, CONNECT_LIMIT);
            }
        }
    }
}

fn is_open(mut socket: &TcpStream) -> bool {
    matches!(socket.read(&mut [0; 64]), Err(error) if error.kind() == ErrorKind::WouldBlock)
}

/// Makes a short connection. Returns true if it was served, that is closed, at once.
fn rescue(addr: SocketAddr) -> bool {
    let connect = || -> io::Result<bool> {
        let mut socket = TcpStream::connect_timeout(&addr, CONNECT_LIMIT)?;
        socket.shutdown(Shutdown::Write)?;
        socket.set_read_timeout(Some(RESCUE_LIMIT))?;
        Ok(matches!(socket.read(&mut [0; 1]), Ok(0)))
    };
    connect().unwrap_or(true)
}
