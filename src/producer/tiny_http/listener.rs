//! Owns the listening socket and the tiny_http server on it, and rebuilds the server on the same socket if it
//! dies.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::panic::catch_unwind;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};
use socket2::SockRef;
use tiny_http::Server;

use crate::producer::front::listen;
use crate::producer::tiny_http::orders::Arrival;

/// Longest wait for a client during one write. Without it, a client that never reads would hold a thread
/// forever.
const SEND_TIMEOUT: Duration = Duration::from_secs(1);

/// Most requests received in one go.
const RECEIVE_AT_MOST: usize = 32;

/// Interval between attempts to wake a worker that still waits on a replaced server.
const LEAVE_STEP: Duration = Duration::from_millis(1);

/// The open listener and its current server.
pub struct Listener {
    /// The address it listens on.
    pub bound: SocketAddr,
    /// The address at which clients on this machine can connect to it.
    pub local: SocketAddr,
    listener: TcpListener,
    server: Mutex<(u64, Arc<Server>)>,
    receiving: Mutex<()>,
    generation: AtomicU64,
    /// Generation of the server that a worker receives from, or last received from.
    receives_from: AtomicU64,
    stopping: AtomicBool,
    /// Set once no further connections are accepted, so that the end of the accept loop is expected.
    refusing: AtomicBool,
    suspect: AtomicBool,
}

/// The permit to receive requests.
pub struct ReceivePermit<'a> {
    listener: &'a Listener,
    _lock: MutexGuard<'a, ()>,
}

/// The result of an attempt to receive requests.
pub enum Received {
    /// Some were received, or none for a reason that the next call reports.
    Requests,
    /// The accept loop of this generation ended and has to be rebuilt.
    AcceptLoopEnded(u64, io::Error),
    /// The listener is closed.
    Stopped,
}

impl Listener {
    /// Starts listening on `addr`.
    ///
    /// # Errors
    /// The address cannot be bound.
    pub fn open(addr: SocketAddr) -> io::Result<Self> {
        let listener = listen(addr)?;
        SockRef::from(&listener).set_write_timeout(Some(SEND_TIMEOUT))?;
        let server = serve(&listener)?;
        let bound = listener.local_addr()?;
        Ok(Self {
            bound,
            local: reachable(bound),
            listener,
            server: Mutex::new((0, server)),
            receiving: Mutex::new(()),
            generation: AtomicU64::new(0),
            receives_from: AtomicU64::new(0),
            stopping: AtomicBool::new(false),
            refusing: AtomicBool::new(false),
            suspect: AtomicBool::new(false),
        })
    }

    /// Waits for the permit to receive requests. Only one thread holds it at a time, which preserves the
    /// order of requests across threads.
    pub fn permit(&self) -> ReceivePermit<'_> {
        ReceivePermit { listener: self, _lock: self.receiving.lock() }
    }

    /// Interprets an error of the server: either it was stopped or replaced, or its accept loop died.
    fn ended(&self, generation: u64, error: io::Error) -> Received {
        if self.stopping.load(Ordering::SeqCst) {
            Received::Stopped
        } else if self.refusing.load(Ordering::SeqCst) || generation != self.generation() {
            Received::Requests
        } else {
            Received::AcceptLoopEnded(generation, error)
        }
    }

    /// Replaces the server if `generation` is still the current one, and returns the old server. Its open
    /// connections keep sending requests to it, and some thread has to receive them after
    /// [`Listener::await_leave`].
    ///
    /// # Errors
    /// The listener can no longer be used.
    pub fn rebuild(&self, generation: u64) -> io::Result<Option<Arc<Server>>> {
        let mut server = self.server.lock();
        if server.0 != generation
            || self.stopping.load(Ordering::SeqCst)
            || self.refusing.load(Ordering::SeqCst)
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

    /// Records that the accept loop is most likely dead.
    pub fn suspect(&self) {
        self.suspect.store(true, Ordering::SeqCst);
    }

    /// Whether it has been suspected since the last call.
    pub fn take_suspicion(&self) -> bool {
        self.suspect.swap(false, Ordering::SeqCst)
    }

    /// True once [`Listener::stop`] has been called.
    pub fn is_stopped(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    /// The current generation, for [`Listener::rebuild`].
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::SeqCst)
    }

    /// Waits until no worker receives from `replaced`, the server before the current one. Otherwise the
    /// thread that takes over could consume the wake-up meant for a worker, which would then hold the permit
    /// there forever.
    pub fn await_leave(&self, replaced: &Server) {
        while self.receives_from.load(Ordering::SeqCst) != self.generation() {
            replaced.unblock();
            if self.is_stopped() {
                return;
            }
            thread::sleep(LEAVE_STEP);
        }
    }

    /// Accepts no further connections; open ones are still served.
    pub fn stop_accepting(&self) {
        self.refusing.store(true, Ordering::SeqCst);
        if let Ok(clone) = self.listener.try_clone() {
            // std cannot shut down a listener, but the descriptor is a socket like any other.
            let _ = TcpStream::from(OwnedFd::from(clone)).shutdown(Shutdown::Read);
        }
    }

    /// Makes every [`ReceivePermit::receive`] return `Stopped`.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        self.server.lock().1.unblock();
    }
}

impl ReceivePermit<'_> {
    /// Waits for requests and passes each one to `each`, in the order of arrival.
    pub fn receive(&self, mut each: impl FnMut(Arrival)) -> Received {
        let listener = self.listener;
        if listener.is_stopped() {
            return Received::Stopped;
        }
        let (generation, server) = listener.server.lock().clone();
        listener.receives_from.store(generation, Ordering::SeqCst);
        let mut next = server.try_recv();
        if matches!(next, Ok(None)) {
            // Under load this lets the connection threads run first, so that one sleep and one wake-up serve
            // many of their requests instead of one or two.
            thread::yield_now();
            next = server.try_recv();
        }
        if matches!(next, Ok(None)) {
            // `try_recv` swallows the wake-ups that `stop` and `rebuild` send to `recv`.
            if listener.is_stopped() || generation != listener.generation() {
                return Received::Requests;
            }
            next = server.recv().map(Some);
        }
        for received in 1.. {
            match next {
                Ok(Some(request)) => each(Arrival { request, at: Instant::now() }),
                Ok(None) => break,
                Err(error) => return listener.ended(generation, error),
            }
            if received == RECEIVE_AT_MOST {
                break;
            }
            next = server.try_recv();
        }
        Received::Requests
    }
}

fn serve(listener: &TcpListener) -> io::Result<Arc<Server>> {
    let listener = listener.try_clone()?;
    // It panics if it cannot start a thread. That must not end the startup, nor the thread that rebuilds.
    catch_unwind(|| Server::from_listener(listener, None))
        .map_err(|_| io::Error::other("tiny_http cannot start its threads"))?
        .map(Arc::new)
        .map_err(io::Error::other)
}

/// Replaces the address that means "all interfaces" with the loopback address, where we can be reached.
fn reachable(mut addr: SocketAddr) -> SocketAddr {
    if addr.ip().is_unspecified() {
        addr.set_ip(match addr.ip() {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    addr
}
