//! Chooses where to start reading each partition, and handles offsets that the topic does not have. Pure.

use crate::broker::{Bounds, Compared, Found, Parting};
use crate::config::OffsetReset;
use crate::consumer::log::checkpoint::Offsets;

/// The options when another topic has the same name.
pub const RECREATED: &str = "for a recreated topic, move the log and its checkpoint away and set a new \
     KAFKA_GROUP; or set KAFKA_AUTO_OFFSET_RESET=earliest to read the topic from its beginning into the \
     same log (which duplicates events if it is still the old topic)";

/// The options when Kafka lost records that were logged.
const PARTED: &str = "KAFKA_AUTO_OFFSET_RESET=divergence continues at that offset, and events logged from \
     there on that are gone from Kafka stay in the log. KAFKA_AUTO_OFFSET_RESET=earliest reads the topic \
     from its beginning into the same log, which duplicates events";

/// Where to start reading.
#[derive(Debug, PartialEq, Eq)]
pub struct Start {
    /// Next offset of each partition.
    pub offsets: Offsets,
    /// Warnings for the operator, one sentence each.
    pub warnings: Vec<String>,
    /// The topic still has every record from these offsets on.
    pub rereadable: bool,
}

/// Chooses the first offset of each partition: the checkpoint's, else the group's committed one, else the
/// earliest.
///
/// `compared` says whether the topic still has what was read up to the checkpoint. Partitions in `unread`
/// exist but do not answer now: they start where the checkpoint or the group says, unverified, or are left
/// out.
///
/// # Errors
/// The topic does not have the offset and `reset` does not allow another one. The message lists the options.
pub fn decide(
    topic: &str,
    checkpoint: Option<&Offsets>,
    committed: &Offsets,
    (bounds, unread): (&[Bounds], &[i32]),
    compared: &[Compared],
    reset: OffsetReset,
) -> Result<Start, String> {
    let mut start = Start { offsets: Offsets::new(), warnings: Vec::new(), rereadable: true };
    if let Some(missing) = checkpoint.and_then(|offsets| {
        offsets.keys().find(|known| !unread.contains(known) && !has_bounds(bounds, **known))
    }) {
        return Err(format!(
            "topic {topic} has no partition {missing}, but the checkpoint does: the topic was recreated. \
             Move the log and its checkpoint away and set a new KAFKA_GROUP to read the new topic from its \
             beginning"
        ));
    }
    let known = |partition: &i32| {
        checkpoint.and_then(|offsets| offsets.get(partition)).or_else(|| committed.get(partition)).copied()
    };
    for partition in unread {
        start.rereadable = false;
        start.offsets.extend(known(partition).map(|offset| (*partition, offset)));
    }
    for bounds in bounds {
        let wanted = known(&bounds.partition).unwrap_or(bounds.earliest);
        let compared = compared.iter().find(|compared| compared.partition == bounds.partition);
        let (offset, warning) = match compared.map(|compared| compared.found) {
            Some(Found::Parted(parting)) => {
                let (offset, warning) = parted(topic, wanted, bounds, parting, reset)?;
                (offset, Some(warning))
            }
            // A new leader gives out all that it has a moment later.
            Some(Found::Same) if wanted > bounds.latest => (wanted, None),
            _ => in_range(topic, wanted, bounds, reset)?,
        };
        start.rereadable &= warning.is_none() && compared.is_none_or(|compared| compared.same_term);
        start.offsets.insert(bounds.partition, offset);
        start.warnings.extend(warning);
    }
    Ok(start)
}

fn has_bounds(bounds: &[Bounds], partition: i32) -> bool {
    bounds.iter().any(|bounds| bounds.partition == partition)
}

/// The start in a topic that was deleted and created again, except where another log has gone on in the new one.
///
/// # Errors
/// As for [`decide`].
pub fn from_the_beginning(
    topic: &str,
    bounds: &[Bounds],
    taken_over: &Offsets,
    reset: OffsetReset,
) -> Result<Start, String> {
    let problem = format!("topic {topic} was deleted and created again");
    let mut start = Start { offsets: Offsets::new(), warnings: Vec::new(), rereadable: false };
    for bounds in bounds {
        let offset = match (taken_over.get(&bounds.partition), reset) {
            (Some(&offset), _) => {
                let (offset, warning) = in_range(topic, offset, bounds, reset)?;
                start.warnings.extend(warning);
                offset
            }
            (None, OffsetReset::Earliest) => bounds.earliest,
            (None, OffsetReset::None | OffsetReset::Divergence) => {
                return Err(format!(
                    "{problem}, so the offsets of the checkpoint mean nothing. Options: {RECREATED}"
                ));
            }
        };
        start.offsets.insert(bounds.partition, offset);
    }
    start.warnings.push(format!("{problem}; reading the new one from its beginning into the same log"));
    Ok(start)
}

/// Returns `wanted`, or the earliest offset and a warning if the topic does not have it and `reset` allows
/// that.
///
/// # Errors
/// See [`decide`].
pub fn in_range(
    topic: &str,
    wanted: i64,
    bounds: &Bounds,
    reset: OffsetReset,
) -> Result<(i64, Option<String>), String> {
    let Bounds { partition, earliest, latest } = *bounds;
    if (earliest..=latest).contains(&wanted) {
        return Ok((wanted, None));
    }
    let (problem, way_out) = if wanted < earliest {
        (
            format!(
                "topic {topic} partition {partition}: offset {wanted} is next, but the topic now begins at \
                 {earliest}: {} offsets were deleted (retention) before they were logged",
                earliest - wanted
            ),
            "KAFKA_AUTO_OFFSET_RESET=earliest continues at the first remaining offset and reports what is \
             missing",
        )
    } else {
        (
            format!(
                "topic {topic} partition {partition}: offset {wanted} is next, but the topic ends at \
                 {latest}: it was recreated, or a broker lost acknowledged records",
            ),
            RECREATED,
        )
    };
    match reset {
        OffsetReset::None | OffsetReset::Divergence => Err(format!("{problem}. Options: {way_out}")),
        OffsetReset::Earliest => Ok((earliest, Some(format!("{problem}; continuing at offset {earliest}")))),
    }
}

/// Returns where to continue in a partition whose log has diverged before `next`, and a warning.
///
/// # Errors
/// See [`decide`].
pub fn parted(
    topic: &str,
    next: i64,
    bounds: &Bounds,
    parting: Parting,
    reset: OffsetReset,
) -> Result<(i64, String), String> {
    let Bounds { partition, earliest, latest } = *bounds;
    let (from, at) = match parting {
        Parting::At(offset) => (offset, Some(offset.max(earliest))),
        Parting::Before(offset) => (offset, (offset <= earliest).then_some(earliest)),
    };
    let problem = format!(
        "topic {topic} partition {partition}: the records logged from offset {from} up to {} are no longer \
         in the topic, which has other records there, or none, and ends at {latest}: a broker lost \
         acknowledged records (unclean leader election, power cut, data restored from a copy)",
        next - 1
    );
    let deleted = if from < earliest && at.is_some() {
        format!("; the first {} offsets from there were deleted before they were logged", earliest - from)
    } else {
        String::new()
    };
    match (reset, at) {
        (OffsetReset::Divergence, Some(at)) => {
            Ok((at, format!("{problem}{deleted}; continuing at offset {at}")))
        }
        (OffsetReset::Earliest, _) => Ok((earliest, format!("{problem}; continuing at offset {earliest}"))),
        (OffsetReset::None, _) => Err(format!("{problem}. Options: {PARTED}")),
        (OffsetReset::Divergence, None) => Err(format!(
            "{problem}; where the two diverge is not known, so KAFKA_AUTO_OFFSET_RESET=divergence cannot \
             continue. Options: {RECREATED}"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: [Bounds; 2] =
        [Bounds { partition: 0, earliest: 10, latest: 20 }, Bounds { partition: 3, earliest: 0, latest: 0 }];

    fn start(checkpoint: Option<Offsets>, committed: &[(i32, i64)], unread: &[i32]) -> Start {
        let committed = committed.iter().copied().collect();
        decide("t", checkpoint.as_ref(), &committed, (&BOUNDS, unread), &[], OffsetReset::None)
            .expect("starts")
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
        assert!(!known.rereadable, "lines that are cut off may not be readable again");
    }

    #[test]
    fn an_offset_that_the_topic_lacks_is_refused_with_the_ways_out() {
        for (wanted, word) in [(9, "1 offsets were deleted"), (21, "recreated")] {
            let checkpoint = Offsets::from([(0, wanted)]);
            let decide = |reset| decide("t", Some(&checkpoint), &Offsets::new(), (&BOUNDS, &[]), &[], reset);
            let reason = decide(OffsetReset::None).unwrap_err();
            assert!(reason.contains(word) && reason.contains("KAFKA_AUTO_OFFSET_RESET"), "{reason}");
            let start = decide(OffsetReset::Earliest).expect("continues");
            assert_eq!((start.offsets[&0], start.rereadable, start.warnings.len()), (10, false, 1));
        }
    }

    #[test]
    fn a_topic_created_again_is_begun_where_another_log_has_stopped_in_it() {
        let bounds = [BOUNDS[0]];
        let begin = |taken_over: &Offsets, bounds: &[Bounds], reset| {
            from_the_beginning("t", bounds, taken_over, reset).map(|start| start.offsets)
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
        let reason =
            decide("t", Some(&checkpoint), &Offsets::new(), (&BOUNDS, &[]), &[], OffsetReset::Earliest)
                .unwrap_err();
        assert!(reason.contains("no partition 7"), "{reason}");
    }

    fn start_at(next: i64, compared: Compared, reset: OffsetReset) -> Result<Start, String> {
        decide(
            "t",
            Some(&Offsets::from([(0, next), (3, 0)])),
            &Offsets::new(),
            (&BOUNDS, &[]),
            &[compared],
            reset,
        )
    }

    #[test]
    fn a_log_that_parted_is_refused_or_followed_from_there_or_from_its_beginning() {
        let parted = |parting: Parting, reset: OffsetReset| {
            let compared = Compared { partition: 0, found: Found::Parted(parting), same_term: false };
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
            assert_eq!((start.offsets[&0], start.rereadable, start.warnings.len()), (offset, false, 1));
        }
        let unknown = parted(Parting::Before(15), OffsetReset::Divergence).unwrap_err();
        assert!(unknown.contains("not known") && unknown.contains("earliest"), "{unknown}");
    }

    #[test]
    fn what_was_read_since_the_checkpoint_is_read_again_only_from_the_same_leader() {
        for same_term in [true, false] {
            let compared = Compared { partition: 0, found: Found::Same, same_term };
            let start = start_at(20, compared, OffsetReset::None).expect("starts");
            assert_eq!((start.offsets[&0], start.rereadable), (20, same_term));
        }
        let compared = Compared { partition: 0, found: Found::Same, same_term: true };
        let start = start_at(21, compared, OffsetReset::None).expect("its leader gives it out later");
        assert_eq!(start.offsets[&0], 21);
    }
}
