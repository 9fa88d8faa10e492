//! Ends connections: sends the last answer on each and makes sure that nothing after it is processed.
//!
//! tiny_http cannot end a connection, so its socket has to be found among all descriptors of the process. One
//! thread does this for all waiting connections at once and scans every descriptor only for a small share of
//! its time, so refusing a client does not slow down the others, however many connections there are.

use std::collections::HashSet;
use std::io::Write;
use std::mem;
use std::net::{Shutdown, SocketAddr};
use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use crossbeam::channel::{Receiver, RecvTimeoutError};
use socket2::SockRef;
use tiny_http::Request;

use crate::linux::thread_cpu_time;
use crate::producer::answer::{After, Answer};
use crate::producer::clock::with_date;
use crate::producer::handler::Handler;
use crate::producer::routes::Route;
use crate::producer::status::Status;
use crate::producer::tiny_http::exchange::Exchanges;
use crate::producer::tiny_http::orders::{Arrival, Ending, Order};
use crate::sockets::{self, Finder, Found};

/// After a scan of every descriptor, the next one waits this many times as long as the processor worked on it. Time
/// in which other work had the processor does not count, or refusals would be slow on a busy machine.
const REST_PER_SCAN: u32 = 4;

/// Most orders carried out between two checks of the recent descriptors.
const ORDERS_AT_ONCE: usize = 64;

/// Above this size, dropping an unread request could abort the process, because tiny_http allocates the rest
/// of the body at once. Up to this size the allocation is never touched.
const DRAINABLE_BYTES: usize = 64 << 20;

/// State of the closer thread.
pub struct Closer {
    handler: Arc<Handler>,
    exchanges: Arc<Exchanges>,
    finder: Finder,
    /// Orders whose connection was not found among the recent descriptors.
    waiting: Vec<Order>,
    next_scan: Instant,
    stopping: bool,
}

impl Closer {
    /// Creates a closer for the connections to `port`.
    pub fn new(port: u16, handler: Arc<Handler>, exchanges: Arc<Exchanges>) -> Self {
        let (finder, next_scan) = (Finder::new(port), Instant::now());
        Self { handler, exchanges, finder, waiting: Vec::new(), next_scan, stopping: false }
    }

    /// Carries out `orders` until one of them is [`Order::Stop`].
    pub fn run(mut self, orders: &Receiver<Order>) {
        while !(self.stopping && self.waiting.is_empty()) {
            let first = if self.waiting.is_empty() {
                orders.recv().map_err(|_| RecvTimeoutError::Disconnected)
            } else {
                orders.recv_deadline(self.next_scan)
            };
            self.stopping |= matches!(first, Err(RecvTimeoutError::Disconnected));
            for order in first.into_iter().chain(orders.try_iter().take(ORDERS_AT_ONCE)) {
                match order {
                    Order::Stop => self.stopping = true,
                    order => self.waiting.push(order),
                }
            }
            self.work();
        }
    }

    /// Carries out the waiting orders whose sockets are among the recent descriptors, or all of them if a
    /// scan of every descriptor is allowed now.
    fn work(&mut self) {
        let wanted: HashSet<SocketAddr> = self.waiting.iter().filter_map(Order::peer).collect();
        let mut found = self.finder.find_recent(&wanted);
        let scans = found.len() < wanted.len() && (self.stopping || Instant::now() >= self.next_scan);
        if scans {
            let before = thread_cpu_time();
            let missing = wanted.into_iter().filter(|peer| !found.contains_key(peer)).collect();
            found.extend(self.finder.find_all(&missing));
            self.next_scan = Instant::now() + thread_cpu_time().saturating_sub(before) * REST_PER_SCAN;
        }
        let is_ready = |order: &Order| scans || order.peer().is_none_or(|peer| found.contains_key(&peer));
        let (ready, waiting) = mem::take(&mut self.waiting).into_iter().partition(is_ready);
        self.waiting = waiting;
        for order in ready {
            let handler = self.handler.clone();
            handler.catch_panic(|| self.carry_out(order, &found));
        }
    }

    fn carry_out(&mut self, order: Order, found: &Found) {
        let place = |peer| found.get(&peer).copied();
        match order {
            Order::End(ending) => {
                let place = place(ending.connection.peer);
                self.end(*ending, place);
            }
            Order::Shut(peer) => {
                if let Some(fd) = place(peer) {
                    self.shut(fd, peer);
                }
            }
            Order::Late(peer) => {
                // A connection that we ended is not found, so one that is found is new.
                if place(peer).is_some_and(|fd| self.finder.act(fd, peer, |_| {})) {
                    if let Some(request) = self.exchanges.revive(peer) {
                        self.handler.serve(request);
                    }
                } else {
                    abandon(self.exchanges.connections.discard(peer));
                }
            }
            Order::Stop => {}
        }
    }

    fn end(&mut self, ending: Ending, place: Option<RawFd>) {
        let Ending { request, connection, bytes } = ending;
        let bytes = bytes.unwrap_or_else(|| {
            self.exchanges.metrics.answered(Route::of(request.url()), Status::InternalServerError);
            let mut bytes = Vec::new();
            if !connection.is_cut() {
                with_date(|date| Answer::lost().encode(date, None, After::Close, false, &mut bytes));
            }
            bytes
        });
        let peer = connection.peer;
        // Kept because tiny_http's thread may close the descriptor as soon as it reads the end of the stream.
        let mut kept = None;
        if let Some(fd) = place {
            self.finder.act(fd, peer, |socket| {
                kept = socket.try_clone().ok();
                connection.inode.store(sockets::inode(socket).unwrap_or_default(), Ordering::Relaxed);
                // tiny_http reads the rest of the body before it lets us write; this makes it reach the end
                // at once.
                let _ = socket.shutdown(Shutdown::Read);
            });
        }
        // Before the client can learn that this connection has ended and open another one from the same address.
        let behind = self.exchanges.connections.end(&connection);
        let writer = if is_drainable(&request) {
            let mut writer = request.into_writer();
            // A client that has gone away cannot receive the answer.
            let _ = if bytes.is_empty() {
                Ok(())
            } else {
                writer.write_all(&bytes).and_then(|()| writer.flush())
            };
            Some(writer)
        } else {
            if let Some(fd) = place {
                self.finder.act(fd, peer, |socket| drop(SockRef::from(socket).send(&bytes)));
            }
            leak(request);
            None
        };
        match kept {
            Some(socket) => drop(socket.shutdown(Shutdown::Both)),
            // There was no free descriptor for the duplicate.
            None if place.is_some() => self.shut_wherever(peer),
            None => {}
        }
        abandon(behind);
        // If the connection were still open, tiny_http could now write an answer of its own to whatever it
        // reads after the request.
        drop(writer);
    }

    fn shut(&self, fd: RawFd, peer: SocketAddr) {
        self.finder.act(fd, peer, |socket| drop(socket.shutdown(Shutdown::Both)));
    }

    fn shut_wherever(&mut self, peer: SocketAddr) {
        if let Some(&fd) = self.finder.find_all(&HashSet::from([peer])).get(&peer) {
            self.shut(fd, peer);
        }
    }
}

fn is_drainable(request: &Request) -> bool {
    request.body_length().is_none_or(|length| length <= DRAINABLE_BYTES)
}

/// Leaks a request that would abort the process if it were dropped. This costs a thread and two descriptors,
/// which the guard counts.
fn leak(request: Request) {
    mem::forget(request);
}

/// Abandons requests of a connection that has ended: they are neither processed nor answered.
fn abandon(arrivals: Vec<Arrival>) {
    for Arrival { request, .. } in arrivals {
        if is_drainable(&request) {
            drop(request.into_writer());
        } else {
            leak(request);
        }
    }
}
