//! Keeps tiny_http alive and its connections in bounds, from outside: it has no limits and no timeouts of its own.
//!
//! Every half second it looks at the sockets on our port, cuts those that break a limit, counts those whose
//! thread is lost, and now and then proves with a real request that the accept loop lives.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, RecvTimeoutError};

use crate::linux::{self, TcpState};

use super::exchange::shut;
use super::front::Front;
use super::handler::Handler;
use super::plugs::Plugs;
use super::reaper::{Cut, Limits, Reaper, Sample};

/// How often connections are looked at.
const SWEEP: Duration = Duration::from_millis(500);

/// How often the accept loop has to prove that it lives.
const WATCH: Duration = Duration::from_secs(1);

/// Failed proofs in a row after which the server is built anew.
const FAILED_WATCHES: u32 = 3;

/// State of the guard's thread.
pub struct Guard {
    /// Serves the requests.
    pub handler: Arc<Handler>,
    /// What is guarded.
    pub front: Arc<Front>,
    /// Our own connections, which no limit is for.
    pub plugs: Arc<Plugs>,
    /// Limits on connections.
    pub limits: Limits,
    /// A connection that is over for so long and still not closed has lost its thread.
    pub lost_after: Duration,
    /// Lost connections past which the process has to be replaced.
    pub leak_budget: usize,
}

/// What the guard cannot mend.
#[derive(Debug)]
pub enum Alarm {
    /// The accept loop of this generation is dead.
    AcceptLoop(u64),
    /// Too many connection threads are lost.
    LeakBudget(usize),
}

impl Guard {
    /// Runs until `stop` disconnects; alarms go to `alarm`.
    pub fn run(self, stop: &Receiver<()>, mut alarm: impl FnMut(Alarm)) {
        let mut reaper = Reaper::new(self.limits);
        let mut over_since = HashMap::new();
        let (mut watched, mut failures) = (Instant::now(), 0);
        while stop.recv_timeout(SWEEP) == Err(RecvTimeoutError::Timeout) {
            let now = Instant::now();
            let (samples, over) = self.look();
            self.cut(&reaper.sweep(&samples, now, self.lane_is_full()));
            let lost = note_lost(&mut over_since, &over, now, self.lost_after);
            self.handler.metrics.http.leaked.set(lost as i64);
            if lost > self.leak_budget {
                alarm(Alarm::LeakBudget(lost));
            }
            let generation = self.front.generation();
            if self.front.take_suspicion() {
                failures = FAILED_WATCHES;
            } else if now.saturating_duration_since(watched) >= WATCH {
                watched = now;
                failures = if self.plugs.watch() { 0 } else { failures + 1 };
            }
            if failures >= FAILED_WATCHES {
                failures = 0;
                alarm(Alarm::AcceptLoop(generation));
            }
        }
    }

    /// The open client connections, and the inodes of those that are over but still held.
    fn look(&self) -> (Vec<Sample>, HashSet<u64>) {
        let own = self.plugs.addresses();
        let port = self.front.local.port();
        let (mut samples, mut peers, mut over) = (Vec::new(), HashSet::new(), HashSet::new());
        linux::for_each_socket(|socket, local, peer| {
            if local.port() != port {
                return;
            }
            let Some(counters) = linux::tcp_counters(socket) else { return };
            match (counters.state, peer) {
                (TcpState::Open, Some(peer)) if !own.contains(&peer) && peers.insert(peer) => {
                    samples.push(Sample {
                        peer,
                        counters,
                        progress: self.handler.connections.progress(peer),
                    });
                }
                (TcpState::Closing, _) => over.extend(inode(socket)),
                _ => {}
            }
        });
        self.handler.metrics.http.connections.set(samples.len() as i64);
        self.handler.connections.retain(|peer| peers.contains(&peer));
        (samples, over)
    }

    fn lane_is_full(&self) -> bool {
        let lane = self.handler.body_lane.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        lane.as_ref().is_some_and(|lane| !lane.is_empty())
    }

    fn cut(&self, cuts: &[(SocketAddr, Cut)]) {
        let port = self.front.local.port();
        for &(peer, cut) in cuts {
            let (limit, how) = match cut {
                Cut::Idle => ("idle_timeout", Shutdown::Read),
                Cut::SlowHead => ("request_timeout", Shutdown::Both),
                // Its thread reads the end and answers 408.
                Cut::SlowBody => ("request_timeout", Shutdown::Read),
                Cut::TooMany => ("max_connections", Shutdown::Both),
            };
            self.handler.metrics.refuse(limit);
            shut(port, peer, how);
        }
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

fn inode(socket: &TcpStream) -> Option<u64> {
    let owned = socket.as_fd().try_clone_to_owned().ok()?;
    Some(File::from(owned).metadata().ok()?.ino())
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
