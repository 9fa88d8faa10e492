//! Defines the seam between the producer and an HTTP front: what a front passes on, and how it is stopped.
//!
//! A front parses requests and passes each one to the [`Handler`](crate::producer::handler::Handler) as a
//! [`Request`]. It keeps the answers of a connection in order, enforces the limits on connections, and owns the
//! threads for all of this.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Instant;

use socket2::SockRef;

use crate::producer::answer::Answer;
use crate::producer::head::Head;

/// Connections that the kernel may queue before they are accepted; its own limit is `net.core.somaxconn`.
const BACKLOG: i32 = 1024;

/// Unread bytes that the kernel keeps per connection, which limits what a flood can put into our memory.
const RECEIVE_BUFFER_BYTES: usize = 64 << 10;

/// A running HTTP server.
pub trait Front: Send + Sync {
    /// The address it listens on.
    fn bound_addr(&self) -> SocketAddr;

    /// True if an answer is only handed to a thread of the front, so that answering never blocks on a client.
    fn answers_without_blocking(&self) -> bool {
        false
    }

    /// Accepts no further connections; open ones are still served.
    fn refuse_connections(&self);

    /// Shuts the reading side of all connections and ends the threads that pass on requests. Threads that are
    /// still busy at `deadline` are left until the process ends.
    fn stop_receiving(&mut self, deadline: Instant);

    /// Sends the answers that are still waiting and ends all other threads. Called when no more answers follow.
    fn finish(self: Box<Self>, deadline: Instant);
}

/// One request at a front, with the right to answer it. If it is dropped without an answer, it is answered 500
/// and its connection ends, so a panic cannot leave the connection stuck.
pub trait Exchange: Send {
    /// The request target, including its query.
    fn target(&self) -> &str;

    /// The parts of the head that decide how to handle the request.
    fn head(&self) -> Head<'_>;

    /// Announces that a thread of its own will wait for the body. From now on the front limits how long it takes.
    fn await_body(&mut self);

    /// Reads the body into `body`. This may block on the client, unless the head says that the body is here.
    ///
    /// # Errors
    /// The client went away, was too slow, or sent less than it announced.
    fn read_body(&mut self, length: usize, body: &mut Vec<u8>) -> io::Result<()>;

    /// Sends the answer, and ends the connection if the answer says so. May block on the client for a limited
    /// time. Returns the next request of the connection if it was waiting for this answer.
    fn respond(self: Box<Self>, answer: &Answer) -> Option<Request>;
}

/// A request that is being served.
pub struct Request {
    /// The request at its front.
    pub exchange: Box<dyn Exchange>,
    /// When its head was received.
    pub started: Instant,
    /// The origin whose page may read the answer.
    pub origin: Option<Arc<str>>,
    /// When work on it could first begin: it was next on its connection, and its body was complete. Our own
    /// timeouts start here, because the time before that is up to the client.
    pub complete: Instant,
}

/// Starts listening on `addr`, with the options that every front wants. Linux copies them to every accepted socket.
///
/// # Errors
/// The address cannot be bound.
pub fn listen(addr: SocketAddr) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(addr).map_err(|error| cannot_bind(addr, &error))?;
    let socket = SockRef::from(&listener);
    socket.listen(BACKLOG)?;
    socket.set_tcp_nodelay(true)?;
    socket.set_keepalive(true)?;
    socket.set_recv_buffer_size(RECEIVE_BUFFER_BYTES)?;
    Ok(listener)
}

fn cannot_bind(addr: SocketAddr, error: &io::Error) -> io::Error {
    let hint = match error.kind() {
        io::ErrorKind::AddrNotAvailable if addr.is_ipv6() => {
            "; IPv6 may be disabled here; use 0.0.0.0 for all IPv4 addresses"
        }
        io::ErrorKind::AddrNotAvailable => "; no network interface here has this address",
        _ => "",
    };
    io::Error::new(error.kind(), format!("HTTP_ADDR={addr}: {error}{hint}"))
}
