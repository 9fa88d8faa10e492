//! The listening socket and the tiny_http server on it, which can die and is then built anew on the same socket.
//!
//! Knows nothing of what requests are for.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::panic::catch_unwind;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use socket2::SockRef;
use tiny_http::Server;

use super::exchange::Arrival;

/// Connections that the kernel may keep before they are accepted; its own cap is `net.core.somaxconn`.
const BACKLOG: i32 = 1024;

/// Longest wait for a client to take one write; without it a client that never reads would hold a thread for ever.
const SEND_TIMEOUT: Duration = Duration::from_secs(1);

/// Unread bytes that the kernel keeps for one connection, which bounds what a flood can put into our memory.
const RECEIVE_BUFFER_BYTES: usize = 64 << 10;

/// Requests taken in one go.
const TAKE_AT_MOST: usize = 32;

/// How often a worker is called away from a replaced server until it has left.
const LEAVE_STEP: Duration = Duration::from_millis(1);

/// The open front.
pub struct Front {
    /// Address that is listened on.
    pub bound: SocketAddr,
    /// Address that clients can connect to from this machine.
    pub local: SocketAddr,
    listener: TcpListener,
    server: Mutex<(u64, Arc<Server>)>,
    taking: Mutex<()>,
    generation: AtomicU64,
    /// Generation of the server that is or was last taken from.
    taken_from: AtomicU64,
    stopping: AtomicBool,
    /// Set once no further connection is accepted: the accept loop's end is then no accident.
    deaf: AtomicBool,
    suspect: AtomicBool,
}

/// The right to take requests.
pub struct Lead<'a> {
    front: &'a Front,
    _right: MutexGuard<'a, ()>,
}

/// What became of an attempt to take requests.
pub enum Took {
    /// Some were taken, or none for a reason that the next call tells.
    GoOn,
    /// The accept loop of the given generation ended; build it anew.
    Dead(u64, io::Error),
    /// The front is closed.
    Stopped,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Front {
    /// Listens on `addr`.
    ///
    /// # Errors
    /// The address cannot be bound.
    pub fn open(addr: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(addr).map_err(|error| cannot_bind(addr, &error))?;
        // Linux copies these options to every accepted socket.
        let socket = SockRef::from(&listener);
        socket.listen(BACKLOG)?;
        socket.set_tcp_nodelay(true)?;
        socket.set_write_timeout(Some(SEND_TIMEOUT))?;
        socket.set_keepalive(true)?;
        socket.set_recv_buffer_size(RECEIVE_BUFFER_BYTES)?;
        let server = serve(&listener)?;
        let bound = listener.local_addr()?;
        Ok(Self {
            bound,
            local: reachable(bound),
            listener,
            server: Mutex::new((0, server)),
            taking: Mutex::new(()),
            generation: AtomicU64::new(0),
            taken_from: AtomicU64::new(0),
            stopping: AtomicBool::new(false),
            deaf: AtomicBool::new(false),
            suspect: AtomicBool::new(false),
        })
    }

    /// Waits for the right to take requests. One thread at a time has it, so that their order holds across threads.
    pub fn lead(&self) -> Lead<'_> {
        Lead { front: self, _right: lock(&self.taking) }
    }

    /// An error of the server means that somebody stopped or replaced it, or that its accept loop is dead.
    fn ended(&self, generation: u64, error: io::Error) -> Took {
        if self.stopping.load(Ordering::SeqCst) {
            Took::Stopped
        } else if self.deaf.load(Ordering::SeqCst) || generation != self.generation() {
            Took::GoOn
        } else {
            Took::Dead(generation, error)
        }
    }

    /// Builds the server anew if `generation` is still the current one, and gives back the old one: its open
    /// connections go on sending requests to it, and somebody has to take them, after [`Front::await_leave`].
    ///
    /// # Errors
    /// The listener cannot be used any more.
    pub fn rebuild(&self, generation: u64) -> io::Result<Option<Arc<Server>>> {
        let mut server = lock(&self.server);
        if server.0 != generation || self.stopping.load(Ordering::SeqCst) || self.deaf.load(Ordering::SeqCst)
        {
            return Ok(None);
        }
        let fresh = serve(&self.listener)?;
        let (_, old) = std::mem::replace(&mut *server, (generation + 1, fresh));
        self.generation.store(generation + 1, Ordering::SeqCst);
        drop(server);
        old.unblock();
        Ok(Some(old))
    }

    /// Notes that the accept loop is most likely dead.
    pub fn suspect(&self) {
        self.suspect.store(true, Ordering::SeqCst);
    }

    /// Whether it was suspected since the last call.
    pub fn take_suspicion(&self) -> bool {
        self.suspect.swap(false, Ordering::SeqCst)
    }

    /// True once [`Front::stop`] was called.
    pub fn is_stopped(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    /// The current generation, for [`Front::rebuild`].
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::SeqCst)
    }

    /// Waits until no worker takes from `replaced`, the server before the current one. What wakes a worker in it
    /// would else be taken by the thread that takes over, and the worker would hold the lead there for ever.
    pub fn await_leave(&self, replaced: &Server) {
        while self.taken_from.load(Ordering::SeqCst) != self.generation() {
            replaced.unblock();
            if self.is_stopped() {
                return;
            }
            thread::sleep(LEAVE_STEP);
        }
    }

    /// Accepts no further connection; open ones are served on.
    pub fn stop_accepting(&self) {
        self.deaf.store(true, Ordering::SeqCst);
        if let Ok(clone) = self.listener.try_clone() {
            // std has no shutdown for a listener; the descriptor is a socket all the same.
            let _ = TcpStream::from(OwnedFd::from(clone)).shutdown(Shutdown::Read);
        }
    }

    /// Makes every [`Lead::take`] return `Stopped`.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        lock(&self.server).1.unblock();
    }
}

impl Lead<'_> {
    /// Waits for requests and gives each to `each`, in the order of arrival.
    pub fn take(&self, mut each: impl FnMut(Arrival)) -> Took {
        let front = self.front;
        if front.is_stopped() {
            return Took::Stopped;
        }
        let (generation, server) = lock(&front.server).clone();
        front.taken_from.store(generation, Ordering::SeqCst);
        let mut next = server.try_recv();
        if matches!(next, Ok(None)) {
            // Under load the threads of the connections go first then, and one sleep and one wake-up serve many
            // of their requests instead of one or two.
            thread::yield_now();
            next = server.try_recv();
        }
        if matches!(next, Ok(None)) {
            // `try_recv` swallows what `stop` and `rebuild` wake `recv` with.
            if front.is_stopped() || generation != front.generation() {
                return Took::GoOn;
            }
            next = server.recv().map(Some);
        }
        for taken in 1.. {
            match next {
                Ok(Some(request)) => each(Arrival { request, at: Instant::now() }),
                Ok(None) => break,
                Err(error) => return front.ended(generation, error),
            }
            if taken == TAKE_AT_MOST {
                break;
            }
            next = server.try_recv();
        }
        Took::GoOn
    }
}

fn serve(listener: &TcpListener) -> io::Result<Arc<Server>> {
    let listener = listener.try_clone()?;
    // It panics when it cannot start a thread, which must end neither the start nor the thread that rebuilds.
    catch_unwind(|| Server::from_listener(listener, None))
        .map_err(|_| io::Error::other("tiny_http cannot start its threads"))?
        .map(Arc::new)
        .map_err(io::Error::other)
}

fn cannot_bind(addr: SocketAddr, error: &io::Error) -> io::Error {
    let hint = match error.kind() {
        io::ErrorKind::AddrNotAvailable if addr.is_ipv6() => {
            "; IPv6 may be off here: 0.0.0.0 is every IPv4 address"
        }
        io::ErrorKind::AddrNotAvailable => "; no network interface here has this address",
        _ => "",
    };
    io::Error::new(error.kind(), format!("HTTP_ADDR={addr}: {error}{hint}"))
}

/// Listening on all addresses, we are reached on the loopback one.
fn reachable(mut addr: SocketAddr) -> SocketAddr {
    if addr.ip().is_unspecified() {
        addr.set_ip(match addr.ip() {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    addr
}
