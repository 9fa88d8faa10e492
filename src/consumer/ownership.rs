//! Decides which log owns each partition, from the marks that consumers leave in their group's offsets. Pure.
//!
//! Every commit carries a mark: which log the partition is written to and whether its consumer has shut down
//! cleanly. A log may be followed by another one only where it has, because only then the committed offset is
//! exactly where it ends.

use crate::broker::Committed;
use crate::config::Shard;
use crate::consumer::mark::Mark;
use crate::consumer::progress::Offsets;

/// A consumer that claims partitions.
#[derive(Clone, Copy, Debug)]
pub struct Claimant<'a> {
    /// The group, for messages.
    pub group: &'a str,
    /// The topic, for messages.
    pub topic: &'a str,
    /// Its identity, if the broker has one.
    pub topic_id: Option<&'a str>,
    /// Identity of our log.
    pub log: &'a str,
    /// The log that was at our place before ours.
    pub predecessor: Option<&'a str>,
    /// Where our log is.
    pub place: &'a str,
    /// Our share.
    pub shard: Shard,
    /// The logs that we may follow although their consumers did not shut down cleanly.
    pub take_over: &'a [String],
}

/// What our stored progress says.
#[derive(Clone, Copy, Debug)]
pub struct Known<'a> {
    /// Next offsets, none if they are of another topic of the same name.
    pub offsets: &'a Offsets,
    /// The number of the start that wrote it; earlier versions wrote none.
    pub claim: Option<u64>,
    /// An older one may be what is left.
    pub may_be_old: bool,
}

/// What the group's marks decide about where to continue.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Ownership {
    /// What the group has committed for partitions of this topic.
    pub committed: Offsets,
    /// Those of them that take the place of what our checkpoint says.
    pub taken_over: Offsets,
    /// The claim number for our marks.
    pub claim: u64,
    /// A partition was not ours before, so another consumer may be claiming it at the same moment.
    pub contested: bool,
    /// Another log is followed: only our mark keeps its consumer, or a third one, from going on there too.
    pub follows: bool,
    /// What the operator must know, one sentence each.
    pub notes: Vec<String>,
}

/// Decides about `partitions`, which are all partitions of the topic. `committed[i]` belongs to
/// `partitions[i]`.
///
/// # Errors
/// A partition of ours belongs to a log whose consumer did not shut down cleanly, or our checkpoint is older than
/// what our own log committed; the text names the options.
pub fn decide(
    us: &Claimant<'_>,
    partitions: &[i32],
    committed: &[Option<Committed>],
    known: Option<Known<'_>>,
) -> Result<Ownership, String> {
    let claim = known.and_then(|known| known.claim).unwrap_or_default() + 1;
    let mut ownership = Ownership { claim, ..Ownership::default() };
    let (mut held, mut stale) = (Vec::new(), Vec::new());
    for (&partition, committed) in partitions.iter().zip(committed) {
        let mark = committed.as_ref().and_then(|committed| Mark::decode(&committed.note));
        ownership.claim = ownership.claim.max(mark.as_ref().map_or(0, |mark| mark.claim) + 1);
        let mark = mark.as_ref();
        let is_ours = us.shard.takes(partition);
        let of_this_topic = mark.is_none_or(|mark| !mark.is_of_another(us.topic_id));
        let (Some(committed), true, true) = (committed, is_ours, of_this_topic) else {
            ownership.contested |= is_ours;
            continue;
        };
        let offset = committed.offset;
        ownership.committed.insert(partition, offset);
        let Some(mark) = mark else {
            ownership.contested = true;
            continue;
        };
        let next = known.and_then(|known| known.offsets.get(&partition)).copied();
        match hold(us, mark, offset, known.map(|known| (known, next))) {
            Hold::Ours => {
                ownership.contested |= mark.stopped;
                if next.is_none() && known.is_some_and(|known| is_in_doubt(us, mark, known)) {
                    ownership.committed.remove(&partition);
                    ownership.notes.push(format!(
                        "partition {partition} begins at its earliest offset, not at {offset} as committed: the \
                         checkpoint does not know it and may be older than that commit; events may be duplicated"
                    ));
                }
            }
            Hold::Left => {
                ownership.contested = true;
                ownership.follows = true;
                // Where the topic lost records, our log may be ahead of the one that stopped: what is read next is
                // compared with what was read, so nothing is skipped.
                if next.is_none_or(|next| offset > next) {
                    ownership.taken_over.insert(partition, offset);
                    ownership.notes.push(taken_over(partition, offset, mark));
                }
            }
            Hold::Held => held.push((partition, mark.clone())),
            Hold::Stale => stale.push((partition, mark.clone())),
        }
    }
    match (stale.as_slice(), held.as_slice()) {
        ([], []) => Ok(ownership),
        ([], held) => Err(refusal(us, held)),
        ([(partition, mark), ..], _) => Err(too_old(us, *partition, mark)),
    }
}

/// Who owns a partition of our share.
enum Hold {
    /// We do, and the checkpoint decides.
    Ours,
    /// We do, but our checkpoint is not the latest of our log.
    Stale,
    /// No consumer writes the log that it belonged to.
    Left,
    /// Another log, whose consumer runs or was killed.
    Held,
}

fn hold(us: &Claimant<'_>, mark: &Mark, offset: i64, known: Option<(Known<'_>, Option<i64>)>) -> Hold {
    let may_take_over = us.take_over.contains(&mark.log);
    if mark.log == us.log {
        let is_latest = known.is_none_or(|(known, next)| is_latest(us, mark, offset, known, next));
        return if is_latest || may_take_over { Hold::Ours } else { Hold::Stale };
    }
    // The log before ours, which was moved away. An old one that was put back is not before the one that it follows.
    let is_before_ours = us.predecessor == Some(mark.log.as_str())
        && known.is_none_or(|(known, _)| known.claim.is_some_and(|claim| claim > mark.claim));
    let is_moved = is_before_ours && mark.is_at(us.place) && mark.shard == us.shard.to_string();
    if mark.stopped || may_take_over || is_moved { Hold::Left } else { Hold::Held }
}

/// A checkpoint is written before its offsets are committed, so it is behind a mark of its own log only if it is a
/// copy. A start may go back to smaller offsets, with a new claim.
fn is_latest(us: &Claimant<'_>, mark: &Mark, offset: i64, known: Known<'_>, next: Option<i64>) -> bool {
    let claim = known.claim.unwrap_or(mark.claim);
    let is_covered = claim == mark.claim && next.is_none_or(|next| next >= offset);
    claim > mark.claim || is_covered || (known.may_be_old && mark.is_at(us.place))
}

/// True if our log may lack what was read of a partition that the checkpoint does not know, up to `mark`.
fn is_in_doubt(us: &Claimant<'_>, mark: &Mark, known: Known<'_>) -> bool {
    known.may_be_old || known.claim != Some(mark.claim) || us.take_over.contains(&mark.log)
}

fn taken_over(partition: i32, offset: i64, mark: &Mark) -> String {
    let end = if mark.stopped {
        "which shut down cleanly there"
    } else {
        "which did not shut down cleanly: events that it logged after that are logged again"
    };
    format!("partition {partition} is taken over at offset {offset} from {}, {end}", mark.name())
}

fn refusal(us: &Claimant<'_>, held: &[(i32, Mark)]) -> String {
    let mut logs: Vec<(&Mark, Vec<i32>)> = Vec::new();
    for (partition, mark) in held {
        match logs.iter_mut().find(|(other, _)| other.log == mark.log) {
            Some((_, partitions)) => partitions.push(*partition),
            None => logs.push((mark, vec![*partition])),
        }
    }
    let owners: Vec<String> = logs
        .iter()
        .map(|(mark, partitions)| format!("{} belong to the log {}", in_words(partitions), mark.name()))
        .collect();
    format!(
        "group {}: of topic {}, {}. The consumer there did not shut down cleanly: it is still running, was killed, or \
         could not commit its last offsets. {}. If that log is lost, set CONSUMER_TAKE_OVER={} to continue from its \
         last committed offsets; events it logged after those are logged again",
        us.group,
        us.topic,
        owners.join("; "),
        way_out(us, &logs),
        take_over(us, logs.iter().map(|(mark, _)| mark.log.as_str()))
    )
}

fn way_out(us: &Claimant<'_>, logs: &[(&Mark, Vec<i32>)]) -> &'static str {
    let is_before_ours = |mark: &Mark| us.predecessor == Some(mark.log.as_str()) && mark.is_at(us.place);
    if logs.iter().any(|(mark, _)| is_before_ours(mark)) {
        "Put the log that was here and its checkpoint back, start it with the CONSUMER_SHARD it had, stop it with \
         SIGTERM and wait for exit code 0; then move both away again and start this one, which continues exactly \
         where that log ends"
    } else if logs.iter().all(|(mark, _)| mark.shard == us.shard.to_string()) {
        "Two consumers with the same shard would both log these events. Options: leave that one running; or stop it \
         with SIGTERM and wait for exit code 0 (if it is not running, start it once more where its log is, then stop \
         it) and start this one, which then continues exactly where that log ends; or set another KAFKA_GROUP here \
         to log all events a second time. If that log was moved here, bring its checkpoint along"
    } else {
        "To change the number of shards, stop all consumers of the group with SIGTERM and wait for exit code 0 (one \
         that is not running: start it once more with the CONSUMER_SHARD it had, where its log is, then stop it); \
         after that start the new shards: each continues exactly where the old logs end"
    }
}

fn too_old(us: &Claimant<'_>, partition: i32, mark: &Mark) -> String {
    format!(
        "group {}: this checkpoint is older than what the same log committed for partition {partition} of topic {} \
         from {}. Options: if this is a copy of a log that runs there, leave that one running, and to log all events \
         here too, set another KAFKA_GROUP; if the newer log and checkpoint are elsewhere, put them here; if they are \
         lost and this is a backup, set CONSUMER_TAKE_OVER={} for one start to continue from this checkpoint",
        us.group,
        us.topic,
        mark.name(),
        take_over(us, std::iter::once(us.log))
    )
}

/// The value of `CONSUMER_TAKE_OVER` that adds `ids` to what it has.
fn take_over<'a>(us: &'a Claimant<'_>, ids: impl Iterator<Item = &'a str>) -> String {
    let mut all: Vec<&str> = us.take_over.iter().map(String::as_str).collect();
    all.extend(ids);
    all.join(",")
}

fn in_words(partitions: &[i32]) -> String {
    let words: Vec<String> = partitions.iter().map(i32::to_string).collect();
    format!("partitions {}", words.join(", "))
}
