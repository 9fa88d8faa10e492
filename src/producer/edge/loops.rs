//! Starts the event loops and the thread that feeds them, and ends them in order.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::{JoinHandle, available_parallelism};

use crate::producer::answer::Answer;
use crate::producer::edge::acceptor::{Acceptor, Listener};
use crate::producer::edge::connection::Limits;
use crate::producer::edge::event_loop::EventLoop;
use crate::producer::edge::mailbox::{Mail, Mailbox};
use crate::producer::edge::serve::Serve;
use crate::thread::spawn;

/// Most event loops by default: more would only take processor time from Kafka and the publisher.
const MOST_LOOPS: usize = 4;

/// Returns the number of loops for a setting.
pub fn loop_count(setting: Option<usize>) -> usize {
    setting.unwrap_or_else(|| available_parallelism().map_or(1, usize::from).min(MOST_LOOPS))
}

/// How many loops there are and what they accept.
pub struct Settings {
    /// The address to listen on.
    pub addr: SocketAddr,
    /// Number of event loops; `None` means one per core, at most four.
    pub loops: Option<usize>,
    /// Most connections at the same time.
    pub max_connections: usize,
    /// Limits on each connection.
    pub limits: Limits,
}

/// The running loops.
pub struct Loops {
    listener: Arc<Listener>,
    mailboxes: Vec<Arc<Mailbox>>,
    acceptor: JoinHandle<()>,
    threads: Vec<JoinHandle<()>>,
}

impl Loops {
    /// Starts to listen, and to serve with `service`. `refuse` answers connections beyond the limit.
    ///
    /// # Errors
    /// The address cannot be bound, or the system does not allow this process the threads and descriptors.
    pub fn start<S: Serve>(
        settings: &Settings,
        service: &Arc<S>,
        refuse: impl Fn() -> Answer + Send + 'static,
    ) -> io::Result<Self> {
        let listener = Arc::new(Listener::open(settings.addr)?);
        let limits = Arc::new(settings.limits.clone());
        let (mut mailboxes, mut threads) = (Vec::new(), Vec::new());
        for number in 0..loop_count(settings.loops) {
            let (event_loop, mailbox) = EventLoop::new(service.clone(), limits.clone())?;
            mailboxes.push(mailbox);
            threads.push(spawn(format!("edge-{number}"), move || event_loop.run())?);
        }
        let acceptor = Acceptor {
            listener: listener.clone(),
            loops: mailboxes.clone(),
            max_connections: settings.max_connections,
            refuse: Box::new(refuse),
        };
        let acceptor = spawn("edge-accept", move || acceptor.run())?;
        Ok(Self { listener, mailboxes, acceptor, threads })
    }

    /// The address it listens on.
    pub fn bound(&self) -> SocketAddr {
        self.listener.bound
    }

    /// Number of open connections.
    pub fn connections(&self) -> usize {
        self.mailboxes.iter().map(|mailbox| mailbox.connections()).sum()
    }

    /// Accepts no further connections. Those that exist are still served.
    pub fn stop_accepting(&self) {
        self.listener.stop();
    }

    /// Ends every connection as soon as nothing is going on there.
    pub fn retire(&self) {
        self.mailboxes.iter().for_each(|mailbox| mailbox.post(Mail::Retire));
    }

    /// Ends every connection and returns the threads, which end now.
    pub fn stop(self) -> Vec<JoinHandle<()>> {
        self.listener.stop();
        self.mailboxes.iter().for_each(|mailbox| mailbox.post(Mail::Stop));
        let mut threads = self.threads;
        threads.push(self.acceptor);
        threads
    }
}
