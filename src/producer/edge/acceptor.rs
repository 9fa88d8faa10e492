//! Accepts connections and gives each to the event loop that has the fewest.

use std::io::{self, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::Duration;

use socket2::SockRef;

use crate::producer::answer::{After, Answer};
use crate::producer::clock::with_date;
use crate::producer::edge::mailbox::{Mail, Mailbox};
use crate::producer::front::listen;

/// Bytes of answers that the kernel keeps per connection. By itself it keeps megabytes for each client that does
/// not read, and the loop goes on producing them.
const SEND_BUFFER_BYTES: usize = 128 << 10;

/// Most connections beyond the limit that wait for their clients to read why they are refused. The answers to more
/// of them may be lost.
const MAX_REFUSED: usize = 100;

/// Wait before the next attempt when the process or the system is out of descriptors or memory.
const BACK_OFF: Duration = Duration::from_millis(50);

/// The listening socket.
#[derive(Debug)]
pub struct Listener {
    listener: TcpListener,
    /// The address it listens on.
    pub bound: SocketAddr,
    stopped: AtomicBool,
}

impl Listener {
    /// Starts listening on `addr`.
    ///
    /// # Errors
    /// The address cannot be bound.
    pub fn open(addr: SocketAddr) -> io::Result<Self> {
        let listener = listen(addr)?;
        SockRef::from(&listener).set_send_buffer_size(SEND_BUFFER_BYTES)?;
        let bound = listener.local_addr()?;
        Ok(Self { listener, bound, stopped: AtomicBool::new(false) })
    }

    /// Ends [`Acceptor::run`]. Clients that connect from now on are refused by the kernel.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::SeqCst);
        // A listener has no end of its own to shut, but this makes `accept` return.
        if let Ok(duplicate) = self.listener.try_clone() {
            let _ = TcpStream::from(OwnedFd::from(duplicate)).shutdown(Shutdown::Both);
        }
    }
}

/// Accepts connections for some event loops.
pub struct Acceptor {
    /// Where they come from.
    pub listener: Arc<Listener>,
    /// The loops.
    pub loops: Vec<Arc<Mailbox>>,
    /// Most connections at the same time.
    pub max_connections: usize,
    /// Counts a connection beyond that, and returns the answer to it.
    pub refuse: Box<dyn Fn() -> Answer + Send>,
}

impl Acceptor {
    /// Accepts until the listener is stopped.
    pub fn run(self) {
        let mut failing = false;
        while !self.listener.stopped.load(Ordering::SeqCst) {
            match self.listener.listener.accept() {
                Ok((socket, _)) => {
                    failing = false;
                    self.give(socket);
                }
                Err(error) if is_about_one_connection(&error) => {}
                Err(error) => {
                    // The kernel keeps the clients waiting meanwhile.
                    if !failing && !self.listener.stopped.load(Ordering::SeqCst) {
                        log::warn!("cannot accept connections for now: {error}; raise `ulimit -n`");
                    }
                    failing = true;
                    sleep(BACK_OFF);
                }
            }
        }
    }

    fn give(&self, socket: TcpStream) {
        let sum =
            |count: fn(&Mailbox) -> usize| self.loops.iter().map(|mailbox| count(mailbox)).sum::<usize>();
        let is_refused = sum(Mailbox::connections) >= self.max_connections;
        let answer = is_refused.then(&self.refuse);
        let least = self.loops.iter().min_by_key(|mailbox| mailbox.connections());
        let (Some(mailbox), Ok(())) = (least, socket.set_nonblocking(true)) else { return };
        match answer {
            Some(answer) if sum(Mailbox::refused) >= MAX_REFUSED => refuse(&socket, &answer),
            answer => {
                mailbox.opened(is_refused);
                mailbox.post(Mail::Connection(socket, answer));
            }
        }
    }
}

/// The client is gone already, or a signal came.
fn is_about_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind as Kind;
    matches!(error.kind(), Kind::ConnectionAborted | Kind::ConnectionReset | Kind::Interrupted)
}

/// Answers without waiting for the client, which may lose the answer if its request arrives later.
fn refuse(mut socket: &TcpStream, answer: &Answer) {
    let mut bytes = Vec::new();
    with_date(|date| answer.encode(date, None, After::Close, false, &mut bytes));
    let _ = socket.write_all(&bytes);
    let _ = socket.shutdown(Shutdown::Write);
}
