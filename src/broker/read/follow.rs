//! Reads on from a partition only if its log still contains what was read from it before.
//!
//! A page counts only if its term (see `terms`) is still the same after it has arrived. To check that, we ask
//! the broker, which answers only for the epoch named in the question. No question is needed if the page
//! continues in the leader epoch that was read last.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::broker::error::{BrokerError, Result};
use crate::broker::page::Page;
use crate::broker::protocol::{ONE_BATCH, Question, outcome_of, peek};
use crate::broker::read::fetch::{Fetcher, unless_all_failed};
use crate::broker::read::leader_log::Term;
use crate::broker::read::terms::{Pass, Terms};
use crate::broker::record::{Compared, Fetched, Found, Position};
use crate::broker::trail::{Trail, Trails};

/// After a fetch that took longer than this, all logs are compared again: the process may have been stopped, and a
/// topic deleted, created again and filled when no fetch was waiting that could notice it. Waiting for a quota does
/// not count, because a comparison would use it up.
const SLOW_FETCH: Duration = Duration::from_secs(1);

/// See [`crate::broker::Source::follow`].
pub fn follow(
    fetcher: &mut Fetcher,
    terms: &mut Terms,
    positions: &[Position],
    trails: &Trails,
) -> Result<Vec<Fetched>> {
    let chosen = fetcher.choose(positions);
    let mut pass = Pass::begin(fetcher, terms)?;
    let (mut answers, mut compared) = (Vec::new(), Vec::new());
    for position in chosen {
        let partition = position.partition;
        let page = match pass.compare(partition, trail_of(trails, partition)) {
            Ok(Compared { found: Found::Parted(parting), .. }) => Err(BrokerError::Parted(parting)),
            Ok(_) => {
                compared.push(position);
                continue;
            }
            Err(error) => Err(error),
        };
        answers.push(Fetched { partition, page });
    }
    let metadata = pass.metadata.clone();
    let began = Instant::now();
    let fetched = pass.fetcher.fetch_led(&metadata, &compared, positions.len());
    let elapsed = began.elapsed();
    answers.extend(pass.confirmed(fetched, &compared, trails));
    if elapsed > SLOW_FETCH {
        pass.terms.compared.clear();
    }
    unless_all_failed(answers)
}

/// See [`crate::broker::Source::compare`].
pub fn compare(
    fetcher: &mut Fetcher,
    terms: &mut Terms,
    positions: &[Position],
    trails: &Trails,
) -> Result<Vec<Result<Compared>>> {
    let mut pass = Pass::begin(fetcher, terms)?;
    let compare = |&Position { partition, offset }: &Position| {
        let trail = trail_of(trails, partition);
        match pass.compare(partition, trail) {
            // Nothing is known of what lies between the end of the trail and the offset.
            Ok(Compared { found: Found::Same, .. }) if trail.end() != Some(offset) => {
                Ok(Ok(Compared { partition, found: Found::Unknown }))
            }
            Err(error) if matches!(error, BrokerError::Throttled(..)) || !error.is_retryable() => Err(error),
            compared => Ok(compared),
        }
    };
    positions.iter().map(compare).collect()
}

impl Pass<'_> {
    /// Leaves out pages whose term has ended: the next call begins another one.
    fn confirmed(&mut self, fetched: Vec<Fetched>, positions: &[Position], trails: &Trails) -> Vec<Fetched> {
        let unclear: Vec<(Position, Option<i32>)> =
            fetched.iter().filter_map(|fetched| unclear(fetched, positions, trails)).collect();
        let mut ends = self.still_leads(&unclear);
        let confirmed = fetched.into_iter().filter_map(|Fetched { partition, page }| {
            let asked = unclear.iter().find(|(at, _)| at.partition == partition).copied();
            let page = match page {
                Ok(page) => self.confirm(partition, page, asked, ends.remove(&partition)).transpose(),
                Err(error) => {
                    if let BrokerError::OffsetOutOfRange(_) | BrokerError::Retryable(_) = error {
                        // Perhaps the term has ended, or another topic of the same name has the same epoch: the log is
                        // compared again before anything is decided.
                        self.terms.compared.remove(&partition);
                    }
                    Some(Err(error))
                }
            };
            let page = page.or_else(|| self.ended(partition).map(Err))?;
            Some(Fetched { partition, page })
        });
        confirmed.collect()
    }

    /// Forgets the term of `partition`, which has ended. That is an error if it has only just begun.
    fn ended(&mut self, partition: i32) -> Option<BrokerError> {
        self.fetcher.cluster.forget_leaders();
        self.terms.compared.remove(&partition);
        let topic = self.fetcher.cluster.topic();
        let error = || BrokerError::Retryable(format!("{topic}/{partition}: its leader changes"));
        self.begun.contains(&partition).then(error)
    }

    /// Asks whether the leaders in whose term each position was read still lead in it, and how far the epoch
    /// that was read last reaches in their logs. Sends one request per broker.
    fn still_leads(&mut self, read: &[(Position, Option<i32>)]) -> HashMap<i32, Result<Option<(i32, i64)>>> {
        let mut by_host: HashMap<String, Vec<Question>> = HashMap::new();
        for &(Position { partition, .. }, last) in read {
            if let Some(Term { host, epoch: Some(current), .. }) = self.terms.compared.get(&partition) {
                let question = Question { partition, current: *current, epoch: last.unwrap_or(*current) };
                by_host.entry(host.clone()).or_default().push(question);
            }
        }
        let mut ends = HashMap::new();
        for (host, questions) in by_host {
            let outcomes = self.fetcher.epoch_ends(&host, &questions);
            ends.extend(questions.iter().map(|Question { partition, .. }| {
                (*partition, outcomes.clone().map(|outcomes| outcome_of(&outcomes, *partition).ok()))
            }));
        }
        ends
    }

    /// Returns the part of `page` that is known to be of the present term; `None` once that has ended. `asked` is
    /// where it was read, and the epoch whose `end` the leader has reported.
    fn confirm(
        &mut self,
        partition: i32,
        mut page: Page,
        asked: Option<(Position, Option<i32>)>,
        end: Option<Result<Option<(i32, i64)>>>,
    ) -> Result<Option<Page>> {
        let Some(term) = self.terms.compared.get(&partition).cloned() else { return Ok(None) };
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
            page.mark_epoch(epoch, page.next_offset);
        }
        if page.epochs().iter().any(|(epoch, _)| *epoch < 0)
            && !std::mem::replace(&mut self.terms.warned_unchecked, true)
        {
            log::warn!(
                "partition {partition} has records in a message format older than Kafka 0.11, which has no leader \
                 epochs: a log that lost such records cannot be detected"
            );
        }
        page.set_term(term.epoch);
        Ok(self.fetcher.cluster.is_session(&term.host, term.session).then_some(page))
    }

    /// Returns the leader epoch of the batch at `at`, by its header, and the offset after the last record of that epoch.
    fn extent(&mut self, host: &str, current: i32, at: Position) -> Result<Option<(i32, i64)>> {
        let Position { partition, offset } = at;
        let limits = self.fetcher.limits(Duration::ZERO);
        let deadline = self.fetcher.cluster.request_deadline();
        let seen = self.fetcher.cluster.on_control(host, deadline, |on| peek(on, at, ONE_BATCH, limits))?;
        let Some(epoch) = seen.ok().and_then(|seen| Some(seen.headers.first()?.epoch)) else {
            return Ok(None);
        };
        if epoch < 0 {
            return Ok(Some((epoch, i64::MAX)));
        }
        let outcomes = self.fetcher.epoch_ends(host, &[Question { partition, current, epoch }])?;
        let end = outcome_of(&outcomes, partition).ok();
        Ok(end.filter(|(found, end)| *found == epoch && *end > offset))
    }
}

/// The position of a page about whose term the leader must be asked, and the epoch that was read last.
fn unclear(fetched: &Fetched, positions: &[Position], trails: &Trails) -> Option<(Position, Option<i32>)> {
    let page = fetched.page.as_ref().ok()?;
    let at = *positions.iter().find(|position| position.partition == fetched.partition)?;
    let last = trails.get(&fetched.partition).and_then(Trail::last_epoch);
    let first = page.epochs().first().map(|(epoch, _)| *epoch);
    let is_clear = first.is_some() && (last.is_none() || first == last);
    (page.next_offset > at.offset && !is_clear).then_some((at, last))
}

fn trail_of(trails: &Trails, partition: i32) -> &Trail {
    static UNREAD: Trail = Trail::unread();
    trails.get(&partition).unwrap_or(&UNREAD)
}
