//! The log of a partition's leader, asked over one term for what a trail needs to know of it.

use std::collections::HashMap;
use std::time::Duration;

use crate::broker::error::BrokerError;
use crate::broker::protocol::control::outcome_of;
use crate::broker::protocol::epochs::Question;
use crate::broker::protocol::fetch::FetchLimits;
use crate::broker::read::follow::Term;
use crate::broker::read::source::KafkaSource;
use crate::broker::record::Position;
use crate::broker::trail::{First, LeaderLog, crc_of};

/// What was read of a log in a term, by range of offsets. A quota may end a comparison at any place, and one that
/// began from the beginning each time might never end.
pub type Seen = (Term, HashMap<(i64, i64), First>);

/// A leader's log during one term.
pub struct TermLog<'a> {
    pub source: &'a mut KafkaSource,
    pub term: &'a Term,
    pub partition: i32,
    /// Its leader epoch.
    pub current: i32,
}

impl LeaderLog for TermLog<'_> {
    fn current_epoch(&self) -> i32 {
        self.current
    }

    fn end_of(&mut self, epoch: i32) -> Result<(i32, i64), BrokerError> {
        let (partition, current) = (self.partition, self.current);
        let outcomes = self.source.ask(&self.term.host, &[Question { partition, current, epoch }])?;
        outcome_of(&outcomes, partition)
            .map_err(|code| self.source.moved(partition, &self.term.host, &code.to_string()))
    }

    fn first_in(&mut self, offset: i64, until: i64) -> Result<First, BrokerError> {
        let seen = self.source.seen.get(&self.partition).filter(|(term, _)| term == self.term);
        if let Some(first) = seen.and_then(|(_, seen)| seen.get(&(offset, until))) {
            return Ok(*first);
        }
        let first = self.read_first(offset, until)?;
        let seen =
            self.source.seen.entry(self.partition).or_insert_with(|| (self.term.clone(), HashMap::new()));
        if seen.0 != *self.term {
            *seen = (self.term.clone(), HashMap::new());
        }
        seen.1.insert((offset, until), first);
        Ok(first)
    }
}

impl TermLog<'_> {
    fn read_first(&mut self, mut offset: i64, until: i64) -> Result<First, BrokerError> {
        while offset < until {
            let position = Position { partition: self.partition, offset };
            let limits = FetchLimits { one_batch: true, ..self.source.limits(Duration::ZERO) };
            let fetched = self.source.fetch_at_once(&self.term.host, &[position], limits)?;
            let page = match fetched.into_iter().next().map(|fetched| fetched.page) {
                Some(Ok(page)) => page,
                Some(Err(BrokerError::OffsetOutOfRange(_) | BrokerError::Unreadable(_))) => {
                    return Ok(First::Unknown);
                }
                Some(Err(error)) => return Err(error),
                None => return Err(self.source.moved(self.partition, &self.term.host, "no answer")),
            };
            if let Some((at, value)) = page.records().find(|(at, _)| *at >= offset) {
                return Ok(if at < until { First::Record(at, crc_of(value)) } else { First::Nothing });
            }
            if page.next_offset <= offset {
                // A new leader gives out nothing until its replicas have what it has (KIP-207).
                let why = "its leader does not yet give out what it has";
                return Err(self.source.moved(self.partition, &self.term.host, why));
            }
            offset = page.next_offset;
        }
        Ok(First::Nothing)
    }
}
