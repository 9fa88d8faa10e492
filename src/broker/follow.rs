//! Reading on only where a partition's log still has what was read of it before.
//!
//! What a leader gives out in one epoch, over one connection, is one log that only grows: that is a *term*. At the
//! begin of each term the log is compared with what was read. A page counts only if its term is still the same after
//! it has come. That is asked of the broker, which answers for the epoch named in the question and for no other;
//! it is plain where the page goes on in the leader epoch of what was read last.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::client::Reach;
use super::code::Code;
use super::control::{PerPartition, outcome_of};
use super::epochs::{EPOCH_ENDS, Question, epoch_ends};
use super::peek::{ONE_BATCH, peek};
use super::source::{KafkaSource, nothing_at_all};
use super::trail::{LeaderLog, crc_of};
use super::{BrokerError, Compared, Fetched, Page, Position, Source, Trail, Trails};

/// One leader's time as far as our connections to it last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Term {
    host: String,
    session: u64,
    /// Its leader epoch; `None` if the broker is too old to be asked.
    epoch: Option<i32>,
}

impl KafkaSource {
    pub(super) fn follow_on(
        &mut self,
        positions: &[Position],
        trails: &Trails,
    ) -> Result<Vec<Fetched>, BrokerError> {
        let unread = Trail::default();
        let trail_of = |partition: i32| trails.get(&partition).unwrap_or(&unread);
        let (mut answers, mut proven) = (Vec::new(), Vec::new());
        let mut sessions = HashMap::new();
        for position in positions {
            match self.prove(*position, trail_of(position.partition), &mut sessions) {
                Ok(()) => proven.push(*position),
                Err(error) => answers.push(Fetched { partition: position.partition, page: Err(error) }),
            }
        }
        if !proven.is_empty() {
            match self.fetch(&proven) {
                Ok(fetched) => answers.extend(self.confirmed(fetched, &proven, &trail_of)),
                Err(error) => answers.extend(
                    proven.iter().map(|p| Fetched { partition: p.partition, page: Err(error.clone()) }),
                ),
            }
        }
        nothing_at_all(&answers).map_or(Ok(answers), Err)
    }

    /// Compares the log with `trail` if a new term has begun.
    fn prove(
        &mut self,
        position: Position,
        trail: &Trail,
        sessions: &mut HashMap<String, u64>,
    ) -> Result<(), BrokerError> {
        let term = self.term(position.partition, sessions)?;
        if self.terms.get(&position.partition) == Some(&term) {
            return Ok(());
        }
        self.terms.remove(&position.partition);
        if let Some(parting) = self.compare_in(&term, position, trail)?.parting {
            return Err(BrokerError::Parted(parting));
        }
        self.terms.insert(position.partition, term);
        Ok(())
    }

    /// The present term of `partition`; each broker is looked at once for all `sessions`.
    fn term(&mut self, partition: i32, sessions: &mut HashMap<String, u64>) -> Result<Term, BrokerError> {
        let deadline = self.cluster.request_deadline();
        let metadata = self.cluster.metadata(deadline)?;
        let Some(host) = metadata.leader(partition).map(str::to_owned) else {
            self.cluster.forget_leaders();
            let topic = self.cluster.topic();
            return Err(BrokerError::Retryable(format!("{topic}/{partition} has no leader")));
        };
        let session = match sessions.get(&host) {
            Some(session) => *session,
            None => {
                self.cluster.refuse_resting(&host)?;
                let session = self.cluster.session(&host, deadline)?;
                sessions.insert(host.clone(), session);
                session
            }
        };
        let epoch = metadata.epoch(partition);
        let can_be_asked = epoch >= 0 && self.cluster.serves(&host, EPOCH_ENDS.key, EPOCH_ENDS.version);
        if !can_be_asked && !std::mem::replace(&mut self.told_unchecked, true) {
            log::warn!("broker {host} is older than Kafka 2.3: a log that lost records cannot be recognised");
        }
        Ok(Term { host, session, epoch: can_be_asked.then_some(epoch) })
    }

    pub(super) fn compare_now(&mut self, position: Position, trail: &Trail) -> Result<Compared, BrokerError> {
        let partition = position.partition;
        let term = self.term(partition, &mut HashMap::new())?;
        let compared = self.compare_in(&term, position, trail)?;
        if compared.proven {
            self.terms.insert(partition, term);
        }
        Ok(compared)
    }

    fn compare_in(
        &mut self,
        term: &Term,
        Position { partition, .. }: Position,
        trail: &Trail,
    ) -> Result<Compared, BrokerError> {
        let (Some(current), Some(last)) = (term.epoch, trail.last_epoch()) else {
            let same_epoch = term.epoch.is_none();
            return Ok(Compared { partition, parting: None, proven: false, same_epoch });
        };
        let mut log = TermLog { source: self, term, partition, current };
        let parting = trail.parting(&mut log)?;
        // What was read for the comparison was of this term only if the term goes on.
        log.end_of(last)?;
        if !self.cluster.is_session(&term.host, term.session) {
            return Err(self.moved(partition, &term.host, "the connection was lost meanwhile"));
        }
        Ok(Compared { partition, parting, proven: parting.is_none(), same_epoch: current == last })
    }

    fn moved(&mut self, partition: i32, host: &str, why: &str) -> BrokerError {
        self.cluster.forget_leaders();
        self.terms.remove(&partition);
        let topic = self.cluster.topic();
        BrokerError::Retryable(format!("broker {host}: epochs of {topic}/{partition}: {why}"))
    }

    fn refused(&mut self, partition: i32, host: &str, code: Code) -> BrokerError {
        self.moved(partition, host, &code.to_string())
    }

    /// What may be given out of `fetched`.
    fn confirmed<'t>(
        &mut self,
        fetched: Vec<Fetched>,
        positions: &[Position],
        trail_of: &impl Fn(i32) -> &'t Trail,
    ) -> Vec<Fetched> {
        let asked = |partition: i32| positions.iter().find(|position| position.partition == partition);
        let read: Vec<(Position, Option<i32>, bool)> = fetched
            .iter()
            .filter_map(|Fetched { partition, page }| {
                let (page, position) = (page.as_ref().ok()?, *asked(*partition)?);
                let last = trail_of(*partition).last_epoch();
                let first = page.epochs().first().map(|(epoch, _)| *epoch);
                let is_plain = first.is_some() && (last.is_none() || first == last);
                (page.next_offset > position.offset && !is_plain).then_some((position, last, first.is_none()))
            })
            .collect();
        let mut ends = self.ends(&read);
        fetched
            .into_iter()
            .map(|Fetched { partition, page }| {
                let Some(position) = asked(partition) else { return Fetched { partition, page } };
                let end = ends.remove(&partition);
                let page = page.and_then(|page| self.confirm(page, *position, end));
                Fetched { partition, page }
            })
            .collect()
    }

    /// How far the epoch reaches in which each partition was read on, and that its term goes on; one request a broker.
    fn ends(&mut self, read: &[(Position, Option<i32>, bool)]) -> HashMap<i32, Result<Extent, BrokerError>> {
        let mut by_host: HashMap<String, Vec<Question>> = HashMap::new();
        let mut ends = HashMap::new();
        for &(position, last, is_unknown) in read {
            let partition = position.partition;
            let Some((host, current)) = self.asked_of(partition) else { continue };
            match last {
                Some(epoch) => by_host.entry(host).or_default().push(Question { partition, current, epoch }),
                None => drop(ends.insert(partition, self.extent_at(&host, current, position))),
            }
            debug_assert!(last.is_some() || is_unknown, "without a trail there is nothing to follow");
        }
        for (host, questions) in by_host {
            let outcomes = self.ask(&host, &questions);
            for Question { partition, current, epoch } in questions {
                let found = outcomes.clone().and_then(|outcomes| {
                    outcome_of(&outcomes, partition).map_err(|code| self.refused(partition, &host, code))
                });
                let Some(&(position, _, is_unknown)) =
                    read.iter().find(|(position, ..)| position.partition == partition)
                else {
                    continue;
                };
                let reach = match found {
                    Ok((found, end)) if found == epoch && (end > position.offset || !is_unknown) => {
                        Ok(Extent { epoch, end })
                    }
                    // Another leader wrote what comes next.
                    Ok(_) if is_unknown => self.extent_at(&host, current, position),
                    Ok((found, end)) => Ok(Extent { epoch: found, end }),
                    Err(error) => Err(error),
                };
                ends.insert(partition, reach);
            }
        }
        ends
    }

    fn asked_of(&self, partition: i32) -> Option<(String, i32)> {
        let term = self.terms.get(&partition)?;
        Some((term.host.clone(), term.epoch?))
    }

    /// The epoch of what stands at `position`, by the header of its batch.
    fn extent_at(&mut self, host: &str, current: i32, position: Position) -> Result<Extent, BrokerError> {
        let Position { partition, offset } = position;
        let deadline = self.cluster.request_deadline();
        let topic = self.cluster.topic().to_owned();
        let reach = Reach { wait: Duration::ZERO, max_bytes: self.max_bytes, deadline };
        let seen = self
            .cluster
            .on_control(host, deadline, |on| peek(on, &topic, (partition, offset), ONE_BATCH, reach))?
            .map_err(|code| self.refused(partition, host, code))?;
        let Some(header) = seen.headers.first() else {
            return Err(self.moved(partition, host, "nothing is there any more"));
        };
        let epoch = header.epoch;
        if epoch < 0 {
            return Ok(Extent { epoch, end: i64::MAX });
        }
        let outcomes = self.ask(host, &[Question { partition, current, epoch }])?;
        match outcome_of(&outcomes, partition).map_err(|code| self.refused(partition, host, code))? {
            (found, end) if found == epoch && end > offset => Ok(Extent { epoch, end }),
            _ => Err(self.moved(partition, host, "its log changes")),
        }
    }

    fn ask(&mut self, host: &str, questions: &[Question]) -> Result<PerPartition<(i32, i64)>, BrokerError> {
        let deadline: Instant = self.cluster.request_deadline();
        let topic = self.cluster.topic().to_owned();
        self.cluster.on_control(host, deadline, |on| epoch_ends(on, &topic, questions, deadline))
    }

    /// The part of `page`, which was read on from `position`, that is known to be of the present term.
    fn confirm(
        &mut self,
        mut page: Page,
        position: Position,
        reach: Option<Result<Extent, BrokerError>>,
    ) -> Result<Page, BrokerError> {
        let is_same = self
            .terms
            .get(&position.partition)
            .is_some_and(|term| self.cluster.is_session(&term.host, term.session));
        let reach = reach.transpose()?;
        if !is_same {
            self.terms.remove(&position.partition);
            return Ok(Page::new(position.offset, page.high_watermark));
        }
        if let Some(Extent { epoch, end }) = reach
            && page.epochs().is_empty()
        {
            page.cut(end);
            page.reach(epoch, page.next_offset);
        }
        Ok(page)
    }
}

/// An epoch and the offset that it ends before in a leader's log.
#[derive(Clone, Copy)]
struct Extent {
    epoch: i32,
    end: i64,
}

/// A leader's log during one term.
struct TermLog<'a> {
    source: &'a mut KafkaSource,
    term: &'a Term,
    partition: i32,
    current: i32,
}

impl LeaderLog for TermLog<'_> {
    fn end_of(&mut self, epoch: i32) -> Result<(i32, i64), BrokerError> {
        let (partition, current) = (self.partition, self.current);
        let outcomes = self.source.ask(&self.term.host, &[Question { partition, current, epoch }])?;
        outcome_of(&outcomes, partition).map_err(|code| self.source.refused(partition, &self.term.host, code))
    }

    fn crc_at(&mut self, offset: i64) -> Result<Option<u32>, BrokerError> {
        let fetched = self.source.fetch_from(
            &self.term.host,
            &[Position { partition: self.partition, offset }],
            Duration::ZERO,
        )?;
        let page = match fetched.into_iter().next().map(|fetched| fetched.page) {
            Some(Ok(page)) => page,
            Some(Err(BrokerError::OffsetOutOfRange(_) | BrokerError::Unreadable(_))) => return Ok(None),
            Some(Err(error)) => return Err(error),
            None => return Err(self.source.moved(self.partition, &self.term.host, "no answer")),
        };
        let first = page.records().find(|(at, _)| *at >= offset);
        match first {
            Some((at, value)) => Ok((at == offset).then(|| crc_of(value))),
            // A new leader gives out nothing until its replicas have what it has (KIP-207).
            None if page.next_offset <= offset => Err(self.source.moved(
                self.partition,
                &self.term.host,
                "its leader does not yet give out what it has",
            )),
            None => Ok(None),
        }
    }
}
