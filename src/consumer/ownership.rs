//! Decides which log owns each partition, from the marks that consumers leave in their group's offsets. Pure.
//!
//! Every commit carries a mark: which log the partition is written to and whether its consumer has stopped in
//! order. A log may be followed by another one only where it has stopped in order, because only then the
//! committed offset is exactly where it ends.

use serde::{Deserialize, Serialize};

use crate::broker::Committed;
use crate::config::Shard;

use super::checkpoint::Offsets;

/// Longest place in a mark, in bytes: Kafka takes texts of 4096 bytes unless a setting of the broker says otherwise.
const PLACE_MAX_BYTES: usize = 200;

/// Who wrote a committed offset. Travels as JSON in the text that Kafka keeps beside the offset.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// Identity of the log that the partition is written to.
    pub log: String,
    /// The share of the topic that its consumer has, `i/n`.
    pub shard: String,
    /// Where the log is, for people.
    pub place: String,
    /// Rises with each start of a consumer of the group: of two marks, the higher one is right.
    pub claim: u64,
    /// The consumer has ended in order: its log holds exactly what is before the offset.
    pub stopped: bool,
}

impl Mark {
    /// The mark of a log that runs.
    pub fn new(log: &str, shard: Shard, place: &str, claim: u64) -> Self {
        let cut = (0..=PLACE_MAX_BYTES.min(place.len())).rev().find(|&at| place.is_char_boundary(at));
        let place = place[..cut.unwrap_or(0)].to_owned();
        Self { log: log.to_owned(), shard: shard.to_string(), place, claim, stopped: false }
    }

    /// The text for Kafka.
    pub fn encode(&self) -> String {
        serde_json::to_string(self).expect("a struct of plain values is JSON")
    }

    /// Reads the text; `None` if something else than this consumer wrote it.
    pub fn decode(note: &str) -> Option<Self> {
        serde_json::from_str(note).ok()
    }

    fn name(&self) -> String {
        format!("{} (CONSUMER_SHARD={}, id {})", self.place, self.shard, self.log)
    }
}

/// What a consumer knows of itself and of the group when it wants partitions.
#[derive(Clone, Copy, Debug)]
pub struct Claimant<'a> {
    /// Group and topic, for people.
    pub group: &'a str,
    /// The topic.
    pub topic: &'a str,
    /// Identity of our log.
    pub log: &'a str,
    /// Our share.
    pub shard: Shard,
    /// The log that we may follow although it has not stopped in order.
    pub take_over: Option<&'a str>,
}

/// Where to go on, as far as the group decides it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Ownership {
    /// Next offsets that take the place of those in our checkpoint.
    pub taken_over: Offsets,
    /// The number for our marks.
    pub claim: u64,
    /// A partition was not ours before, so another consumer may want it at the same moment.
    pub contested: bool,
    /// What the operator must know, one sentence each.
    pub notes: Vec<String>,
}

/// Decides about `partitions`, all those of the topic; `committed[i]` belongs to `partitions[i]`.
///
/// # Errors
/// A partition of ours belongs to a log that has not stopped in order; the text names the ways out.
pub fn decide(
    us: &Claimant<'_>,
    partitions: &[i32],
    committed: &[Option<Committed>],
    checkpoint: Option<&Offsets>,
) -> Result<Ownership, String> {
    let mut ownership = Ownership { claim: 1, ..Ownership::default() };
    let (mut held, mut unread) = (Vec::new(), Vec::new());
    for (&partition, committed) in partitions.iter().zip(committed) {
        let mark = committed.as_ref().and_then(|committed| Mark::decode(&committed.note));
        ownership.claim = ownership.claim.max(mark.as_ref().map_or(0, |mark| mark.claim) + 1);
        let is_ours = us.shard.takes(partition);
        let (Some(committed), Some(mark)) = (committed, mark) else {
            ownership.contested |= is_ours;
            continue;
        };
        let known = checkpoint.and_then(|offsets| offsets.get(&partition)).copied();
        match hold(us, partition, &mark, checkpoint.is_some()) {
            Hold::Elsewhere if !has_count(&mark, us.shard) => unread.push((partition, mark)),
            Hold::Elsewhere | Hold::Ours => {}
            Hold::Behind => ownership.notes.push(format!(
                "partition {partition}: there is no checkpoint and the consumer did not stop in order; what it \
                 logged after its last commit to the group, at offset {}, is logged again",
                committed.offset
            )),
            Hold::Left { in_order } => {
                ownership.contested = true;
                let offset = known.map_or(committed.offset, |known| known.max(committed.offset));
                ownership.taken_over.insert(partition, offset);
                ownership.notes.push(taken_over(partition, offset, &mark, in_order));
            }
            Hold::Held => held.push((partition, mark)),
        }
    }
    if !held.is_empty() {
        return Err(refusal(us, &held));
    }
    ownership.notes.extend(another_count(us, &unread));
    Ok(ownership)
}

/// Whose a partition is.
enum Hold {
    /// Of another share of the topic.
    Elsewhere,
    Ours,
    /// Ours, but only the group knows where to go on, and it may be behind the log.
    Behind,
    /// It belonged to a log that is not written any more.
    Left {
        in_order: bool,
    },
    /// It belongs to a log that runs, or was killed.
    Held,
}

fn hold(us: &Claimant<'_>, partition: i32, mark: &Mark, has_checkpoint: bool) -> Hold {
    if !us.shard.takes(partition) {
        return Hold::Elsewhere;
    }
    let may_take_over = us.take_over == Some(mark.log.as_str());
    if mark.log == us.log {
        return match (has_checkpoint || mark.stopped, mark.shard == us.shard.to_string() || may_take_over) {
            (true, _) => Hold::Ours,
            (false, true) => Hold::Behind,
            // Another share was killed: what it logged past its commit is in a file that was moved away.
            (false, false) => Hold::Held,
        };
    }
    if mark.stopped || may_take_over { Hold::Left { in_order: mark.stopped } } else { Hold::Held }
}

fn has_count(mark: &Mark, shard: Shard) -> bool {
    mark.shard.split_once('/').is_some_and(|(_, count)| count == shard.count.to_string())
}

fn taken_over(partition: i32, offset: i64, mark: &Mark, in_order: bool) -> String {
    let end = if in_order {
        "which has stopped in order there"
    } else {
        "as CONSUMER_TAKE_OVER says; what that log has from there on is logged again"
    };
    format!("partition {partition} is taken over at offset {offset} from {}, {end}", mark.name())
}

fn another_count(us: &Claimant<'_>, unread: &[(i32, Mark)]) -> Option<String> {
    let (_, mark) = unread.first()?;
    Some(format!(
        "{} of topic {} were read with CONSUMER_SHARD={} before and wait for the other shards of {}",
        partitions_in_words(unread.iter().map(|(partition, _)| *partition)),
        us.topic,
        mark.shard,
        us.shard.count
    ))
}

fn refusal(us: &Claimant<'_>, held: &[(i32, Mark)]) -> String {
    let mark = &held[0].1;
    let same = held.iter().filter(|(_, other)| other.log == mark.log).map(|(partition, _)| *partition);
    let way_out = if mark.shard == us.shard.to_string() {
        format!(
            "Two consumers with the same share would both log these events. Ways out: leave that one running; or \
             stop it with SIGTERM (one that was killed: start it where its log is, then stop it) and start this one, \
             which then goes on exactly where it ended; or set another KAFKA_GROUP here to log all events a second \
             time. If the log was moved, bring {} along",
            "its checkpoint and its lock file"
        )
    } else {
        format!(
            "To change the number of shards, stop all consumers of the group with SIGTERM and wait until they have \
             ended with exit code 0 (one that was killed: start it once more with CONSUMER_SHARD={} where its log \
             is, then stop it); after that start the new shards: each goes on exactly where the logs before it ended",
            mark.shard
        )
    };
    format!(
        "group {}: {} of topic {} belong to the log {}, whose consumer has not stopped in order: it runs, or it was \
         killed. {way_out}. If that log is lost, CONSUMER_TAKE_OVER={} goes on at the offsets that it committed \
         last, and what it logged after them is logged again",
        us.group,
        partitions_in_words(same),
        us.topic,
        mark.name(),
        mark.log
    )
}

fn partitions_in_words(partitions: impl Iterator<Item = i32>) -> String {
    let words: Vec<String> = partitions.map(|partition| partition.to_string()).collect();
    format!("partitions {}", words.join(", "))
}

/// Why our mark is no longer right in view of `found`, one of the partitions that we own; `None` while it is.
pub fn lost(us: &Mark, group: &str, partition: i32, found: &Mark) -> Option<String> {
    let is_newer = found.claim > us.claim || (found.claim == us.claim && found.log != us.log);
    if !is_newer {
        // What a consumer before us had sent may arrive late.
        return None;
    }
    let what = if found.log == us.log {
        "a consumer with a copy of this log's checkpoint has started".to_owned()
    } else {
        format!("the consumer of {} has taken it", found.name())
    };
    Some(format!(
        "group {group}: partition {partition} is no longer ours: {what} at {}. This one stops, so that events are \
         not logged by both. Let one of them run; to log all events in both places, set another KAFKA_GROUP in one",
        found.place
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const US: Claimant<'static> = Claimant {
        group: "g",
        topic: "t",
        log: "ours",
        shard: Shard { index: 0, count: 2 },
        take_over: None,
    };

    fn mark(log: &str, shard: &str, stopped: bool) -> Mark {
        let place = "host:/logs/events.log".into();
        Mark { log: log.into(), shard: shard.into(), place, claim: 4, stopped }
    }

    fn at(offset: i64, mark: &Mark) -> Option<Committed> {
        Some(Committed { offset, note: mark.encode() })
    }

    /// The decision about partition 0 alone, which is ours.
    fn about(
        committed: Option<Committed>,
        checkpoint: Option<i64>,
        us: &Claimant<'_>,
    ) -> Result<Ownership, String> {
        let checkpoint = checkpoint.map(|offset| Offsets::from([(0, offset)]));
        decide(us, &[0], &[committed], checkpoint.as_ref())
    }

    #[test]
    fn a_mark_survives_the_way_through_kafka_and_foreign_texts_are_none() {
        let long = Mark::new("id", US.shard, &"ü".repeat(500), 7);
        assert!(long.encode().len() < 400);
        assert_eq!(Mark::decode(&long.encode()), Some(long));
        for foreign in ["", "by hand", "{}", "{\"log\":1}", "[]"] {
            assert_eq!(Mark::decode(foreign), None, "{foreign}");
        }
    }

    #[test]
    fn offsets_without_a_mark_and_no_offsets_leave_the_decision_to_the_checkpoint() {
        for committed in [None, Some(Committed { offset: 9, note: String::new() })] {
            let ownership = about(committed, Some(5), &US).expect("free");
            assert_eq!((ownership.taken_over.len(), ownership.claim, ownership.contested), (0, 1, true));
        }
    }

    #[test]
    fn our_own_mark_leaves_the_decision_to_the_checkpoint_however_we_stopped() {
        for stopped in [true, false] {
            let ownership = about(at(9, &mark("ours", "0/2", stopped)), Some(12), &US).expect("ours");
            assert_eq!(ownership, Ownership { claim: 5, ..Ownership::default() });
        }
    }

    #[test]
    fn without_a_checkpoint_our_own_log_goes_on_at_the_groups_offset_and_says_what_may_repeat() {
        let stopped = about(at(9, &mark("ours", "0/2", true)), None, &US).expect("exact");
        assert_eq!((stopped.notes.len(), stopped.taken_over.len()), (0, 0));
        let killed = about(at(9, &mark("ours", "0/2", false)), None, &US).expect("as documented");
        assert!(killed.notes[0].contains("logged again"), "{killed:?}");
        let refused =
            about(at(9, &mark("ours", "0/3", false)), None, &US).expect_err("another share was killed");
        assert!(refused.contains("CONSUMER_SHARD=0/3"), "{refused}");
        about(at(9, &mark("ours", "0/3", true)), None, &US).expect("another share has stopped in order");
    }

    #[test]
    fn a_log_that_stopped_in_order_is_followed_exactly() {
        let other = at(20, &mark("other", "0/1", true));
        let fresh = about(other.clone(), None, &US).expect("new log");
        assert_eq!((fresh.taken_over, fresh.contested, fresh.claim), ([(0, 20)].into(), true, 5));
        let back = about(other.clone(), Some(7), &US).expect("an old log goes on");
        assert_eq!(back.taken_over, [(0, 20)].into());
        let ahead = about(other, Some(33), &US).expect("what we have is never read again");
        assert_eq!(ahead.taken_over, [(0, 33)].into());
    }

    #[test]
    fn a_log_that_runs_or_was_killed_is_not_followed_unless_it_is_named() {
        for (shard, words) in [("0/1", "number of shards"), ("0/2", "same share")] {
            for checkpoint in [None, Some(7)] {
                let refused = about(at(20, &mark("other", shard, false)), checkpoint, &US).expect_err("held");
                for word in [words, "SIGTERM", "CONSUMER_TAKE_OVER=other", "host:/logs/events.log"] {
                    assert!(refused.contains(word), "no {word:?} in {refused}");
                }
            }
        }
        let named = Claimant { take_over: Some("other"), ..US };
        let forced = about(at(20, &mark("other", "0/1", false)), None, &named).expect("said so");
        assert_eq!(forced.taken_over, [(0, 20)].into());
        assert!(forced.notes[0].contains("logged again"));
        about(at(20, &mark("third", "0/1", false)), None, &named).expect_err("another one is named");
    }

    #[test]
    fn partitions_of_other_shards_are_left_alone_and_another_count_is_told() {
        let committed = [at(1, &mark("ours", "0/2", true)), at(2, &mark("other", "1/2", false))];
        let same = decide(&US, &[0, 1], &committed, None).expect("a sibling runs");
        assert!(same.notes.is_empty() && !same.contested, "{same:?}");
        let committed = [at(1, &mark("ours", "0/2", true)), at(2, &mark("old", "0/1", true))];
        let changing = decide(&US, &[0, 1], &committed, None).expect("the other shard is not there yet");
        assert!(
            changing.notes[0].contains("partitions 1 ") && changing.notes[0].contains("0/1"),
            "{changing:?}"
        );
    }

    #[test]
    fn a_newer_claim_wins_and_what_arrives_late_does_not() {
        let us = Mark { claim: 5, ..mark("ours", "0/2", false) };
        let lost = |log: &str, claim| lost(&us, "g", 0, &Mark { claim, ..mark(log, "0/1", false) });
        assert_eq!([lost("ours", 5), lost("other", 4), lost("ours", 4)], [None, None, None]);
        assert!(
            lost("other", 5).is_some_and(|text| text.contains("has taken it")),
            "claimed at the same moment"
        );
        assert!(lost("other", 6).is_some());
        assert!(lost("ours", 6).is_some_and(|text| text.contains("copy of this log")));
    }
}
