//! Waits for sockets to become ready, or for a bell that other threads ring.

use std::io;
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::event::{EventfdFlags, Timespec, epoll, eventfd};

use crate::producer::wake::Wake;

/// Most events taken at once.
const EVENTS: usize = 512;

/// The bell's token, which no socket has.
const BELL: u64 = u64::MAX;

/// Wakes a thread that waits on a [`Poller`].
#[derive(Debug)]
pub struct Bell {
    fd: OwnedFd,
    /// The thread is awake, or will wake.
    rung: AtomicBool,
}

impl Wake for Bell {
    /// Costs a system call only if the thread sleeps.
    fn wake(&self) {
        if !self.rung.swap(true, Ordering::SeqCst) {
            // It fails only if the counter is full, and then the thread wakes anyway.
            let _ = rustix::io::write(&self.fd, &1_u64.to_ne_bytes());
        }
    }
}

/// What a socket is ready for.
#[derive(Clone, Copy, Debug)]
pub struct Ready {
    /// As passed to [`Poller::add`].
    pub token: u64,
    /// There may be bytes to read, or their end.
    pub readable: bool,
    /// There may be room to write.
    pub writable: bool,
    /// The client has shut its sending side; what it sent before can still be read.
    pub hung_up: bool,
    /// The connection is dead.
    pub dead: bool,
}

/// Reports each change of readiness once.
#[derive(Debug)]
pub struct Poller {
    epoll: OwnedFd,
    bell: Arc<Bell>,
}

/// What one wait has found.
pub struct Events(Vec<epoll::Event>);

impl Events {
    /// Creates it empty.
    pub fn new() -> Self {
        Self(Vec::with_capacity(EVENTS))
    }

    /// The sockets that are ready.
    pub fn iter(&self) -> impl Iterator<Item = Ready> {
        use epoll::EventFlags as Flags;
        let events = self.0.iter().map(|event| (event.data.u64(), event.flags));
        events.filter(|(token, _)| *token != BELL).map(|(token, flags)| Ready {
            token,
            readable: flags.intersects(Flags::IN | Flags::RDHUP | Flags::HUP),
            writable: flags.contains(Flags::OUT),
            hung_up: flags.intersects(Flags::RDHUP | Flags::HUP),
            dead: flags.contains(Flags::ERR),
        })
    }
}

impl Poller {
    /// Creates a poller without sockets.
    ///
    /// # Errors
    /// The process is out of descriptors.
    pub fn new() -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let fd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        // Edge-triggered, so the counter never has to be read.
        epoll::add(
            &epoll,
            &fd,
            epoll::EventData::new_u64(BELL),
            epoll::EventFlags::IN | epoll::EventFlags::ET,
        )?;
        let bell = Arc::new(Bell { fd, rung: AtomicBool::new(true) });
        Ok(Self { epoll, bell })
    }

    /// The bell that wakes this poller.
    pub fn bell(&self) -> Arc<Bell> {
        self.bell.clone()
    }

    /// Watches `socket` until it is closed.
    ///
    /// # Errors
    /// The kernel allows no more watches.
    pub fn add(&self, socket: &TcpStream, token: u64) -> io::Result<()> {
        use epoll::EventFlags as Flags;
        let flags = Flags::IN | Flags::OUT | Flags::RDHUP | Flags::ET;
        Ok(epoll::add(&self.epoll, socket, epoll::EventData::new_u64(token), flags)?)
    }

    /// From now on the bell ends the next wait. The thread has to look for its work
    /// between this call and that wait, because the bell may have been rung before.
    pub fn listen(&self) {
        self.bell.rung.store(false, Ordering::SeqCst);
        fence(Ordering::SeqCst);
    }

    /// Waits for at most `timeout`, and replaces `events` by what it finds.
    pub fn wait(&self, events: &mut Events, timeout: Duration) {
        let timeout = Timespec { tv_sec: timeout.as_secs() as i64, tv_nsec: timeout.subsec_nanos().into() };
        events.0.clear();
        // It fails only if a signal arrives, and then there are no events.
        let _ = epoll::wait(&self.epoll, spare_capacity(&mut events.0), Some(&timeout));
        self.bell.rung.store(true, Ordering::SeqCst);
    }
}
