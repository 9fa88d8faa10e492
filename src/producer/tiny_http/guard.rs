//! Enforces limits on tiny_http's connections from the outside, because tiny_http has no limits or timeouts.
//!
//! Every half second the guard scans the sockets on our port, closes those that exceed a limit, and counts
//! those whose thread is lost. It waits for nothing else, so the limits hold even while the accept loop
//! hangs.

use std::collections::{HashMap, HashSet};
use std::net::{Shutdown, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, RecvTimeoutError};

use crate::linux::{self, TcpState};
use crate::producer::handler::Handler;
use crate::producer::tiny_http::exchange::Exchanges;
use crate::producer::tiny_http::keep_warm::KeepWarm;
use crate::producer::tiny_http::reaper::{Cut, Limits, Reaper, Sample};
use crate::sockets;

/// Interval between two scans of the connections.
const SWEEP: Duration = Duration::from_millis(500);

/// State of the guard thread.
pub struct Guard {
    pub handler: Arc<Handler>,
    pub exchanges: Arc<Exchanges>,
    pub port: u16,
    /// Our own connections, which are exempt from all limits.
    pub keep_warm: Arc<KeepWarm>,
    pub limits: Limits,
    /// A connection that ended this long ago but is still not closed has lost its thread.
    pub lost_after: Duration,
    /// Number of lost connections above which the process has to be replaced.
    pub leak_budget: usize,
}

impl Guard {
    /// Runs until `stop` disconnects. Calls `exhausted` with the number of lost connection threads if there
    /// are too many.
    pub fn run(self, stop: &Receiver<()>, mut exhausted: impl FnMut(usize)) {
        let mut reaper = Reaper::new(self.limits);
        let mut over_since = HashMap::new();
        while stop.recv_timeout(SWEEP) == Err(RecvTimeoutError::Timeout) {
            let sweep = AssertUnwindSafe(|| self.sweep(&mut reaper, &mut over_since));
            match catch_unwind(sweep) {
                Ok(lost) if lost > self.leak_budget => exhausted(lost),
                Ok(_) => {}
                Err(_) => log::error!("a scan of the connections panicked; the next one follows"),
            }
        }
    }

    /// Scans all connections once and returns how many have lost their thread.
    fn sweep(&self, reaper: &mut Reaper, over_since: &mut HashMap<u64, Instant>) -> usize {
        let now = Instant::now();
        let (samples, over) = self.look();
        self.cut(&reaper.sweep(&samples, now, self.handler.bodies.is_backed_up()));
        let lost = note_lost(over_since, &over, now, self.lost_after);
        self.handler.metrics.http.leaked.set(lost as i64);
        lost
    }

    /// Returns the open client connections, and the inodes of those that have ended but are still held.
    fn look(&self) -> (Vec<Sample>, HashSet<u64>) {
        let own = self.keep_warm.addresses();
        let (port, connections) = (self.port, &self.exchanges.connections);
        let (mut samples, mut peers) = (Vec::new(), HashSet::new());
        let (mut over, mut held) = (HashSet::new(), HashSet::new());
        sockets::for_each_socket(|socket, local, peer| {
            if local.port() != port {
                return;
            }
            let Some(counters) = linux::tcp_counters(socket) else { return };
            let progress = peer.and_then(|peer| connections.progress(peer));
            match (counters.state, peer) {
                (TcpState::Open, Some(peer)) if !own.contains(&peer) && peers.insert(peer) => {
                    if progress.is_none() && counters.bytes_received > 0 {
                        self.keep_warm.note_unread();
                    }
                    samples.push(Sample { peer, counters, progress });
                }
                (TcpState::Closing | TcpState::PeerEnded, _) => {
                    let inode = sockets::inode(socket);
                    held.extend(inode);
                    // A client that has finished sending may still be waiting for its answers.
                    over.extend(inode.filter(|_| !progress.is_some_and(|progress| progress.busy)));
                }
                _ => {}
            }
        });
        self.handler.metrics.http.connections.set(samples.len() as i64);
        connections.retain(|peer| peers.contains(&peer), &held);
        (samples, over)
    }

    fn cut(&self, cuts: &[(SocketAddr, Cut)]) {
        if cuts.is_empty() {
            return;
        }
        let mut shut = HashMap::with_capacity(cuts.len());
        for &(peer, cut) in cuts {
            let (limit, how) = match cut {
                Cut::Idle => ("idle_timeout", Shutdown::Read),
                Cut::SlowHead => ("request_timeout", Shutdown::Both),
                // Its thread reads the end of the stream and answers 408.
                Cut::SlowBody => ("request_timeout", Shutdown::Read),
                Cut::TooMany => ("max_connections", Shutdown::Both),
            };
            self.handler.metrics.refuse(limit);
            if cut == Cut::SlowBody {
                self.exchanges.connections.read_no_more(peer);
            }
            shut.insert(peer, how);
        }
        // One scan for all of them: a thousand clients that go silent together must not cost a thousand
        // scans.
        sockets::for_each_connection(|socket, local, peer| {
            if local.port() == self.port
                && let Some(&how) = shut.get(&peer)
            {
                let _ = socket.shutdown(how);
            }
        });
    }
}

/// Counts the connections that ended more than `lost_after` ago.
fn note_lost(
    over_since: &mut HashMap<u64, Instant>,
    over: &HashSet<u64>,
    now: Instant,
    lost_after: Duration,
) -> usize {
    over_since.retain(|inode, _| over.contains(inode));
    for &inode in over {
        over_since.entry(inode).or_insert(now);
    }
    over_since.values().filter(|&&since| now.saturating_duration_since(since) > lost_after).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_lost_when_it_stays_over() {
        let (mut since, start) = (HashMap::new(), Instant::now());
        let at = |second| start + Duration::from_secs(second);
        let limit = Duration::from_secs(10);
        assert_eq!(note_lost(&mut since, &HashSet::from([1, 2]), at(0), limit), 0);
        assert_eq!(note_lost(&mut since, &HashSet::from([2, 3]), at(11), limit), 1);
        assert_eq!(note_lost(&mut since, &HashSet::new(), at(30), limit), 0);
    }
}
