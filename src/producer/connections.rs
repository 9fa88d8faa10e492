//! The order of requests on each connection.
//!
//! tiny_http lets the answer to a pipelined request be written only after the one before it, by blocking the
//! writer's thread. So of one connection one request is on its way and the others are parked here; nobody ever
//! waits for a predecessor. Knows requests only as values of type `R`.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// One client connection.
#[derive(Debug)]
pub struct Connection<R> {
    /// The client's end.
    pub peer: SocketAddr,
    cut: AtomicBool,
    lane: Mutex<Lane<R>>,
}

#[derive(Debug)]
struct Lane<R> {
    busy: bool,
    parked: VecDeque<R>,
    taken: u64,
    body_awaited_since: Option<Instant>,
}

/// What the guard wants to know of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Requests taken from it so far.
    pub taken: u64,
    /// A request is on its way, so nothing is expected from the client.
    pub busy: bool,
    /// Since when its body is waited for.
    pub body_awaited_since: Option<Instant>,
}

/// What [`Connections::enter`] says of a request.
#[derive(Debug)]
pub enum Entry<R> {
    /// Its turn: answer it, then [`Connections::leave`].
    Turn(R, Arc<Connection<R>>),
    /// Parked behind another of its connection.
    Parked,
    /// Parked too, but its connection has now too many: shut it. Told once a connection.
    Flood(SocketAddr),
}

/// All connections that have sent a request.
#[derive(Debug)]
pub struct Connections<R> {
    by_peer: Mutex<HashMap<SocketAddr, Arc<Connection<R>>>>,
    max_parked: usize,
    parked: AtomicUsize,
    first_requests: AtomicU64,
}

/// A poisoned lock guards plain data that is whole between any two statements, so it can be used on.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<R> Connections<R> {
    /// No connections yet; each may have `max_parked` requests waiting behind one on its way.
    pub fn new(max_parked: usize) -> Self {
        Self {
            by_peer: Mutex::default(),
            max_parked,
            parked: AtomicUsize::new(0),
            first_requests: AtomicU64::new(0),
        }
    }

    /// Takes up a request of `peer`. Call it in the order of arrival.
    pub fn enter(&self, peer: SocketAddr, request: R) -> Entry<R> {
        let connection = self.find_or_add(peer);
        let mut lane = lock(&connection.lane);
        lane.taken += 1;
        if !lane.busy {
            lane.busy = true;
            drop(lane);
            return Entry::Turn(request, connection);
        }
        lane.parked.push_back(request);
        self.parked.fetch_add(1, Ordering::Relaxed);
        let flooded = lane.parked.len() > self.max_parked;
        drop(lane);
        if flooded && connection.cut() { Entry::Flood(peer) } else { Entry::Parked }
    }

    /// A connection that was cut and has nothing left is over: its address belongs to a new one.
    fn find_or_add(&self, peer: SocketAddr) -> Arc<Connection<R>> {
        let mut by_peer = lock(&self.by_peer);
        let connection = by_peer.entry(peer).or_insert_with(|| {
            self.first_requests.fetch_add(1, Ordering::Relaxed);
            Connection::new(peer)
        });
        if connection.is_cut() && !lock(&connection.lane).busy {
            *connection = Connection::new(peer);
        }
        connection.clone()
    }

    /// The request whose turn it is after the one that is about to be answered.
    ///
    /// Call it before the answer is written: by the time the client can send its next request the connection is
    /// free, and whoever answers that one waits only for a write that is already under way.
    pub fn leave(&self, connection: &Connection<R>) -> Option<R> {
        let mut lane = lock(&connection.lane);
        lane.body_awaited_since = None;
        let next = lane.parked.pop_front();
        lane.busy = next.is_some();
        if next.is_some() {
            self.parked.fetch_sub(1, Ordering::Relaxed);
        }
        next
    }

    /// Requests parked on all connections.
    pub fn parked(&self) -> usize {
        self.parked.load(Ordering::Relaxed)
    }

    /// How many connections have sent a first request so far.
    pub fn first_requests(&self) -> u64 {
        self.first_requests.load(Ordering::Relaxed)
    }

    /// What is known of `peer`, if it has sent a request.
    pub fn progress(&self, peer: SocketAddr) -> Option<Progress> {
        let connection = lock(&self.by_peer).get(&peer)?.clone();
        let lane = lock(&connection.lane);
        Some(Progress { taken: lane.taken, busy: lane.busy, body_awaited_since: lane.body_awaited_since })
    }

    /// Forgets idle connections for which `is_open` is false.
    pub fn retain(&self, is_open: impl Fn(SocketAddr) -> bool) {
        lock(&self.by_peer).retain(|peer, connection| is_open(*peer) || lock(&connection.lane).busy);
    }
}

impl<R> Connection<R> {
    fn new(peer: SocketAddr) -> Arc<Self> {
        let lane = Lane { busy: false, parked: VecDeque::new(), taken: 0, body_awaited_since: None };
        Arc::new(Self { peer, cut: AtomicBool::new(false), lane: Mutex::new(lane) })
    }

    /// Marks it as cut; true for the first caller, who shuts the socket.
    pub fn cut(&self) -> bool {
        !self.cut.swap(true, Ordering::SeqCst)
    }

    /// Nobody hears an answer any more.
    pub fn is_cut(&self) -> bool {
        self.cut.load(Ordering::SeqCst)
    }

    /// Notes that the body of its request is waited for since `now`.
    pub fn awaits_body(&self, now: Instant) {
        lock(&self.lane).body_awaited_since = Some(now);
    }

    /// Notes that the body is complete.
    pub fn body_complete(&self) {
        lock(&self.lane).body_awaited_since = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(port: u16) -> SocketAddr {
        ([127, 0, 0, 1], port).into()
    }

    #[test]
    fn requests_of_one_connection_come_one_by_one_and_in_order() {
        let connections = Connections::new(10);
        let Entry::Turn(1, connection) = connections.enter(peer(1), 1) else { panic!("free") };
        assert!(matches!(connections.enter(peer(1), 2), Entry::Parked));
        assert!(matches!(connections.enter(peer(1), 3), Entry::Parked));
        assert!(matches!(connections.enter(peer(2), 9), Entry::Turn(9, _)));
        assert_eq!(connections.parked(), 2);
        let order: Vec<_> = (0..3).map(|_| connections.leave(&connection)).collect();
        assert_eq!(order, [Some(2), Some(3), None]);
        assert!(matches!(connections.enter(peer(1), 4), Entry::Turn(4, _)));
    }

    #[test]
    fn a_flood_is_told_and_a_closed_connection_forgotten_once_answered() {
        let connections = Connections::new(1);
        let Entry::Turn(_, connection) = connections.enter(peer(1), 1) else { panic!("free") };
        connections.enter(peer(1), 2);
        assert!(matches!(connections.enter(peer(1), 3), Entry::Flood(from) if from == peer(1)));
        assert!(matches!(connections.enter(peer(1), 4), Entry::Parked), "told once");
        assert!(connection.is_cut());
        connections.retain(|_| false);
        assert!(connections.progress(peer(1)).is_some(), "busy ones stay");
        while connections.leave(&connection).is_some() {}
        connections.retain(|_| false);
        assert_eq!((connections.progress(peer(1)), connections.parked()), (None, 0));
    }

    #[test]
    fn the_guard_sees_bodies_that_are_waited_for() {
        let (connections, now) = (Connections::new(1), Instant::now());
        assert_eq!(connections.progress(peer(1)), None);
        let Entry::Turn((), connection) = connections.enter(peer(1), ()) else { panic!("free") };
        connection.awaits_body(now);
        let progress = Progress { taken: 1, busy: true, body_awaited_since: Some(now) };
        assert_eq!(connections.progress(peer(1)), Some(progress));
        connection.body_complete();
        assert_eq!(connections.progress(peer(1)).expect("known").body_awaited_since, None);
    }
}
