//! Decides where to continue in a partition that lost or replaced what is read next. Pure.

use crate::broker::{Bounds, Parting};
use crate::config::OffsetReset;

/// The options when another topic has the same name.
pub const RECREATED: &str = "for a recreated topic, move the log and its checkpoint away and set a new \
     KAFKA_GROUP; or set KAFKA_AUTO_OFFSET_RESET=earliest to read the topic from its beginning into the \
     same log (which duplicates events if it is still the old topic)";

/// The options when Kafka lost records that were logged.
const PARTED: &str = "KAFKA_AUTO_OFFSET_RESET=divergence continues at that offset, and events logged from \
     there on that are gone from Kafka stay in the log. KAFKA_AUTO_OFFSET_RESET=earliest reads the topic \
     from its beginning into the same log, which duplicates events";

/// Returns `wanted`, or the earliest offset and a warning if the topic does not have it and `reset` allows
/// that.
///
/// # Errors
/// Text for the user: the offset is not in the topic, and `reset` does not allow another one.
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
/// Text for the user: the offset is not in the topic, and `reset` does not allow another one.
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
         acknowledged records (unclean leader election, power cut, data restored from a copy). If it kept \
         its leader epoch, it may still have some of those that follow this offset; they are duplicated \
         when reading continues there",
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
