//! Keeps tiny_http's connections in bounds from outside: it has no limits and no timeouts of its own.
//!
//! Every half second it looks at the sockets on our port, cuts those that break a limit, and counts those whose
//! thread is lost. It waits for nothing else, so that limits hold also while the accept loop is sick.

use std::collections::{HashMap, HashSet};
use std::net::{Shutdown, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, RecvTimeoutError};

use crate::linux::{self, TcpState};
use crate::sockets;

use super::handler::Handler;
use super::plugs::Plugs;
use super::reaper::{Cut, Limits, Reaper, Sample};

/// How often connections are looked at.
const SWEEP: Duration = Duration::from_millis(500);

/// State of the guard's thread.
pub struct Guard {
    /// Serves the requests.
    pub handler: Arc<Handler>,
    /// Our own connections, which no limit is for.
    pub plugs: Arc<Plugs>,
    /// Limits on connections.
    pub limits: Limits,
    /// A connection that is over for so long and still not closed has lost its thread.
    pub lost_after: Duration,
    /// Lost connections past which the process has to be replaced.
    pub leak_budget: usize,
}

impl Guard {
    /// Runs until `stop` disconnects; `exhausted` is told how many connection threads are lost when they are too many.
    pub fn run(self, stop: &Receiver<()>, mut exhausted: impl FnMut(usize)) {
        let mut reaper = Reaper::new(self.limits);
        let mut over_since = HashMap::new();
        while stop.recv_timeout(SWEEP) == Err(RecvTimeoutError::Timeout) {
            let sweep = AssertUnwindSafe(|| self.sweep(&mut reaper, &mut over_since));
            match catch_unwind(sweep) {
                Ok(lost) if lost > self.leak_budget => exhausted(lost),
                Ok(_) => {}
                Err(_) => log::error!("a look at the connections ended by a panic; the next one follows"),
            }
        }
    }

    /// Looks at all connections once; returns how many have lost their thread.
    fn sweep(&self, reaper: &mut Reaper, over_since: &mut HashMap<u64, Instant>) -> usize {
        let now = Instant::now();
        let (samples, over) = self.look();
        self.cut(&reaper.sweep(&samples, now, self.lane_is_full()));
        let lost = note_lost(over_since, &over, now, self.lost_after);
        self.handler.metrics.http.leaked.set(lost as i64);
        lost
    }

    /// The open client connections, and the inodes of those that are over but still held.
    fn look(&self) -> (Vec<Sample>, HashSet<u64>) {
        let own = self.plugs.addresses();
        let (port, connections) = (self.handler.port, &self.handler.connections);
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
                    samples.push(Sample { peer, counters, progress });
                }
                (TcpState::Closing | TcpState::PeerEnded, _) => {
                    let inode = sockets::inode(socket);
                    held.extend(inode);
                    // A client that sends nothing more may still wait for its answers.
                    over.extend(inode.filter(|_| !progress.is_some_and(|progress| progress.busy)));
                }
                _ => {}
            }
        });
        self.handler.metrics.http.connections.set(samples.len() as i64);
        connections.retain(|peer| peers.contains(&peer), &held);
        (samples, over)
    }

    fn lane_is_full(&self) -> bool {
        let lane = self.handler.body_lane.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        lane.as_ref().is_some_and(|lane| !lane.is_empty())
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
                // Its thread reads the end and answers 408.
                Cut::SlowBody => ("request_timeout", Shutdown::Read),
                Cut::TooMany => ("max_connections", Shutdown::Both),
            };
            self.handler.metrics.refuse(limit);
            if cut == Cut::SlowBody {
                self.handler.connections.read_no_more(peer);
            }
            shut.insert(peer, how);
        }
        // One look for all of them: a thousand that fall silent together must not cost a thousand looks.
        sockets::for_each_connection(|socket, local, peer| {
            if local.port() == self.handler.port
                && let Some(&how) = shut.get(&peer)
            {
                let _ = socket.shutdown(how);
            }
        });
    }
}

/// Connections that have been over for longer than `lost_after`.
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
