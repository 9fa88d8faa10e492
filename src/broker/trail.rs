//! Remembers what was read of a partition, to detect a log that lost or replaced some of it. Does no I/O.
//!
//! It keeps only a few marks. A leader gives every record its leader epoch, and within one epoch a log only
//! grows. A log therefore has what we read if it reaches as far in our last epoch and if a record of that
//! epoch is still the one that we read. The record is needed because a log restored from a copy can use the
//! same epoch again for other records.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::broker::error::{BrokerError, Parting};
use crate::broker::page::Page;

/// Epochs that are remembered in each partition, the newest ones.
const MAX_SPANS: usize = 8;

/// The records of one leader epoch that were read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Row", into = "Row")]
struct Span {
    epoch: i32,
    /// First offset read in this epoch, and the one after the last. There may be no record at either.
    begin: i64,
    end: i64,
    /// First and last record of the span, if known.
    first: Option<Mark>,
    last: Option<Mark>,
}

/// A span as the checkpoint has it, which is written often: without names.
type Row = (i32, i64, i64, Option<(i64, u32)>, Option<(i64, u32)>);

impl From<Row> for Span {
    fn from((epoch, begin, end, first, last): Row) -> Self {
        let mark = |found: Option<(i64, u32)>| found.map(|(offset, crc)| Mark { offset, crc });
        Self { epoch, begin, end, first: mark(first), last: mark(last) }
    }
}

impl From<Span> for Row {
    fn from(Span { epoch, begin, end, first, last }: Span) -> Self {
        let pair = |mark: Option<Mark>| mark.map(|mark| (mark.offset, mark.crc));
        (epoch, begin, end, pair(first), pair(last))
    }
}

/// One record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mark {
    offset: i64,
    /// CRC-32 of its value.
    crc: u32,
}

/// The epochs read from one partition, oldest first, without a gap. Empty if nothing is known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trail {
    /// Leader epoch of the broker that gave out what was read last.
    term: Option<i32>,
    #[serde(rename = "epochs")]
    spans: Vec<Span>,
}

/// The trail of each partition.
pub type Trails = BTreeMap<i32, Trail>;

/// The log of a partition's leader, as far as a trail needs it.
pub(crate) trait LeaderLog {
    /// Returns the largest epoch in the log up to `epoch`, and the offset after its last record.
    fn end_of(&mut self, epoch: i32) -> Result<(i32, i64), BrokerError>;

    /// The first record from `offset` on and before `until`.
    fn first_in(&mut self, offset: i64, until: i64) -> Result<First, BrokerError>;
}

/// What a log has in some range of offsets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum First {
    /// This record: offset, and CRC-32 of its value.
    Record(i64, u32),
    /// No record: compaction removed them.
    Nothing,
    /// What was there was deleted, or cannot be read.
    Unknown,
}

impl Trail {
    /// Nothing was read.
    pub const fn unread() -> Self {
        Self { term: None, spans: Vec::new() }
    }

    /// What is read next comes from the leader of this epoch; true if that is another one than before.
    pub fn enter(&mut self, term: Option<i32>) -> bool {
        std::mem::replace(&mut self.term, term) != term
    }

    /// Leader epoch of the broker that gave out what was read last.
    pub fn term(&self) -> Option<i32> {
        self.term
    }

    /// Adds what `page` holds before `until`. Without epochs in it, nothing is known any more.
    pub fn cover(&mut self, page: &Page, until: i64) {
        self.term = page.term();
        if page.next_offset <= page.begin() {
            return;
        }
        if page.epochs().is_empty() || page.epochs().iter().any(|(epoch, _)| *epoch < 0) {
            self.spans.clear();
            return;
        }
        for &(epoch, end) in page.epochs() {
            let begin = self.spans.last().map_or(page.begin(), |span| span.end.max(page.begin()));
            let end = end.min(until);
            if end <= begin {
                continue;
            }
            let mark = |found: Option<(i64, &[u8])>| {
                found.map(|(offset, value)| Mark { offset, crc: crc_of(value) })
            };
            let [first, last] = page.ends_of(begin, end);
            match self.spans.last_mut() {
                Some(span) if span.epoch == epoch => {
                    span.end = end;
                    span.first = span.first.or_else(|| mark(first));
                    span.last = mark(last).or(span.last);
                }
                _ => self.spans.push(Span { epoch, begin, end, first: mark(first), last: mark(last) }),
            }
        }
        let excess = self.spans.len().saturating_sub(MAX_SPANS);
        self.spans.drain(..excess);
    }

    /// Forgets what was read from `offset` on.
    pub fn back_to(&mut self, offset: i64) {
        self.spans.retain(|span| span.begin < offset);
        if let Some(span) = self.spans.last_mut().filter(|span| span.end > offset) {
            let is_kept = |mark: &Mark| mark.offset < offset;
            span.end = offset;
            span.first = span.first.filter(is_kept);
            span.last = span.last.filter(is_kept).or(span.first);
        }
    }

    /// Leader epoch that was read last.
    pub fn last_epoch(&self) -> Option<i32> {
        self.spans.last().map(|span| span.epoch)
    }

    /// Checks whether `log` still has everything in this trail; `None` if so, as far as can be determined.
    ///
    /// # Errors
    /// Fails if the log cannot be queried.
    pub(crate) fn parting(&self, log: &mut impl LeaderLog) -> Result<Option<Parting>, BrokerError> {
        let Some(oldest) = self.spans.first() else { return Ok(None) };
        let mut is_all = true;
        for span in self.spans.iter().rev() {
            let (epoch, end) = log.end_of(span.epoch)?;
            let reached = span.end.min(end);
            // An epoch that ends ahead of ours is another one of the same number.
            if epoch == span.epoch && reached > span.begin && !is_other(span, reached, log)? {
                return Ok((!is_all || reached < span.end).then_some(Parting::At(reached)));
            }
            // A copy made of a compacted log does not know an epoch without records.
            let is_emptied = epoch < span.epoch && end >= span.end;
            is_all &= is_emptied && log.first_in(span.begin, span.end)? == First::Nothing;
        }
        Ok(Some(Parting::Before(oldest.begin)))
    }
}

/// True if the log has a different record at one of the marks of `span` before `reached`.
fn is_other(span: &Span, reached: i64, log: &mut impl LeaderLog) -> Result<bool, BrokerError> {
    let marks = [span.last, span.first.filter(|first| Some(*first) != span.last)];
    for mark in marks.into_iter().flatten().filter(|mark| mark.offset < reached) {
        // Retention and compaction take records away; what is left decides.
        if let First::Record(_, crc) = log.first_in(mark.offset, mark.offset + 1)?
            && crc != mark.crc
        {
            return Ok(true);
        }
    }
    Ok(false)
}

/// CRC-32 by which a record's value is recognised.
pub(crate) fn crc_of(value: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(value);
    crc.sum()
}

#[cfg(test)]
#[path = "tests/trail.rs"]
mod tests;
