//! The decisions about where to start reading, row by row.

use crate::broker::{Bounds, Compared, Found, Parting};
use crate::config::OffsetReset;
use crate::consumer::progress::Offsets;
use crate::consumer::start::{self, Start, Topic};

const BOUNDS: [Bounds; 2] =
    [Bounds { partition: 0, earliest: 10, latest: 20 }, Bounds { partition: 3, earliest: 0, latest: 0 }];

fn topic(reset: OffsetReset) -> Topic<'static> {
    Topic { name: "t", bounds: BOUNDS.to_vec(), reset, ..super::topic() }
}

fn decide(checkpoint: &Offsets, topic: Topic<'_>) -> Result<Start, String> {
    start::decide(Some(checkpoint), &topic)
}

fn start(checkpoint: Option<Offsets>, committed: &[(i32, i64)], unread: &[i32]) -> Start {
    let committed = committed.iter().copied().collect();
    let topic = Topic { committed, unread: unread.to_vec(), ..topic(OffsetReset::None) };
    start::decide(checkpoint.as_ref(), &topic).expect("starts")
}

fn offsets(checkpoint: Option<Offsets>, committed: &[(i32, i64)]) -> Offsets {
    start(checkpoint, committed, &[]).offsets
}

#[test]
fn the_checkpoint_wins_over_the_group_and_the_group_over_the_earliest() {
    assert_eq!(offsets(Some(Offsets::from([(0, 15), (3, 0)])), &[(0, 12)]), [(0, 15), (3, 0)].into());
    assert_eq!(offsets(Some(Offsets::from([(0, 15)])), &[(0, 12)]), [(0, 15), (3, 0)].into());
    assert_eq!(offsets(None, &[(0, 20)]), [(0, 20), (3, 0)].into());
    assert_eq!(offsets(None, &[]), [(0, 10), (3, 0)].into());
}

#[test]
fn a_partition_that_cannot_be_asked_keeps_its_place() {
    let known = start(Some(Offsets::from([(0, 15), (4, 99)])), &[(5, 7)], &[4, 5, 6]);
    assert_eq!(
        known.offsets,
        [(0, 15), (3, 0), (4, 99), (5, 7)].into(),
        "partition 6 starts at its earliest offset, once it answers"
    );
}

#[test]
fn an_offset_that_the_topic_lacks_is_refused_with_the_ways_out() {
    for (wanted, word) in [(9, "1 offsets were deleted"), (21, "recreated")] {
        let checkpoint = Offsets::from([(0, wanted)]);
        let decide = |reset| decide(&checkpoint, topic(reset));
        let reason = decide(OffsetReset::None).unwrap_err();
        assert!(reason.contains(word) && reason.contains("KAFKA_AUTO_OFFSET_RESET"), "{reason}");
        let start = decide(OffsetReset::Earliest).expect("continues");
        assert_eq!((start.offsets[&0], start.warnings.len()), (10, 1));
    }
}

#[test]
fn a_topic_created_again_is_begun_where_another_log_has_stopped_in_it() {
    let bounds = [BOUNDS[0]];
    let begin = |taken_over: &Offsets, bounds: &[Bounds], reset| {
        let (bounds, taken_over) = (bounds.to_vec(), taken_over.clone());
        let start = start::from_the_beginning(&Topic { bounds, taken_over, ..topic(reset) });
        start.map(|start| start.offsets)
    };
    let taken_over = Offsets::from([(0, 15)]);
    assert_eq!(begin(&taken_over, &bounds, OffsetReset::None), Ok([(0, 15)].into()));
    assert!(begin(&taken_over, &BOUNDS, OffsetReset::None).is_err(), "3 was not taken over");
    assert_eq!(begin(&taken_over, &BOUNDS, OffsetReset::Earliest), Ok([(0, 15), (3, 0)].into()));
    assert!(begin(&Offsets::from([(0, 21)]), &bounds, OffsetReset::None).is_err());
}

#[test]
fn a_partition_that_vanished_means_another_topic() {
    let checkpoint = Offsets::from([(7, 1)]);
    let reason = decide(&checkpoint, topic(OffsetReset::Earliest)).unwrap_err();
    assert!(reason.contains("no partition 7"), "{reason}");
}

fn start_at(next: i64, compared: Compared, reset: OffsetReset) -> Result<Start, String> {
    decide(&[(0, next), (3, 0)].into(), Topic { compared: vec![compared], ..topic(reset) })
}

#[test]
fn a_log_that_parted_is_refused_or_followed_from_there_or_from_its_beginning() {
    let parted = |parting: Parting, reset: OffsetReset| {
        let compared = Compared { partition: 0, found: Found::Parted(parting) };
        start_at(19, compared, reset)
    };
    let refused = parted(Parting::At(13), OffsetReset::None).unwrap_err();
    for words in ["t partition 0", "from offset 13 up to 18", "divergence", "earliest"] {
        assert!(refused.contains(words), "{words}: {refused}");
    }
    for (parting, reset, offset) in [
        (Parting::At(13), OffsetReset::Divergence, 13),
        (Parting::At(7), OffsetReset::Divergence, 10),
        (Parting::Before(10), OffsetReset::Divergence, 10),
        (Parting::At(13), OffsetReset::Earliest, 10),
        (Parting::Before(15), OffsetReset::Earliest, 10),
    ] {
        let start = parted(parting, reset).expect("continues");
        assert_eq!((start.offsets[&0], start.warnings.len()), (offset, 1));
    }
    let unknown = parted(Parting::Before(15), OffsetReset::Divergence).unwrap_err();
    assert!(unknown.contains("not known") && unknown.contains("earliest"), "{unknown}");
}

#[test]
fn an_offset_beyond_the_end_is_waited_for_if_the_log_has_all_before_it() {
    let compared = Compared { partition: 0, found: Found::Same };
    let start = start_at(21, compared, OffsetReset::None).expect("its leader gives it out later");
    assert_eq!(start.offsets[&0], 21);
}
