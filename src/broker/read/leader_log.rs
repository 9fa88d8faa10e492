//! The log of a partition's leader, read during one term for a comparison with what was read before.

use std::collections::HashMap;
use std::time::Duration;

use crate::broker::error::{BrokerError, Result};
use crate::broker::protocol::{FetchLimits, Question, outcome_of};
use crate::broker::read::fetch::Fetcher;
use crate::broker::record::Position;
use crate::broker::trail::{First, LeaderLog, crc_of};

/// A leader's time in office, as far as our connections to it last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Term {
    pub host: String,
    pub session: u64,
    /// Its leader epoch; `None` if the broker is too old to be asked.
    pub epoch: Option<i32>,
}

/// What was read of a log in a term, by range of offsets. A quota may end a comparison at any place, and one
/// that began from the beginning each time might never end.
pub struct Progress {
    pub term: Term,
    pub found: HashMap<(i64, i64), First>,
}

/// A leader's log during one term.
pub struct TermLog<'a> {
    pub fetcher: &'a mut Fetcher,
    pub progress: &'a mut Progress,
    pub partition: i32,
    /// Leader epoch of the term.
    pub current: i32,
}

impl LeaderLog for TermLog<'_> {
    fn current_epoch(&self) -> i32 {
        self.current
    }

    fn end_of(&mut self, epoch: i32) -> Result<(i32, i64)> {
        let (partition, current) = (self.partition, self.current);
        let host = &self.progress.term.host;
        let outcomes = self.fetcher.epoch_ends(host, &[Question { partition, current, epoch }])?;
        outcome_of(&outcomes, partition).map_err(|code| self.leader_changed(&code.to_string()))
    }

    fn first_in(&mut self, offset: i64, until: i64) -> Result<First> {
        if let Some(first) = self.progress.found.get(&(offset, until)) {
            return Ok(*first);
        }
        let first = self.read_first(offset, until)?;
        self.progress.found.insert((offset, until), first);
        Ok(first)
    }
}

impl TermLog<'_> {
    /// The error if the term may have ended; leaders are then looked up again.
    pub fn leader_changed(&mut self, why: &str) -> BrokerError {
        self.fetcher.cluster.forget_leaders();
        let (host, topic) = (&self.progress.term.host, self.fetcher.cluster.topic());
        BrokerError::Retryable(format!("broker {host}: epochs of {topic}/{}: {why}", self.partition))
    }

    fn read_first(&mut self, mut offset: i64, until: i64) -> Result<First> {
        while offset < until {
            let position = Position { partition: self.partition, offset };
            let limits = FetchLimits { one_batch: true, ..self.fetcher.limits(Duration::ZERO) };
            let fetched = self.fetcher.fetch_at_once(&self.progress.term.host, &[position], limits)?;
            let page = match fetched.into_iter().next().map(|fetched| fetched.page) {
                Some(Ok(page)) => page,
                Some(Err(BrokerError::OffsetOutOfRange(_) | BrokerError::Unreadable(_))) => {
                    return Ok(First::Unknown);
                }
                Some(Err(error)) => return Err(error),
                None => return Err(self.leader_changed("no answer")),
            };
            if let Some((at, value)) = page.records().find(|(at, _)| *at >= offset) {
                return Ok(if at < until { First::Record(at, crc_of(value)) } else { First::Nothing });
            }
            if page.next_offset <= offset {
                // A new leader returns nothing until its replicas have what it has (KIP-207).
                return Err(self.leader_changed("its leader does not yet give out what it has"));
            }
            offset = page.next_offset;
        }
        Ok(First::Nothing)
    }
}
