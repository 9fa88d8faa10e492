//! Finds this process's TCP connections through `/proc/self/fd`; tiny_http and the kafka crate hide them.
//!
//! Works even if the process has no file descriptors left, which is when connection limits matter most.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fs::{self, File};
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::MetadataExt;

use parking_lot::Mutex;
use socket2::SockRef;

use crate::linux::{TcpState, open_files_limit, tcp_counters};

/// Number of descriptors with recent finds that a [`Finder`] remembers and checks first.
const RECENT: usize = 128;

/// Calls `visit` with a duplicate of every TCP connection of this process and its local and peer addresses.
///
/// A duplicate shares socket options and shutdown with the original. Sockets without a peer, because they are
/// still connecting or already dead, are skipped.
pub fn for_each_connection(mut visit: impl FnMut(&TcpStream, SocketAddr, SocketAddr)) {
    for_each_socket(|stream, local, peer| {
        if let Some(peer) = peer {
            visit(stream, local, peer);
        }
    });
}

/// Calls `visit` with a duplicate of every bound TCP socket of this process and its addresses. The peer is
/// `None` for a listener, and for a connection that has ended but that we have not closed yet. `visit` must
/// not search for sockets itself.
pub fn for_each_socket(mut visit: impl FnMut(&TcpStream, SocketAddr, Option<SocketAddr>)) {
    with_slot(|slot| {
        for fd in descriptors() {
            slot.show(fd, &mut visit);
        }
    });
}

/// The inode number of a socket, which all its duplicates share.
pub fn inode(socket: &TcpStream) -> Option<u64> {
    // Looked up by path, because `File::metadata` would need another descriptor.
    Some(fs::metadata(format!("/proc/self/fd/{}", socket.as_raw_fd())).ok()?.ino())
}

/// Finds open connections by peer address, at a cost that does not grow with the number of connections. The
/// kernel assigns the lowest free descriptor, so short connections keep reusing the same few.
#[derive(Debug)]
pub struct Finder {
    port: u16,
    recent: VecDeque<RawFd>,
}

/// Descriptors of the connections that were found, by peer address.
pub type Found = HashMap<SocketAddr, RawFd>;

impl Finder {
    /// Creates a finder for connections to our `port`.
    pub fn new(port: u16) -> Self {
        Self { port, recent: VecDeque::new() }
    }

    /// Searches for `wanted` among the descriptors where connections were found recently.
    pub fn find_recent(&mut self, wanted: &HashSet<SocketAddr>) -> Found {
        let recent: Vec<RawFd> = self.recent.iter().copied().collect();
        self.find(recent, wanted)
    }

    /// Searches for `wanted` among all descriptors.
    pub fn find_all(&mut self, wanted: &HashSet<SocketAddr>) -> Found {
        self.find(descriptors(), wanted)
    }

    fn find(&mut self, fds: Vec<RawFd>, wanted: &HashSet<SocketAddr>) -> Found {
        let mut found = Found::new();
        for fd in fds {
            if found.len() == wanted.len() {
                break;
            }
            let Some(peer) = peer_of(fd).filter(|peer| wanted.contains(peer)) else { continue };
            if !found.contains_key(&peer) && self.act(fd, peer, |_| {}) {
                found.insert(peer, fd);
                self.note(fd);
            }
        }
        found
    }

    fn note(&mut self, fd: RawFd) {
        self.recent.retain(|&known| known != fd);
        self.recent.push_front(fd);
        self.recent.truncate(RECENT);
    }

    /// Runs `act` on the connection at `fd` if its peer is `peer` and this side has not closed it. Returns
    /// true if so.
    pub fn act(&self, fd: RawFd, peer: SocketAddr, act: impl FnOnce(&TcpStream)) -> bool {
        let (mut act, mut done) = (Some(act), false);
        with_slot(|slot| {
            slot.show(fd, &mut |stream, local, other| {
                let is_live = || tcp_counters(stream).is_some_and(|counters| counters.state.is_ours_open());
                if local.port() == self.port && other == Some(peer) && is_live() {
                    done = true;
                    if let Some(act) = act.take() {
                        act(stream);
                    }
                }
            });
        });
        done
    }
}

fn peer_of(fd: RawFd) -> Option<SocketAddr> {
    // SAFETY: borrowed only for this call; if `fd` was closed or reused, the result is another address or
    // none.
    let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
    SockRef::from(&borrowed).peer_addr().ok()?.as_socket()
}

/// Lists all open descriptors.
fn descriptors() -> Vec<RawFd> {
    match fs::read_dir("/proc/self/fd") {
        Ok(entries) => entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect(),
        // No descriptor is left to open the directory, so all up to the limit are in use.
        Err(_) => (0..open_files_limit().try_into().unwrap_or(RawFd::MAX)).collect(),
    }
}

/// A descriptor that is made a duplicate of one socket after another, and of `/dev/null` (`nothing`) in
/// between.
struct Slot {
    slot: TcpStream,
    nothing: File,
}

static SLOT: Mutex<Option<Slot>> = Mutex::new(None);

fn with_slot(use_slot: impl FnOnce(&Slot)) {
    let mut kept = SLOT.lock();
    if kept.is_none() {
        *kept = Slot::new().ok();
    }
    if let Some(slot) = &*kept {
        use_slot(slot);
        // Otherwise the last socket would stay open.
        slot.become_duplicate_of(slot.nothing.as_raw_fd());
    }
}

impl Slot {
    fn new() -> io::Result<Self> {
        let nothing = File::open("/dev/null")?;
        Ok(Self { slot: OwnedFd::from(nothing.try_clone()?).into(), nothing })
    }

    fn show(&self, fd: RawFd, visit: &mut impl FnMut(&TcpStream, SocketAddr, Option<SocketAddr>)) {
        if fd != self.slot.as_raw_fd()
            && self.become_duplicate_of(fd)
            && let Ok(local) = self.slot.local_addr()
        {
            visit(&self.slot, local, self.slot.peer_addr().ok());
        }
    }

    fn become_duplicate_of(&self, fd: RawFd) -> bool {
        // SAFETY: no memory is accessed. If `fd` was closed or reused meanwhile, this fails or duplicates the
        // new descriptor; from here on only the slot, which is ours, is used.
        unsafe { libc::dup3(fd, self.slot.as_raw_fd(), libc::O_CLOEXEC) >= 0 }
    }
}

/// Reserves the descriptors that this module needs, while some are still free.
pub fn prepare() {
    with_slot(|_| {});
}

impl TcpState {
    fn is_ours_open(self) -> bool {
        matches!(self, Self::Open | Self::PeerEnded)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{Shutdown, TcpListener};

    use super::*;

    #[test]
    fn a_connection_is_seen_from_both_ends_counted_and_can_be_shut() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let mut client = TcpStream::connect(listener.local_addr().expect("address")).expect("connect");
        let (mut server, peer) = listener.accept().expect("accept");
        client.write_all(b"hello").expect("write");
        server.read_exact(&mut [0; 5]).expect("read");
        let mut seen = 0;
        for_each_connection(|stream, _, other| {
            if other == peer {
                seen += 1;
                assert_eq!(tcp_counters(stream).expect("counters").bytes_received, 5);
                assert_eq!(inode(stream), inode(&server));
                stream.shutdown(Shutdown::Both).expect("shutdown");
            }
        });
        assert_eq!(seen, 1);
        assert_eq!(client.read(&mut [0; 1]).expect("end of stream"), 0);
    }

    #[test]
    fn a_finder_remembers_where_it_found_and_passes_over_what_we_have_ended() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let local = listener.local_addr().expect("address");
        let client = TcpStream::connect(local).expect("connect");
        let (server, peer) = listener.accept().expect("accept");
        let wanted = HashSet::from([peer]);
        let mut finder = Finder::new(local.port());
        assert!(finder.find_recent(&wanted).is_empty(), "nothing was found yet");
        let place = Found::from([(peer, server.as_raw_fd())]);
        assert_eq!((finder.find_all(&wanted), finder.find_recent(&wanted)), (place.clone(), place));
        client.shutdown(Shutdown::Write).expect("shutdown");
        assert_eq!(finder.find_recent(&wanted).len(), 1, "the peer still expects an answer");
        assert!(
            finder.act(server.as_raw_fd(), peer, |socket| socket.shutdown(Shutdown::Both).expect("shut"))
        );
        assert!(!finder.act(server.as_raw_fd(), peer, |_| panic!("we have closed it")));
        assert!(finder.find_all(&wanted).is_empty());
    }
}
