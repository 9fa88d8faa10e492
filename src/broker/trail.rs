//! Remembers what was read of a partition, to detect a log that lost or replaced some of it. Does no I/O.
//!
//! It keeps only a few marks: offsets and checksums of records. A leader gives every record its leader epoch.
//! A log has what we read in an epoch if it reaches as far in it, and if the records at our marks are still the
//! ones that we read. The marks are needed because an epoch can be used again for other records: by a log
//! restored from a copy, and by a broker that was killed, lost the end of its log and leads again in the same
//! epoch.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::broker::error::{Parting, Result};
use crate::broker::page::Page;

/// Epochs that are remembered in each partition, the newest ones.
const MAX_SPANS: usize = 8;

/// Marks that are kept in the newest epoch, in the one before it, and in each older one. They become rarer with
/// the distance from the end, so that what was lost there is found to within a multiple of its length.
const MAX_MARKS: [usize; 3] = [16, 8, 2];

/// The records of one leader epoch that were read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Row", into = "Row")]
struct Span {
    epoch: i32,
    /// First offset read in this epoch, and the one after the last. There may be no record at either.
    begin: i64,
    end: i64,
    /// Some of its records, in order: always the first and the last, if there are any.
    marks: Vec<Mark>,
}

/// A span as the checkpoint has it, which is written often: without names.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Row {
    /// Each mark by its distance from the end, which has fewer digits than its offset.
    Marks(i32, i64, i64, Vec<(i64, u32)>),
    /// As earlier builds wrote it, with the offsets of the first and the last record.
    Ends(i32, i64, i64, Option<(i64, u32)>, Option<(i64, u32)>),
}

impl From<Row> for Span {
    fn from(row: Row) -> Self {
        let (epoch, begin, end, mut marks) = match row {
            Row::Marks(epoch, begin, end, marks) => {
                let mark = |(back, crc): (i64, u32)| Mark { offset: end.saturating_sub(back), crc };
                (epoch, begin, end, marks.into_iter().map(mark).collect::<Vec<_>>())
            }
            Row::Ends(epoch, begin, end, first, last) => {
                let marks = [first, last].into_iter().flatten().map(|(offset, crc)| Mark { offset, crc });
                (epoch, begin, end, marks.collect())
            }
        };
        marks.dedup();
        Self { epoch, begin, end, marks }
    }
}

impl From<Span> for Row {
    fn from(Span { epoch, begin, end, marks }: Span) -> Self {
        Self::Marks(epoch, begin, end, marks.iter().map(|mark| (end - mark.offset, mark.crc)).collect())
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
    /// The epoch in which it is led now.
    fn current_epoch(&self) -> i32;

    /// Returns the largest epoch in the log up to `epoch`, and the offset after its last record.
    fn end_of(&mut self, epoch: i32) -> Result<(i32, i64)>;

    /// The first record from `offset` on and before `until`.
    fn first_in(&mut self, offset: i64, until: i64) -> Result<First>;
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
            let found = page.spread_over(begin, end).into_iter();
            let marks = found.map(|(offset, value)| Mark { offset, crc: crc_of(value) });
            match self.spans.last_mut() {
                Some(span) if span.epoch == epoch => {
                    span.end = end;
                    span.marks.extend(marks);
                }
                _ => self.spans.push(Span { epoch, begin, end, marks: marks.collect() }),
            }
        }
        let excess = self.spans.len().saturating_sub(MAX_SPANS);
        self.spans.drain(..excess);
        let kept = MAX_MARKS.into_iter().chain(std::iter::repeat(MAX_MARKS[2]));
        self.spans.iter_mut().rev().zip(kept).for_each(|(span, max)| span.thin_out(max));
    }

    /// Forgets what was read from `offset` on.
    pub fn back_to(&mut self, offset: i64) {
        self.spans.retain(|span| span.begin < offset);
        if let Some(span) = self.spans.last_mut().filter(|span| span.end > offset) {
            span.end = offset;
            span.marks.retain(|mark| mark.offset < offset);
        }
    }

    /// Offset after the last record that is remembered.
    pub fn end(&self) -> Option<i64> {
        self.spans.last().map(|span| span.end)
    }

    /// Leader epoch that was read last.
    pub fn last_epoch(&self) -> Option<i32> {
        self.spans.last().map(|span| span.epoch)
    }

    /// Checks whether `log` still has everything in this trail; `None` if so, as far as can be determined.
    ///
    /// # Errors
    /// Fails if the log cannot be queried.
    pub(crate) fn parting(&self, log: &mut impl LeaderLog) -> Result<Option<Parting>> {
        let Some(oldest) = self.spans.first() else { return Ok(None) };
        let mut is_all = true;
        for span in self.spans.iter().rev() {
            let (epoch, end) = log.end_of(span.epoch)?;
            if epoch == span.epoch
                && let Some(common) = span.common_end(end, log)?
            {
                return Ok((!is_all || common < span.end).then_some(Parting::At(common)));
            }
            // A copy made of a compacted log does not know an epoch without records.
            let is_emptied = epoch < span.epoch && end >= span.end;
            is_all &= is_emptied && log.first_in(span.begin, span.end)? == First::Nothing;
        }
        Ok(Some(Parting::Before(oldest.begin)))
    }
}

impl Span {
    /// Offset up to which `log`, in which this epoch ends at `end`, has the same records; `None` if it has none of
    /// them. Where this cannot be said exactly, it is too small rather than too large.
    fn common_end(&self, end: i64, log: &mut impl LeaderLog) -> Result<Option<i64>> {
        let reached = self.end.min(end);
        // An epoch that ends ahead of ours is another one of the same number.
        if reached <= self.begin {
            return Ok(None);
        }
        let marks = &self.marks[..self.marks.partition_point(|mark| mark.offset < reached)];
        // It lost its end, and may have written other records since, up to where it ends now.
        let was_cut = reached < self.end && log.current_epoch() == self.epoch;
        if let ([first, ..], [.., last], false) = (marks, marks, was_cut)
            && last.is_in(log)? == Some(true)
            && first.is_in(log)? != Some(false)
        {
            return Ok(Some(reached));
        }
        let mut common = None;
        for mark in marks {
            match mark.is_in(log)? {
                Some(true) => common = Some(mark.offset + 1),
                Some(false) => return Ok(common),
                // Retention and compaction take records away; what is left decides.
                None => {}
            }
        }
        Ok(if was_cut { common } else { Some(reached) })
    }

    /// Drops marks until `max` are left, each time the one that leaves the smallest gap, as the ratio of its ends'
    /// distances from the end.
    fn thin_out(&mut self, max: usize) {
        while self.marks.len() > max {
            let distance = |at: usize| (self.end - self.marks[at].offset) as f64;
            let gap = |at: &usize| distance(at - 1) / distance(at + 1);
            let inner = 1..self.marks.len() - 1;
            let Some(least) = inner.min_by(|a, b| gap(a).total_cmp(&gap(b))) else { return };
            self.marks.remove(least);
        }
    }
}

impl Mark {
    /// Whether `log` has this record; `None` if what was there is gone.
    fn is_in(&self, log: &mut impl LeaderLog) -> Result<Option<bool>> {
        Ok(match log.first_in(self.offset, self.offset + 1)? {
            First::Record(_, crc) => Some(crc == self.crc),
            First::Nothing | First::Unknown => None,
        })
    }
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
