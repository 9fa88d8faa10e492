//! Keeps the requests of each connection in order.
//!
//! tiny_http lets the answer to a pipelined request be written only after the previous one, and blocks the
//! writing thread until then. So only one request per connection is served at a time and the others are
//! parked here; no thread ever waits for an earlier request. Requests are opaque values of type `R`.

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use parking_lot::Mutex;
use prometheus::IntGauge;

/// One client connection, by its address.
#[derive(Debug)]
pub struct Connection<R> {
    pub peer: SocketAddr,
    cut: AtomicBool,
    /// Nothing more will be read from it, so the answer in progress is its last.
    last: AtomicBool,
    /// Inode of its socket, stored when we end the connection; 0 before that. For [`Connections::retain`].
    pub inode: AtomicU64,
    /// A scan of all sockets no longer found it.
    gone: AtomicBool,
    state: Mutex<State<R>>,
}

#[derive(Debug)]
struct State<R> {
    parked: VecDeque<R>,
    progress: Progress,
}

/// What the guard needs to know about a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Requests received on it so far.
    pub taken: u64,
    /// A request is being served, so nothing is expected from the client.
    pub busy: bool,
    /// When the wait for its request body began.
    pub body_awaited_since: Option<Instant>,
}

/// What to do about a request, as decided by [`Connections::enter`].
#[derive(Debug)]
pub enum Entry<R> {
    /// Serve it now: answer it, then call [`Connections::leave`] or [`Connections::end`].
    Next(R, Arc<Connection<R>>),
    /// It is parked behind another request on its connection.
    Parked,
    /// Also parked, but its connection now has too many: shut it down. Returned once per connection.
    Flood(SocketAddr),
    /// Also parked. It arrived after the last answer of a connection that we ended, or on a new connection
    /// with the same address: find out which, then call [`Connections::discard`] or [`Connections::revive`].
    /// Returned once until then.
    Late(SocketAddr),
}

/// All connections that have sent a request.
#[derive(Debug)]
pub struct Connections<R> {
    by_peer: Mutex<HashMap<SocketAddr, Arc<Connection<R>>>>,
    max_parked: usize,
    parked: IntGauge,
    /// Number of connections that have sent a first request so far.
    pub first_requests: AtomicU64,
}

impl<R> Connections<R> {
    /// Starts without connections; each may have `max_parked` requests waiting behind the one being served.
    /// `parked` shows how many are waiting on all of them.
    pub fn new(max_parked: usize, parked: IntGauge) -> Self {
        Self { by_peer: Mutex::default(), max_parked, parked, first_requests: AtomicU64::new(0) }
    }

    /// Registers a request from `peer`. Call this in the order of arrival.
    pub fn enter(&self, peer: SocketAddr, request: R) -> Entry<R> {
        // Held to the end; otherwise `revive` could replace the connection while the request is being added.
        let mut by_peer = self.by_peer.lock();
        let connection = by_peer.entry(peer).or_insert_with(|| {
            self.first_requests.fetch_add(1, Ordering::Relaxed);
            Connection::new(peer)
        });
        let mut state = connection.state.lock();
        state.progress.taken += 1;
        let was_ended = connection.is_cut() && !state.progress.busy;
        if !state.progress.busy && !was_ended {
            state.progress.busy = true;
            return Entry::Next(request, connection.clone());
        }
        state.parked.push_back(request);
        self.parked.inc();
        match state.parked.len() {
            1 if was_ended => Entry::Late(peer),
            parked if parked > self.max_parked && connection.cut() => Entry::Flood(peer),
            _ => Entry::Parked,
        }
    }

    /// Returns the next request to serve after the one that is about to be answered.
    ///
    /// Call this before writing the answer: then the connection is free by the time the client can send its
    /// next request, and the thread that answers that request waits only for a write already in progress.
    pub fn leave(&self, connection: &Connection<R>) -> Option<R> {
        let mut state = connection.state.lock();
        state.progress.body_awaited_since = None;
        let next = state.parked.pop_front();
        state.progress.busy = next.is_some();
        if next.is_some() {
            self.parked.dec();
        }
        next
    }

    /// Ends the connection and returns the requests after its last one, none of which may be processed.
    pub fn end(&self, connection: &Connection<R>) -> Vec<R> {
        connection.cut();
        self.unpark(&mut connection.state.lock())
    }

    /// Removes and returns the requests of [`Entry::Late`], which arrived after the last answer of a
    /// connection that has ended.
    pub fn discard(&self, peer: SocketAddr) -> Vec<R> {
        self.by_peer.lock().get(&peer).map_or_else(Vec::new, |connection| self.take_late(connection))
    }

    fn take_late(&self, connection: &Connection<R>) -> Vec<R> {
        let mut state = connection.state.lock();
        if state.progress.busy { Vec::new() } else { self.unpark(&mut state) }
    }

    fn unpark(&self, state: &mut State<R>) -> Vec<R> {
        state.progress.busy = false;
        state.progress.body_awaited_since = None;
        self.parked.sub(state.parked.len() as i64);
        state.parked.drain(..).collect()
    }

    /// Moves the requests of [`Entry::Late`] to the new connection of `peer` on which they arrived. Returns
    /// the first of them, which can be served now.
    pub fn revive(&self, peer: SocketAddr) -> Option<(R, Arc<Connection<R>>)> {
        let mut by_peer = self.by_peer.lock();
        let mut waiting: VecDeque<R> = self.take_late(by_peer.get(&peer)?).into();
        let first = waiting.pop_front()?;
        let connection = Connection::new(peer);
        self.first_requests.fetch_add(1, Ordering::Relaxed);
        self.parked.add(waiting.len() as i64);
        let progress = Progress { taken: waiting.len() as u64 + 1, busy: true, body_awaited_since: None };
        *connection.state.lock() = State { parked: waiting, progress };
        by_peer.insert(peer, connection.clone());
        Some((first, connection))
    }

    /// Call this before shutting the reading side of `peer`, because the answer in progress has to say that
    /// it is the last.
    pub fn read_no_more(&self, peer: SocketAddr) {
        if let Some(connection) = self.by_peer.lock().get(&peer) {
            connection.last.store(true, Ordering::SeqCst);
        }
    }

    /// What is known about `peer`, if it has sent a request on a connection that we have not ended.
    pub fn progress(&self, peer: SocketAddr) -> Option<Progress> {
        let connection = self.by_peer.lock().get(&peer)?.clone();
        let state = connection.state.lock();
        (state.progress.busy || !connection.is_cut()).then_some(state.progress)
    }

    /// Forgets idle connections for which `is_open` is false. A connection that we ended is remembered until
    /// two scans have not found its socket among `held`, because requests sent after its last answer may
    /// still arrive.
    pub fn retain(&self, is_open: impl Fn(SocketAddr) -> bool, held: &HashSet<u64>) {
        self.by_peer.lock().retain(|peer, connection| {
            let state = connection.state.lock();
            if state.progress.busy || !state.parked.is_empty() {
                return true;
            }
            if !connection.is_cut() {
                return is_open(*peer);
            }
            held.contains(&connection.inode.load(Ordering::Relaxed))
                || !connection.gone.swap(true, Ordering::Relaxed)
        });
    }
}

impl<R> Connection<R> {
    fn new(peer: SocketAddr) -> Arc<Self> {
        Arc::new(Self {
            peer,
            cut: AtomicBool::new(false),
            last: AtomicBool::new(false),
            inode: AtomicU64::new(0),
            gone: AtomicBool::new(false),
            state: Mutex::new(State { parked: VecDeque::new(), progress: Progress::default() }),
        })
    }

    /// Marks it as cut off. Returns true to the first caller, who has to shut the socket.
    pub fn cut(&self) -> bool {
        !self.cut.swap(true, Ordering::SeqCst)
    }

    /// True if the client can no longer receive an answer.
    pub fn is_cut(&self) -> bool {
        self.cut.load(Ordering::SeqCst)
    }

    /// Whether its current answer is the last; see [`Connections::read_no_more`].
    pub fn is_last(&self) -> bool {
        self.last.load(Ordering::SeqCst)
    }

    /// Records since when the body of its request has been awaited; `None` once the body is complete.
    pub fn set_body_awaited(&self, since: Option<Instant>) {
        self.state.lock().progress.body_awaited_since = since;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connections<R>(max_parked: usize) -> Connections<R> {
        Connections::new(max_parked, IntGauge::new("parked", "test").expect("a legal metric"))
    }

    fn peer(port: u16) -> SocketAddr {
        ([127, 0, 0, 1], port).into()
    }

    #[test]
    fn requests_of_one_connection_come_one_by_one_and_in_order() {
        let connections = connections(10);
        let Entry::Next(1, connection) = connections.enter(peer(1), 1) else { panic!("free") };
        assert!(matches!(connections.enter(peer(1), 2), Entry::Parked));
        assert!(matches!(connections.enter(peer(1), 3), Entry::Parked));
        assert!(matches!(connections.enter(peer(2), 9), Entry::Next(9, _)));
        assert_eq!(connections.parked.get(), 2);
        let order: Vec<_> = (0..3).map(|_| connections.leave(&connection)).collect();
        assert_eq!(order, [Some(2), Some(3), None]);
        assert!(matches!(connections.enter(peer(1), 4), Entry::Next(4, _)));
    }

    #[test]
    fn a_flood_is_told_and_a_closed_connection_forgotten_once_answered() {
        let connections = connections(1);
        let Entry::Next(_, connection) = connections.enter(peer(1), 1) else { panic!("free") };
        connections.enter(peer(1), 2);
        assert!(matches!(connections.enter(peer(1), 3), Entry::Flood(from) if from == peer(1)));
        assert!(matches!(connections.enter(peer(1), 4), Entry::Parked), "reported once");
        assert!(connection.is_cut());
        let forget = || connections.retain(|_| false, &HashSet::new());
        forget();
        assert!(connections.progress(peer(1)).is_some(), "busy ones stay");
        assert_eq!(connections.end(&connection), [2, 3, 4]);
        assert_eq!((connections.progress(peer(1)), connections.parked.get()), (None, 0));
        forget();
        assert!(matches!(connections.enter(peer(1), 5), Entry::Late(_)), "one scan is not enough");
        assert_eq!(connections.discard(peer(1)), [5]);
        forget();
        assert!(matches!(connections.enter(peer(1), 6), Entry::Next(6, _)), "forgotten");
    }

    #[test]
    fn what_comes_behind_the_end_is_told_from_a_new_connection_with_the_same_address() {
        let connections = connections(10);
        let Entry::Next(1, old) = connections.enter(peer(1), 1) else { panic!("free") };
        old.inode.store(77, Ordering::Relaxed);
        assert_eq!(connections.end(&old), [] as [i32; 0]);
        assert!(matches!(connections.enter(peer(1), 2), Entry::Late(from) if from == peer(1)));
        assert!(matches!(connections.enter(peer(1), 3), Entry::Parked), "asked once");
        assert_eq!(connections.discard(peer(1)), [2, 3]);
        for _ in 0..3 {
            connections.retain(|_| true, &HashSet::from([77]));
        }
        assert!(matches!(connections.enter(peer(1), 4), Entry::Late(_)), "its socket is still held");
        connections.enter(peer(1), 5);
        let (first, new) = connections.revive(peer(1)).expect("they waited");
        assert_eq!((first, connections.leave(&new), connections.leave(&new)), (4, Some(5), None));
        assert!(matches!(connections.enter(peer(1), 6), Entry::Next(6, _)));
        assert!(connections.discard(peer(2)).is_empty() && connections.revive(peer(1)).is_none());
    }

    #[test]
    fn the_guard_sees_bodies_that_are_waited_for() {
        let (connections, now) = (connections(1), Instant::now());
        assert_eq!(connections.progress(peer(1)), None);
        let Entry::Next((), connection) = connections.enter(peer(1), ()) else { panic!("free") };
        connection.set_body_awaited(Some(now));
        let progress = Progress { taken: 1, busy: true, body_awaited_since: Some(now) };
        assert_eq!(connections.progress(peer(1)), Some(progress));
        connection.set_body_awaited(None);
        assert_eq!(connections.progress(peer(1)).expect("known").body_awaited_since, None);
    }
}
