//! Chooses where to start reading each partition. Pure.

use crate::broker::{Bounds, Compared, Found, Parting, Trail};
use crate::config::OffsetReset;
use crate::consumer::offset_reset::{RECREATED, in_range, parted};
use crate::consumer::progress::{Offsets, Progress};

/// Where to start reading.
#[derive(Debug, PartialEq, Eq)]
pub struct Start {
    /// Next offset of each partition.
    pub offsets: Offsets,
    /// Warnings for the operator, one sentence each.
    pub warnings: Vec<String>,
}

/// The state of the topic and the group at startup.
#[derive(Clone, Debug)]
pub struct Topic<'a> {
    /// Name of the topic.
    pub name: &'a str,
    /// The topic's identity, if the broker has one.
    pub id: Option<String>,
    /// Our shard of the topic, `i/n`.
    pub shard: String,
    /// Identity of our log.
    pub log_id: String,
    /// The number of this start.
    pub claim: u64,
    /// Our partitions, without those that cannot be asked now.
    pub bounds: Vec<Bounds>,
    /// Our partitions without a leader, or whose leader does not answer.
    pub unread: Vec<i32>,
    /// Next offsets according to the group.
    pub committed: Offsets,
    /// Next offsets where other logs went on from ours: what the destination has past its progress may be in those.
    pub taken_over: Offsets,
    /// What it has of what was read up to the stored progress, for partitions of which that is known.
    pub compared: Vec<Compared>,
    /// What to do if offsets are gone.
    pub reset: OffsetReset,
}

/// Returns the progress from which a destination with the `stored` one continues, and where that is.
///
/// # Errors
/// See [`decide`].
pub fn resume(stored: Option<Progress>, topic: &Topic<'_>) -> Result<(Progress, Start), String> {
    // If the topic was deleted and created again, old offsets mean nothing even if they are in range.
    let is_recreated = stored.as_ref().is_some_and(|stored| stored.is_of_another(topic.id.as_deref()));
    let start = if is_recreated {
        from_the_beginning(topic)?
    } else {
        decide(stored.as_ref().map(|stored| &stored.offsets), topic)?
    };
    let mut trails = stored.filter(|_| !is_recreated).map(|stored| stored.trails).unwrap_or_default();
    for (partition, trail) in &mut trails {
        let Some(&offset) = start.offsets.get(partition) else { continue };
        let compared = topic.compared.iter().find(|compared| compared.partition == *partition);
        match compared.map(|compared| compared.found) {
            // What is read next does not follow what is remembered.
            Some(Found::Parted(parting)) if parting != Parting::At(offset) => *trail = Trail::default(),
            _ => trail.back_to(offset),
        }
    }
    let progress = Progress {
        topic: topic.name.to_owned(),
        topic_id: topic.id.clone(),
        shard: topic.shard.clone(),
        log_id: Some(topic.log_id.clone()),
        claim: Some(topic.claim),
        offsets: start.offsets.clone(),
        trails,
    };
    Ok((progress, start))
}

/// Chooses the first offset of each partition: the stored one, else the group's committed one, else the earliest.
/// Partitions that do not answer now start where the first two say, unverified, or are left out.
///
/// # Errors
/// The topic does not have the offset and `reset` does not allow another one. The message lists the options.
pub fn decide(stored: Option<&Offsets>, topic: &Topic<'_>) -> Result<Start, String> {
    let &Topic { name, reset, .. } = topic;
    let exists = |partition: &i32| {
        topic.unread.contains(partition) || topic.bounds.iter().any(|bounds| bounds.partition == *partition)
    };
    if let Some(missing) = stored.and_then(|stored| stored.keys().find(|partition| !exists(partition))) {
        return Err(format!(
            "topic {name} has no partition {missing}, but the checkpoint does: the topic was recreated. \
             Move the log and its checkpoint away and set a new KAFKA_GROUP to read the new topic from its \
             beginning"
        ));
    }
    let known = |partition: &i32| {
        stored.and_then(|stored| stored.get(partition)).or_else(|| topic.committed.get(partition)).copied()
    };
    let mut start = Start {
        offsets: topic.unread.iter().filter_map(|&partition| Some((partition, known(&partition)?))).collect(),
        warnings: Vec::new(),
    };
    for bounds in &topic.bounds {
        let wanted = known(&bounds.partition).unwrap_or(bounds.earliest);
        let compared = topic.compared.iter().find(|compared| compared.partition == bounds.partition);
        let (offset, warning) = match compared.map(|compared| compared.found) {
            Some(Found::Parted(parting)) => {
                let (offset, warning) = parted(name, wanted, bounds, parting, reset)?;
                (offset, Some(warning))
            }
            // A new leader gives out all that it has a moment later.
            Some(Found::Same) if wanted > bounds.latest => (wanted, None),
            _ => in_range(name, wanted, bounds, reset)?,
        };
        start.offsets.insert(bounds.partition, offset);
        start.warnings.extend(warning);
    }
    Ok(start)
}

/// The start in a topic that was deleted and created again, except where another log has continued in the new one.
///
/// # Errors
/// As for [`decide`].
pub fn from_the_beginning(topic: &Topic<'_>) -> Result<Start, String> {
    let problem = format!("topic {} was deleted and created again", topic.name);
    let mut start = Start { offsets: Offsets::new(), warnings: Vec::new() };
    for bounds in &topic.bounds {
        let (offset, warning) = match (topic.taken_over.get(&bounds.partition), topic.reset) {
            (Some(&offset), reset) => in_range(topic.name, offset, bounds, reset)?,
            (None, OffsetReset::Earliest) => (bounds.earliest, None),
            (None, OffsetReset::None | OffsetReset::Divergence) => {
                return Err(format!(
                    "{problem}, so the offsets of the checkpoint mean nothing. Options: {RECREATED}"
                ));
            }
        };
        start.offsets.insert(bounds.partition, offset);
        start.warnings.extend(warning);
    }
    start.warnings.push(format!("{problem}; reading the new one from its beginning into the same log"));
    Ok(start)
}
