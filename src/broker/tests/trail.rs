//! Logs that were cut, went on, or were replaced, against what was read of them.

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

    fn first_in(&mut self, offset: i64, _: i64) -> Result<First, BrokerError> {
        let record = self.records.get(offset as usize).filter(|_| offset >= self.earliest);
        Ok(record.map_or(First::Unknown, |(_, value)| First::Record(offset, crc_of(value.as_bytes()))))
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
    let mut unknown = Page::new(100, 0);
    unknown.push(100, None, b"x");
    trail.cover(&unknown, 101);
    assert_eq!(trail, Trail::default());
}

#[test]
fn an_epoch_that_compaction_emptied_is_still_the_same() {
    /// Epochs 2 (0..50) and 4 (60..80). What epoch 3 had is gone, so a copy made later does not know it.
    struct Rebuilt {
        /// Without it, epoch 2 went on up to 60 with records that were not read.
        is_emptied: bool,
    }
    impl LeaderLog for Rebuilt {
        fn end_of(&mut self, epoch: i32) -> Result<(i32, i64), BrokerError> {
            Ok(if epoch < 4 { (2, 60) } else { (4, 80) })
        }
        fn first_in(&mut self, offset: i64, until: i64) -> Result<First, BrokerError> {
            let is_gone = offset >= 50 && until <= 60;
            let other = if is_gone { "other" } else { "x" };
            Ok(match is_gone {
                true if self.is_emptied => First::Nothing,
                _ => First::Record(offset, crc_of(other.as_bytes())),
            })
        }
    }
    let mut read = Trail::default();
    let mut page = Page::new(0, 80);
    for (epoch, end) in [(2, 50), (3, 60)] {
        (page.next_offset..end).for_each(|offset| page.push(offset, None, b"x"));
        page.reach(epoch, end);
    }
    read.cover(&page, 60);
    assert_eq!(read.parting(&mut Rebuilt { is_emptied: true }).expect("it answers"), None);
    let parted = read.parting(&mut Rebuilt { is_emptied: false }).expect("it answers");
    assert_eq!(parted, Some(Parting::At(50)));
}

#[test]
fn equal_bytes_at_the_last_offset_do_not_hide_another_first_record() {
    let trail = trail(&READ, 0, 6);
    let again = [&READ[..4], &[(3, "other"), (3, "f"), (3, "g")]].concat();
    assert_eq!(parting(&trail, &mut log(&again)), Some(Parting::At(4)));
}
