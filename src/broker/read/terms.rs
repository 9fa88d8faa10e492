//! Compares a partition's log with what was read from it, at the start of each term of its leader.
//!
//! Everything that a leader returns in one epoch, over one connection, comes from one log that only grows.
//! This is called a *term*. Within a term, no further comparison is needed.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::broker::error::{BrokerError, Result};
use crate::broker::protocol::{EPOCH_ENDS, Metadata};
use crate::broker::read::fetch::Fetcher;
use crate::broker::read::leader_log::{Progress, Term, TermLog};
use crate::broker::record::{Compared, Found};
use crate::broker::trail::{LeaderLog, Trail};

/// What is known about each partition between calls.
#[derive(Default)]
pub struct Terms {
    /// The term in which each partition was found to contain what was read from it.
    pub compared: HashMap<i32, Term>,
    /// Comparisons that are not finished.
    unfinished: HashMap<i32, Progress>,
    /// The warning about a log that cannot be compared has been logged.
    pub warned_unchecked: bool,
}

/// One call. It uses the leaders of a single metadata response, so that a log is read from the broker that
/// was asked about it, and no broker is waited for twice.
pub struct Pass<'a> {
    pub fetcher: &'a mut Fetcher,
    pub terms: &'a mut Terms,
    pub metadata: Arc<Metadata>,
    /// Session of each broker, or why there is none.
    sessions: HashMap<String, Result<u64>>,
    /// Partitions whose term has begun in this call.
    pub begun: HashSet<i32>,
}

impl<'a> Pass<'a> {
    pub fn begin(fetcher: &'a mut Fetcher, terms: &'a mut Terms) -> Result<Self> {
        let deadline = fetcher.cluster.request_deadline();
        let metadata = fetcher.cluster.metadata(deadline)?;
        Ok(Self { fetcher, terms, metadata, sessions: HashMap::new(), begun: HashSet::new() })
    }

    /// Compares the log with `trail` if a new term has begun. Unless they differ, this is the partition's term
    /// from now on.
    pub fn compare(&mut self, partition: i32, trail: &Trail) -> Result<Compared> {
        let term = self.term(partition)?;
        if self.terms.compared.get(&partition) == Some(&term) {
            let is_known = term.epoch.is_some() && trail.last_epoch().is_some();
            let found = if is_known { Found::Same } else { Found::Unknown };
            return Ok(Compared { partition, found });
        }
        self.terms.compared.remove(&partition);
        let found = self.compare_in(&term, partition, trail).inspect_err(|error| {
            if !self.fetcher.cluster.is_session(&term.host, term.session) {
                self.sessions.insert(term.host.clone(), Err(error.clone()));
            }
        })?;
        self.terms.unfinished.remove(&partition);
        if !matches!(found, Found::Parted(_)) {
            self.terms.compared.insert(partition, term);
            self.begun.insert(partition);
        }
        Ok(Compared { partition, found })
    }

    /// The present term of `partition`.
    fn term(&mut self, partition: i32) -> Result<Term> {
        let cluster = &mut self.fetcher.cluster;
        let Some(host) = self.metadata.leader(partition).map(str::to_owned) else {
            cluster.forget_leaders();
            return Err(BrokerError::Retryable(format!("{}/{partition} has no leader", cluster.topic())));
        };
        let session = match self.sessions.get(&host) {
            Some(known) => known.clone()?,
            None => {
                let deadline = cluster.request_deadline();
                let found = cluster.check_not_avoided(&host).and_then(|()| cluster.session(&host, deadline));
                self.sessions.insert(host.clone(), found.clone());
                found?
            }
        };
        let epoch = self.metadata.epoch(partition);
        let can_be_asked = epoch >= 0 && cluster.serves(&host, EPOCH_ENDS.key, EPOCH_ENDS.version);
        if !can_be_asked && !std::mem::replace(&mut self.terms.warned_unchecked, true) {
            log::warn!("broker {host} is older than Kafka 2.3: a log that lost records cannot be detected");
        }
        Ok(Term { host, session, epoch: can_be_asked.then_some(epoch) })
    }

    fn compare_in(&mut self, term: &Term, partition: i32, trail: &Trail) -> Result<Found> {
        let (Some(current), Some(last)) = (term.epoch, trail.last_epoch()) else {
            return Ok(Found::Unknown);
        };
        let new = || Progress { term: term.clone(), found: HashMap::new() };
        let progress = self.terms.unfinished.entry(partition).or_insert_with(new);
        if progress.term != *term {
            *progress = new();
        }
        let mut log = TermLog { fetcher: self.fetcher, progress, partition, current };
        let parting = trail.parting(&mut log)?;
        // The data read for the comparison belongs to this term only if the term still lasts.
        log.end_of(last)?;
        if !log.fetcher.cluster.is_session(&term.host, term.session) {
            return Err(log.leader_changed("the connection was lost meanwhile"));
        }
        Ok(parting.map_or(Found::Same, Found::Parted))
    }
}
