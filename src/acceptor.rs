//! Accepts connections in a thread of its own until it is dropped.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::thread::spawn;

/// Wait after a failed accept, for example with too many open files, because it would fail again at once.
const ACCEPT_WAIT: Duration = Duration::from_millis(100);
/// Longest wait for our own listener when we end.
const WAKE_LIMIT: Duration = Duration::from_millis(500);

/// The running thread. Dropping it ends the thread.
pub struct Acceptor {
    addr: SocketAddr,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Acceptor {
    /// Starts a thread that calls `serve` with each connection of `listener`.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn start(
        name: &str,
        listener: TcpListener,
        mut serve: impl FnMut(TcpStream) + Send + 'static,
    ) -> io::Result<Self> {
        let addr = listener.local_addr()?;
        let ended = Arc::new(AtomicBool::new(false));
        let flag = ended.clone();
        let thread = spawn(name, move || {
            while !flag.load(Ordering::SeqCst) {
                match listener.accept() {
                    // The last one is our own, which only wakes this thread.
                    Ok(_) if flag.load(Ordering::SeqCst) => {}
                    Ok((client, _)) => serve(client),
                    Err(_) => thread::sleep(ACCEPT_WAIT),
                }
            }
        })?;
        Ok(Self { addr, ended, thread: Some(thread) })
    }

    /// The address that it listens on.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }
}

impl Drop for Acceptor {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        let mut wake = self.addr;
        if wake.ip().is_unspecified() {
            wake.set_ip(if wake.is_ipv4() { [127, 0, 0, 1].into() } else { [0, 0, 0, 0, 0, 0, 0, 1].into() });
        }
        let woken = TcpStream::connect_timeout(&wake, WAKE_LIMIT);
        if let (Ok(_), Some(thread)) = (woken, self.thread.take()) {
            let _ = thread.join();
        }
    }
}
