//! Reads on from a partition only if its log still contains what was read from it before.
//!
//! Everything that a leader returns in one epoch, over one connection, comes from one log that only grows.
//! This is called a *term*. At the start of each term the log is compared with what was read. A page counts
//! only if its term is still the same after it has arrived. To check that, we ask the broker, which answers
//! only for the epoch named in the question. No question is needed if the page continues in the leader epoch
//! that was read last.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use crate::broker::error::BrokerError;
use crate::broker::page::Page;
use crate::broker::protocol::control::{PerPartition, outcome_of};
use crate::broker::protocol::epochs::{EPOCH_ENDS, Question, epoch_ends};
use crate::broker::protocol::fetch::ONE_BATCH;
use crate::broker::protocol::metadata::Metadata;
use crate::broker::protocol::peek::peek;
use crate::broker::read::leader_log::TermLog;
use crate::broker::read::source::{KafkaSource, nothing_at_all};
use crate::broker::record::{Compared, Fetched, Found, Position};
use crate::broker::trail::LeaderLog;
use crate::broker::trail::{Trail, Trails};

/// A leader's time in office, as far as our connections to it last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Term {
    pub host: String,
    session: u64,
    /// Its leader epoch; `None` if the broker is too old to be asked.
    epoch: Option<i32>,
}

/// One call: leaders are those of one metadata answer, so that a log is read from the broker that was asked about it,
/// and no broker is waited for twice.
struct Turn {
    metadata: Arc<Metadata>,
    /// Session of each broker, or why there is none.
    sessions: HashMap<String, Result<u64, BrokerError>>,
    /// Partitions whose term has begun in this call.
    begun: HashSet<i32>,
}

impl KafkaSource {
    pub(in crate::broker) fn follow_on(
        &mut self,
        positions: &[Position],
        trails: &Trails,
    ) -> Result<Vec<Fetched>, BrokerError> {
        let all = positions.len();
        let positions = self.in_turn(positions);
        let mut turn = self.begin_turn()?;
        let (mut answers, mut proven) = (Vec::new(), Vec::new());
        for position in positions {
            let partition = position.partition;
            match self.compare_in(&mut turn, partition, trail_of(trails, partition)) {
                Ok(Compared { found: Found::Parted(parting), .. }) => {
                    answers.push(Fetched { partition, page: Err(BrokerError::Parted(parting)) });
                }
                Ok(_) => proven.push(position),
                Err(error) => answers.push(Fetched { partition, page: Err(error) }),
            }
        }
        let fetched = self.fetch_led(&turn.metadata, &proven, all);
        answers.extend(self.confirmed(&turn, fetched, &proven, trails));
        nothing_at_all(&answers).map_or(Ok(answers), Err)
    }

    pub(in crate::broker) fn compare_now(
        &mut self,
        positions: &[Position],
        trails: &Trails,
    ) -> Result<Vec<Compared>, BrokerError> {
        let mut turn = self.begin_turn()?;
        let compare =
            |at: &Position| self.compare_in(&mut turn, at.partition, trail_of(trails, at.partition));
        positions.iter().map(compare).collect()
    }

    fn begin_turn(&mut self) -> Result<Turn, BrokerError> {
        let deadline = self.cluster.request_deadline();
        let metadata = self.cluster.metadata(deadline)?;
        Ok(Turn { metadata, sessions: HashMap::new(), begun: HashSet::new() })
    }

    /// The present term of `partition`.
    fn term(&mut self, turn: &mut Turn, partition: i32) -> Result<Term, BrokerError> {
        let Some(host) = turn.metadata.leader(partition).map(str::to_owned) else {
            self.cluster.forget_leaders();
            let topic = self.cluster.topic();
            return Err(BrokerError::Retryable(format!("{topic}/{partition} has no leader")));
        };
        let session = match turn.sessions.get(&host) {
            Some(known) => known.clone()?,
            None => {
                let deadline = self.cluster.request_deadline();
                let found =
                    self.cluster.refuse_resting(&host).and_then(|()| self.cluster.session(&host, deadline));
                turn.sessions.insert(host.clone(), found.clone());
                found?
            }
        };
        let epoch = turn.metadata.epoch(partition);
        let can_be_asked = epoch >= 0 && self.cluster.serves(&host, EPOCH_ENDS.key, EPOCH_ENDS.version);
        if !can_be_asked && !std::mem::replace(&mut self.told_unchecked, true) {
            log::warn!("broker {host} is older than Kafka 2.3: a log that lost records cannot be detected");
        }
        Ok(Term { host, session, epoch: can_be_asked.then_some(epoch) })
    }

    /// Compares the log with `trail` if a new term has begun, which is that of the partition from now on unless they
    /// part.
    fn compare_in(
        &mut self,
        turn: &mut Turn,
        partition: i32,
        trail: &Trail,
    ) -> Result<Compared, BrokerError> {
        let term = self.term(turn, partition)?;
        let same_term = term.epoch.is_none() || term.epoch == trail.term();
        if self.terms.get(&partition) == Some(&term) {
            let is_known = term.epoch.is_some() && trail.last_epoch().is_some();
            let found = if is_known { Found::Same } else { Found::Unknown };
            return Ok(Compared { partition, found, same_term });
        }
        self.terms.remove(&partition);
        let found = self.found_in(&term, partition, trail).inspect_err(|error| {
            if !self.cluster.is_session(&term.host, term.session) {
                turn.sessions.insert(term.host.clone(), Err(error.clone()));
            }
        })?;
        self.seen.remove(&partition);
        if !matches!(found, Found::Parted(_)) {
            self.terms.insert(partition, term);
            turn.begun.insert(partition);
        }
        Ok(Compared { partition, found, same_term })
    }

    fn found_in(&mut self, term: &Term, partition: i32, trail: &Trail) -> Result<Found, BrokerError> {
        let (Some(current), Some(last)) = (term.epoch, trail.last_epoch()) else {
            return Ok(Found::Unknown);
        };
        let mut log = TermLog { source: self, term, partition, current };
        let parting = trail.parting(&mut log)?;
        // The data read for the comparison belongs to this term only if the term still lasts.
        log.end_of(last)?;
        if !self.cluster.is_session(&term.host, term.session) {
            return Err(self.moved(partition, &term.host, "the connection was lost meanwhile"));
        }
        Ok(parting.map_or(Found::Same, Found::Parted))
    }

    pub(in crate::broker) fn moved(&mut self, partition: i32, host: &str, why: &str) -> BrokerError {
        self.cluster.forget_leaders();
        let topic = self.cluster.topic();
        BrokerError::Retryable(format!("broker {host}: epochs of {topic}/{partition}: {why}"))
    }

    /// What may be given out of `fetched`. A page whose term has ended is left out: the next call begins another one.
    fn confirmed(
        &mut self,
        turn: &Turn,
        fetched: Vec<Fetched>,
        positions: &[Position],
        trails: &Trails,
    ) -> Vec<Fetched> {
        let read: Vec<(Position, Option<i32>)> = fetched
            .iter()
            .filter_map(|Fetched { partition, page }| {
                let page = page.as_ref().ok()?;
                let at = *positions.iter().find(|position| position.partition == *partition)?;
                let last = trails.get(partition).and_then(Trail::last_epoch);
                let first = page.epochs().first().map(|(epoch, _)| *epoch);
                let is_plain = first.is_some() && (last.is_none() || first == last);
                (page.next_offset > at.offset && !is_plain).then_some((at, last))
            })
            .collect();
        let mut ends = self.still_leads(&read);
        let mut answers = Vec::with_capacity(fetched.len());
        for Fetched { partition, page } in fetched {
            let asked = read.iter().find(|(at, _)| at.partition == partition).copied();
            let page = match page {
                Ok(page) => match self.confirm(partition, page, asked, ends.remove(&partition)) {
                    Ok(Some(page)) => Ok(page),
                    Ok(None) => {
                        self.cluster.forget_leaders();
                        self.terms.remove(&partition);
                        if !turn.begun.contains(&partition) {
                            continue;
                        }
                        let topic = self.cluster.topic();
                        Err(BrokerError::Retryable(format!("{topic}/{partition}: its leader changes")))
                    }
                    Err(error) => Err(error),
                },
                Err(error) => {
                    if let BrokerError::OffsetOutOfRange(_) = error {
                        // Perhaps the term has ended: it is compared again before anything is decided.
                        self.terms.remove(&partition);
                    }
                    Err(error)
                }
            };
            answers.push(Fetched { partition, page });
        }
        answers
    }

    /// That the leaders in whose term each position was read still lead in it, and how far the epoch reaches in their
    /// log that was read last; one request a broker.
    fn still_leads(
        &mut self,
        read: &[(Position, Option<i32>)],
    ) -> HashMap<i32, Result<Option<(i32, i64)>, BrokerError>> {
        let mut by_host: HashMap<String, Vec<Question>> = HashMap::new();
        for &(Position { partition, .. }, last) in read {
            if let Some(Term { host, epoch: Some(current), .. }) = self.terms.get(&partition) {
                let question = Question { partition, current: *current, epoch: last.unwrap_or(*current) };
                by_host.entry(host.clone()).or_default().push(question);
            }
        }
        let mut ends = HashMap::new();
        for (host, questions) in by_host {
            let outcomes = self.ask(&host, &questions);
            ends.extend(questions.iter().map(|Question { partition, .. }| {
                (*partition, outcomes.clone().map(|outcomes| outcome_of(&outcomes, *partition).ok()))
            }));
        }
        ends
    }

    /// The part of `page` that is known to be of the present term; `None` once that has ended. `asked` is where it was
    /// read and the epoch of which the leader has said the `end`.
    fn confirm(
        &mut self,
        partition: i32,
        mut page: Page,
        asked: Option<(Position, Option<i32>)>,
        end: Option<Result<Option<(i32, i64)>, BrokerError>>,
    ) -> Result<Option<Page>, BrokerError> {
        let Some(term) = self.terms.get(&partition).cloned() else { return Ok(None) };
        let end = end.transpose()?;
        if end == Some(None) {
            return Ok(None);
        }
        if let (Some((at, last)), Some(current), Some(end)) = (asked, term.epoch, end.flatten())
            && page.epochs().is_empty()
        {
            let known = last.filter(|last| end.0 == *last && end.1 > at.offset).map(|_| end);
            let extent = match known {
                Some(known) => Some(known),
                // Another leader wrote what comes next.
                None => self.extent(&term.host, current, at)?,
            };
            let Some((epoch, end)) = extent else { return Ok(None) };
            page.cut(end);
            page.reach(epoch, page.next_offset);
        }
        page.led_in(term.epoch);
        Ok(self.cluster.is_session(&term.host, term.session).then_some(page))
    }

    /// The epoch of what stands at `position`, by the header of its batch, and the offset that it ends before.
    fn extent(&mut self, host: &str, current: i32, at: Position) -> Result<Option<(i32, i64)>, BrokerError> {
        let Position { partition, offset } = at;
        let limits = self.limits(Duration::ZERO);
        let topic = self.cluster.topic().to_owned();
        let seen =
            self.cluster.on_control(host, limits.deadline, |on| peek(on, &topic, at, ONE_BATCH, limits))?;
        let Some(epoch) = seen.ok().and_then(|seen| Some(seen.headers.first()?.epoch)) else {
            return Ok(None);
        };
        if epoch < 0 {
            return Ok(Some((epoch, i64::MAX)));
        }
        let outcomes = self.ask(host, &[Question { partition, current, epoch }])?;
        let end = outcome_of(&outcomes, partition).ok();
        Ok(end.filter(|(found, end)| *found == epoch && *end > offset))
    }

    pub(in crate::broker) fn ask(
        &mut self,
        host: &str,
        questions: &[Question],
    ) -> Result<PerPartition<(i32, i64)>, BrokerError> {
        let deadline = self.cluster.request_deadline();
        let topic = self.cluster.topic().to_owned();
        self.cluster.on_control(host, deadline, |on| epoch_ends(on, &topic, questions, deadline))
    }
}

fn trail_of(trails: &Trails, partition: i32) -> &Trail {
    static UNREAD: Trail = Trail::unread();
    trails.get(&partition).unwrap_or(&UNREAD)
}
