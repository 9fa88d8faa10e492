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
    fn current_epoch(&self) -> i32 {
        self.current_epoch
    }

    fn end_of(&mut self, epoch: i32) -> Result<(i32, i64)> {
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

    fn first_in(&mut self, offset: i64, _: i64) -> Result<First> {
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
            page.mark_epoch(*epoch, next);
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
        page.mark_epoch(*epoch, offset + 1);
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
        fn current_epoch(&self) -> i32 {
            4
        }
        fn end_of(&mut self, epoch: i32) -> Result<(i32, i64)> {
            Ok(if epoch < 4 { (2, 60) } else { (4, 80) })
        }
        fn first_in(&mut self, offset: i64, until: i64) -> Result<First> {
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
        page.mark_epoch(epoch, end);
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

/// A broker that is killed can lead again in the same epoch, without what it had not forced to the disk.
#[test]
fn an_epoch_that_went_on_after_its_end_was_lost_parts_where_it_was_cut() {
    let read: Vec<(i32, &str)> = ["a", "b", "c", "d", "e", "f"].iter().map(|value| (0, *value)).collect();
    let trail = trail(&read, 0, 2);
    for kept in 1..read.len() {
        for more in 0..9 {
            let again = [&read[..kept], &vec![(0, "other"); more]].concat();
            let found = parting(&trail, &mut log(&again));
            assert_eq!(found, Some(Parting::At(kept as i64)), "{kept} kept, {more} more");
        }
    }
}

/// However much was read and lost, nothing is skipped, and only a multiple of what was lost is read again.
#[test]
fn what_was_lost_of_a_long_epoch_is_found_to_within_a_multiple() {
    /// The first `kept` records are those that were read, up to `len` there are others.
    struct Cut {
        kept: i64,
        len: i64,
        current_epoch: i32,
    }
    impl LeaderLog for Cut {
        fn current_epoch(&self) -> i32 {
            self.current_epoch
        }
        fn end_of(&mut self, epoch: i32) -> Result<(i32, i64)> {
            Ok((epoch, self.len))
        }
        fn first_in(&mut self, offset: i64, _: i64) -> Result<First> {
            let value = if offset < self.kept { format!("{offset}") } else { format!("other {offset}") };
            let is_there = offset < self.len;
            Ok(if is_there { First::Record(offset, crc_of(value.as_bytes())) } else { First::Unknown })
        }
    }
    let mut random = fastrand::Rng::with_seed(7);
    let (mut read, mut next) = (Trail::default(), 0);
    for round in 0..3_000 {
        let size = random.i64(1..=[1, 10, 500][round % 3]);
        let mut page = Page::new(next, 0);
        (next..next + size).for_each(|offset| page.push(offset, None, format!("{offset}").as_bytes()));
        next += size;
        page.mark_epoch(0, next);
        read.cover(&page, next);
        assert!(read.spans[0].marks.len() <= MAX_MARKS[0]);
        let lost = 1 << random.u32(0..20);
        let kept = (next - lost.min(next)).max(1);
        let lost = next - kept;
        if lost == 0 {
            continue;
        }
        for more in [0, 1, lost / 2, lost - 1, lost, 2 * lost] {
            let mut cut = Cut { kept, len: kept + more, current_epoch: 0 };
            let found = read.parting(&mut cut).expect("it answers");
            let Some(Parting::At(at)) = found else { panic!("{found:?}") };
            assert!(at <= kept, "{at}, but only {kept} of {next} were kept, and {more} are new");
            assert!(kept - at <= 8 * lost, "{at} of {kept}, {lost} of {next} were lost");
        }
        let mut ended = Cut { kept, len: kept, current_epoch: 1 };
        assert_eq!(read.parting(&mut ended).expect("it answers"), Some(Parting::At(kept)), "it has ended");
    }
    assert!(next > 200_000, "{next}");
    let text = serde_json::to_string(&read).expect("JSON");
    assert!(text.len() <= 400, "{} bytes: {text}", text.len());
    assert_eq!(serde_json::from_str::<Trail>(&text).expect("it is read"), read);
}

#[test]
fn what_earlier_builds_wrote_is_read() {
    let text = r#"{"term":3,"epochs":[[2,0,4,[0,7],[3,8]],[3,4,5,[4,9],[4,9]],[5,5,6,null,null]]}"#;
    let read: Trail = serde_json::from_str(text).expect("it is read");
    let marks: Vec<Vec<(i64, u32)>> = read
        .spans
        .iter()
        .map(|span| span.marks.iter().map(|mark| (mark.offset, mark.crc)).collect())
        .collect();
    assert_eq!(marks, [vec![(0, 7), (3, 8)], vec![(4, 9)], vec![]]);
    let text = serde_json::to_string(&read).expect("JSON");
    assert_eq!(serde_json::from_str::<Trail>(&text).expect("it is read"), read);
}
