//! Bounds calls that have no timeout of their own: a thread shuts down the call's socket at the deadline.
//!
//! A read or write on a socket that was shut down ends at once, with an error.

use std::collections::HashSet;
use std::io;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::sockets;
use crate::thread::spawn;

/// How late a socket may be shut down. Polling the clock costs less than waking the thread for every call.
const TICK: Duration = Duration::from_millis(50);

/// Number of idle ticks after which the thread sleeps until the next call.
const IDLE_TICKS: u32 = 40;

/// The socket that a call uses.
#[derive(Clone)]
pub enum Target {
    /// A duplicate of the open socket.
    Socket(Arc<TcpStream>),
    /// Not open yet: any connection from this process to `peer` whose local address is not in `known`.
    Opening { peer: SocketAddr, known: Arc<HashSet<SocketAddr>> },
}

impl Target {
    /// Targets the socket that a call is about to open to `peer`. Two calls that connect to the same peer at
    /// the same moment may mistake each other's socket for their own. One is then shut down with the other,
    /// which costs a retry.
    pub fn opening(peer: SocketAddr) -> Self {
        let mut known = HashSet::new();
        sockets::for_each_connection(|_, local, other| {
            if other == peer {
                known.insert(local);
            }
        });
        Self::Opening { peer, known: Arc::new(known) }
    }

    /// A duplicate of the socket, once it is open.
    pub fn socket(&self) -> Option<Arc<TcpStream>> {
        match self {
            Self::Socket(socket) => Some(socket.clone()),
            Self::Opening { peer, known } => {
                let mut found = None;
                sockets::for_each_connection(|stream, local, other| {
                    if other == *peer && !known.contains(&local) {
                        found = stream.try_clone().ok();
                    }
                });
                found.map(Arc::new)
            }
        }
    }
}

/// The watching thread, which ends and is joined on drop.
pub struct CallLimit {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    call: Option<(Instant, Target)>,
    expired: bool,
    asleep: bool,
    stopped: bool,
}

impl CallLimit {
    /// Starts the thread.
    ///
    /// # Errors
    /// Fails if the system cannot start another thread.
    pub fn start() -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let watched = shared.clone();
        let thread = spawn("kafka-limit", move || watched.watch())?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Runs `call`, one at a time, and returns whether its socket had to be shut down, at most 50 ms after
    /// `deadline`.
    pub fn run<T>(&self, target: Target, deadline: Instant, call: impl FnOnce() -> T) -> (T, bool) {
        {
            let mut state = self.shared.state.lock();
            state.call = Some((deadline, target));
            state.expired = false;
            if state.asleep {
                self.shared.changed.notify_one();
            }
        }
        let outcome = call();
        let mut state = self.shared.state.lock();
        state.call = None;
        (outcome, state.expired)
    }
}

impl Drop for CallLimit {
    fn drop(&mut self) {
        self.shared.state.lock().stopped = true;
        self.shared.changed.notify_one();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn watch(&self) {
        let mut idle_ticks = 0;
        let mut state = self.state.lock();
        while !state.stopped {
            idle_ticks = if state.call.is_some() { 0 } else { idle_ticks + 1 };
            if let Some((deadline, target)) = &state.call
                && Instant::now() >= *deadline
            {
                // Repeated at each tick until the call returns, because it may open its socket only now.
                let target = target.clone();
                state.expired = true;
                drop(state);
                if let Some(socket) = target.socket() {
                    let _ = socket.shutdown(Shutdown::Both);
                }
                state = self.state.lock();
            }
            state.asleep = idle_ticks > IDLE_TICKS;
            if state.asleep {
                self.changed.wait(&mut state);
            } else {
                self.changed.wait_for(&mut state, TICK);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::TcpListener;

    use crate::linux;

    use super::*;
    use crate::control::Watch;

    /// A peer that accepts, says nothing and keeps the connections.
    fn silent_peer() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let address = listener.local_addr().expect("address");
        (listener, address)
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_millis(120)
    }

    #[test]
    fn a_read_ends_at_the_deadline_and_the_next_call_has_its_own() {
        let (_listener, address) = silent_peer();
        let limit = CallLimit::start().expect("thread");
        for _ in 0..3 {
            let socket = TcpStream::connect(address).expect("connect");
            let target = Target::Socket(Arc::new(socket.try_clone().expect("duplicate")));
            let watch = Watch::start();
            let (read, expired) = limit.run(target, soon(), || (&socket).read(&mut [0]));
            assert_eq!((read.expect("end of stream"), expired), (0, true));
            assert!(watch.elapsed() >= Duration::from_millis(120));
            watch.assert_within(Duration::from_millis(1000), "the read");
        }
    }

    #[test]
    fn a_socket_opened_within_the_call_is_found_and_older_ones_are_left_alone() {
        let (_listener, address) = silent_peer();
        let older = TcpStream::connect(address).expect("connect");
        let target = Target::opening(address);
        let limit = CallLimit::start().expect("thread");
        let (read, expired) = limit
            .run(target.clone(), soon(), || TcpStream::connect(address).expect("connect").read(&mut [0]));
        assert_eq!((read.expect("end of stream"), expired), (0, true));
        assert!(linux::is_quiet(&older), "not shut");
        // The thread may still hold the duplicate that it shut down.
        drop(limit);
        assert!(target.socket().is_none(), "gone with its call");
    }

    #[test]
    fn a_call_in_time_keeps_its_socket_long_after() {
        let (_listener, address) = silent_peer();
        let socket = Arc::new(TcpStream::connect(address).expect("connect"));
        let limit = CallLimit::start().expect("thread");
        let (value, expired) = limit.run(Target::Socket(socket.clone()), soon(), || 7);
        assert_eq!((value, expired), (7, false));
        // A second call that outlives the first one's deadline shows that the thread forgot it.
        let other = TcpStream::connect(address).expect("connect");
        let target = Target::Socket(Arc::new(other.try_clone().expect("duplicate")));
        let later = Instant::now() + Duration::from_millis(300);
        assert!(limit.run(target, later, || (&other).read(&mut [0])).1);
        assert!(linux::is_quiet(&socket));
    }

    #[test]
    fn a_thread_that_sleeps_is_woken_by_a_call() {
        let (_listener, address) = silent_peer();
        let limit = CallLimit::start().expect("thread");
        let start = Instant::now();
        while !limit.shared.state.lock().asleep {
            assert!(start.elapsed() < Duration::from_secs(60), "it never sleeps");
            std::thread::yield_now();
        }
        let socket = TcpStream::connect(address).expect("connect");
        let target = Target::Socket(Arc::new(socket.try_clone().expect("duplicate")));
        assert!(limit.run(target, soon(), || (&socket).read(&mut [0])).1);
    }
}
