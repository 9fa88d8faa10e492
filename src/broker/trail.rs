//! What was read of a partition, in a few marks by which a log that lost or replaced some of it is recognised. Pure.
//!
//! A leader gives every record its leader epoch, and within one epoch a log only grows. So a log has what we read if it
//! reaches as far in our last epoch, and if a record of that epoch is still the one that we read: a log restored from a
//! copy can use the same epoch again for other records.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{BrokerError, Page};

/// Epochs that are remembered in each partition, the newest ones.
const MAX_SPANS: usize = 16;

/// The records of one leader epoch that were read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Span {
    epoch: i32,
    /// First offset read in this epoch, and the one after the last; either may have had no record.
    begin: i64,
    end: i64,
    /// First and last record of the span, as far as known.
    first: Option<Mark>,
    last: Option<Mark>,
}

/// One record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Mark {
    offset: i64,
    /// CRC-32 of its value.
    crc: u32,
}

/// The epochs that were read of one partition, oldest first, without a gap. Empty when nothing is known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Trail {
    spans: Vec<Span>,
}

/// What was read of each partition.
pub type Trails = BTreeMap<i32, Trail>;

/// Where a leader's log and what was read of the partition part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parting {
    /// The same up to this offset, not from there on.
    At(i64),
    /// Nothing that is remembered is in the log any more, and it begins at this offset.
    Before(i64),
}

/// The log of a partition's leader, as far as a trail asks for it.
pub(crate) trait LeaderLog {
    /// The largest epoch up to `epoch` that the log has, and the offset after its last record.
    fn end_of(&mut self, epoch: i32) -> Result<(i32, i64), BrokerError>;

    /// CRC-32 of the value of the record at `offset`; `None` if it is gone.
    fn crc_at(&mut self, offset: i64) -> Result<Option<u32>, BrokerError>;
}

impl Trail {
    /// Adds what `page` holds before `until`. Without epochs in it, nothing is known any more.
    pub fn cover(&mut self, page: &Page, until: i64) {
        if page.epochs().is_empty() || page.epochs().iter().any(|(epoch, _)| *epoch < 0) {
            self.spans.clear();
            return;
        }
        for &(epoch, end) in page.epochs() {
            let begin = self.spans.last().map_or(page.begin, |span| span.end.max(page.begin));
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

    /// Leader epoch of what was read last.
    pub fn last_epoch(&self) -> Option<i32> {
        self.spans.last().map(|span| span.epoch)
    }

    /// Whether `log` still has all of it; `None` if so, as far as can be told.
    ///
    /// # Errors
    /// When the log cannot be asked.
    pub(crate) fn parting(&self, log: &mut impl LeaderLog) -> Result<Option<Parting>, BrokerError> {
        let Some(oldest) = self.spans.first() else { return Ok(None) };
        for (age, span) in self.spans.iter().rev().enumerate() {
            let (epoch, end) = log.end_of(span.epoch)?;
            let reached = span.end.min(end);
            // An epoch that ends ahead of ours is another one of the same number.
            if epoch != span.epoch || reached <= span.begin || is_other(span, reached, log)? {
                continue;
            }
            return Ok((age > 0 || reached < span.end).then_some(Parting::At(reached)));
        }
        Ok(Some(Parting::Before(oldest.begin)))
    }
}

/// True if the log has another record at the place of one of `span` before `reached`.
fn is_other(span: &Span, reached: i64, log: &mut impl LeaderLog) -> Result<bool, BrokerError> {
    for mark in [span.last, span.first].into_iter().flatten().filter(|mark| mark.offset < reached) {
        // Retention and compaction take records away; what is left decides.
        if let Some(crc) = log.crc_at(mark.offset)? {
            return Ok(crc != mark.crc);
        }
    }
    Ok(false)
}

/// CRC-32 by which a record's value is known again.
pub(crate) fn crc_of(value: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(value);
    crc.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A log as records of `(epoch, value)`, some of them gone.
    struct Log {
        records: Vec<(i32, &'static str)>,
        /// Offsets below it were deleted.
        earliest: i64,
        current_epoch: i32,
    }

    impl LeaderLog for Log {
        fn end_of(&mut self, epoch: i32) -> Result<(i32, i64), BrokerError> {
            // As LeaderEpochFileCache.endOffsetFor answers.
            let kept = || self.records.iter().zip(0..).filter(|(_, offset)| *offset >= self.earliest);
            let mut starts: Vec<(i32, i64)> = kept().map(|((epoch, _), offset)| (*epoch, offset)).collect();
            starts.push((self.current_epoch, self.records.len() as i64));
            starts.dedup_by_key(|(epoch, _)| *epoch);
            if epoch > self.current_epoch {
                return Ok((-1, -1));
            }
            let next = starts.iter().find(|(other, _)| *other > epoch);
            let end = next.map_or(self.records.len() as i64, |(_, start)| *start);
            let floor = starts.iter().rev().find(|(other, _)| *other <= epoch);
            Ok((floor.map_or(epoch, |(floor, _)| *floor), end))
        }

        fn crc_at(&mut self, offset: i64) -> Result<Option<u32>, BrokerError> {
            let record = self.records.get(offset as usize).filter(|_| offset >= self.earliest);
            Ok(record.map(|(_, value)| crc_of(value.as_bytes())))
        }
    }

    fn log(records: &[(i32, &'static str)]) -> Log {
        let current_epoch = records.last().map_or(0, |(epoch, _)| *epoch);
        Log { records: records.to_vec(), earliest: 0, current_epoch }
    }

    /// What is known after reading `records` from `begin` on, in pages of `size`.
    fn trail(records: &[(i32, &'static str)], begin: i64, size: usize) -> Trail {
        let mut trail = Trail::default();
        let mut next = begin;
        for records in records[begin as usize..].chunks(size) {
            let mut page = Page::new(next, 0);
            for (epoch, value) in records {
                page.push(next, None, value.as_bytes());
                next += 1;
                page.reach(*epoch, next);
            }
            trail.cover(&page, i64::MAX);
        }
        trail
    }

    const READ: [(i32, &str); 6] = [(0, "a"), (0, "b"), (2, "c"), (2, "d"), (3, "e"), (3, "f")];

    fn parting(of: &Trail, log: &mut Log) -> Option<Parting> {
        of.parting(log).expect("it answers")
    }

    #[test]
    fn a_log_that_has_it_all_is_the_same_whatever_follows() {
        for size in [1, 2, 4, 6] {
            let trail = trail(&READ, 0, size);
            assert_eq!(trail, self::trail(&READ, 0, 1), "however it was read");
            assert_eq!(parting(&trail, &mut log(&READ)), None);
            let longer = [&READ[..], &[(3, "g"), (4, "h"), (9, "i")]].concat();
            assert_eq!(parting(&trail, &mut log(&longer)), None);
            for earliest in 0..9 {
                let kept = Log { earliest, ..log(&longer) };
                assert_eq!(parting(&trail, &mut { kept }), None, "deleted up to {earliest}");
            }
            assert_eq!(parting(&trail, &mut Log { current_epoch: 7, ..log(&READ) }), None, "a new leader");
        }
    }

    #[test]
    fn a_log_that_was_cut_parts_where_it_was_cut_also_when_it_has_grown_past_us() {
        let trail = trail(&READ, 0, 3);
        for kept in 1..READ.len() {
            let cut = log(&READ[..kept]);
            assert_eq!(parting(&trail, &mut { cut }), Some(Parting::At(kept as i64)), "{kept} kept");
            for more in [1, 20] {
                let other = [&READ[..kept], &vec![(5, "other"); more]].concat();
                let found = parting(&trail, &mut log(&other));
                assert_eq!(found, Some(Parting::At(kept as i64)), "{kept} kept, {more} more");
            }
        }
    }

    #[test]
    fn an_epoch_used_again_for_other_records_is_found_by_their_values() {
        let trail = trail(&READ, 0, 6);
        for kept in [2, 4] {
            for more in [1, 2, 3, 20] {
                // The copy goes on under the epochs that the lost log had.
                let others = (0..more).map(|number| (if number < more / 2 { 2 } else { 3 }, "other"));
                let epochs = others.map(|(epoch, value)| (epoch.max(READ[kept - 1].0 + 1), value));
                let again: Vec<_> = READ[..kept].iter().copied().chain(epochs).collect();
                assert_eq!(parting(&trail, &mut log(&again)), Some(Parting::At(kept as i64)), "{again:?}");
            }
        }
    }

    #[test]
    fn a_log_with_nothing_of_it_parts_before_it() {
        let read = trail(&READ, 2, 6);
        let others = [(0, "v"), (0, "w"), (2, "x"), (2, "y"), (3, "z"), (3, "z")];
        assert_eq!(parting(&read, &mut log(&others)), Some(Parting::Before(2)));
        assert_eq!(parting(&read, &mut log(&[])), Some(Parting::Before(2)));
        assert_eq!(parting(&trail(&READ, 0, 6), &mut log(&[])), Some(Parting::Before(0)));
        assert_eq!(parting(&Trail::default(), &mut log(&others)), None, "nothing is known");
    }

    #[test]
    fn after_going_back_it_is_as_if_no_more_had_been_read() {
        for back in 0..=READ.len() {
            let mut cut = trail(&READ, 0, 4);
            cut.back_to(back as i64);
            assert_eq!(parting(&cut, &mut log(&READ)), None);
            assert_eq!(parting(&cut, &mut log(&READ[..back])), None, "back to {back}");
            if back > 0 {
                let parted = parting(&cut, &mut log(&READ[..back - 1]));
                let expected = if back == 1 { Parting::Before(0) } else { Parting::At(back as i64 - 1) };
                assert_eq!(parted, Some(expected), "back to {back}");
            }
        }
    }

    #[test]
    fn part_of_a_page_is_covered_as_if_it_had_ended_there() {
        let mut page = Page::new(0, 0);
        for ((epoch, value), offset) in READ.iter().zip(0..) {
            page.push(offset, None, value.as_bytes());
            page.reach(*epoch, offset + 1);
        }
        for until in 0..=READ.len() {
            let mut part = Trail::default();
            part.cover(&page, until as i64);
            assert_eq!(part, trail(&READ[..until], 0, 9), "{until}");
            part.cover(&page, i64::MAX);
            assert_eq!(part, trail(&READ, 0, 9), "and the rest");
        }
    }

    #[test]
    fn only_the_newest_epochs_are_remembered_and_unknown_ones_forget_all() {
        let many: Vec<(i32, &str)> = (0..100).map(|epoch| (epoch, "x")).collect();
        let mut trail = trail(&many, 0, 7);
        assert_eq!((trail.spans.len(), trail.spans[0].begin), (MAX_SPANS, 100 - MAX_SPANS as i64));
        trail.cover(&Page::new(100, 0), 100);
        assert_eq!(trail, Trail::default());
    }
}
