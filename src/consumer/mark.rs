//! The mark that a consumer leaves beside each offset that it commits: which log owns the partition. Pure.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};

use serde::{Deserialize, Serialize};

use crate::config::Shard;
use crate::consumer::progress::is_another;

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
    /// Identity of the topic: an offset means nothing in another topic of the same name.
    #[serde(default)]
    pub topic_id: Option<String>,
    /// Rises with each start of a consumer of the group: of two marks, the higher one is right.
    pub claim: u64,
    /// Tells apart two starts that chose the same claim.
    #[serde(default)]
    pub start: String,
    /// The consumer shut down cleanly: its log holds exactly what is before the offset.
    pub stopped: bool,
}

impl Mark {
    /// The mark of a consumer that has just started.
    pub fn new(log: &str, shard: Shard, place: &str, topic_id: Option<&str>, claim: u64) -> Self {
        Self {
            log: log.to_owned(),
            shard: shard.to_string(),
            place: cut(place),
            topic_id: topic_id.map(str::to_owned),
            claim,
            start: new_id(),
            stopped: false,
        }
    }

    /// The text for Kafka.
    pub fn encode(&self) -> String {
        serde_json::to_string(self).expect("a struct of plain values is JSON")
    }

    /// Reads the text; `None` if something else than this consumer wrote it.
    pub fn decode(note: &str) -> Option<Self> {
        serde_json::from_str(note).ok()
    }

    /// True if its log is at `place`.
    pub fn is_at(&self, place: &str) -> bool {
        self.place == cut(place)
    }

    /// True if its offset belongs to another topic than the one of `topic_id`, as far as both are known.
    pub fn is_of_another(&self, topic_id: Option<&str>) -> bool {
        is_another(self.topic_id.as_deref(), topic_id)
    }

    /// The log, for people.
    pub fn name(&self) -> String {
        format!("{} (CONSUMER_SHARD={}, id {})", self.place, self.shard, self.log)
    }

    /// Why this mark of ours is no longer right in view of `found` in a partition that we own; `None` while it is.
    pub fn lost_to(&self, found: &Self, group: &str, partition: i32) -> Option<String> {
        let is_newer = found.claim > self.claim || (found.claim == self.claim && found.start != self.start);
        if !is_newer {
            // What a consumer before us had sent may arrive late.
            return None;
        }
        let who = if found.log == self.log {
            format!("a consumer with a copy of this log's checkpoint has started at {}", found.place)
        } else {
            format!("it is now written to {}", found.name())
        };
        Some(format!(
            "group {group}: another consumer has claimed partition {partition}: {who}. This one stops, so that events \
             are not logged by both. Run only one of them; to log all events in both places, set another KAFKA_GROUP \
             in one"
        ))
    }
}

/// As much of `place` as a mark holds.
fn cut(place: &str) -> String {
    let end = (0..=PLACE_MAX_BYTES.min(place.len())).rev().find(|&at| place.is_char_boundary(at));
    place[..end.unwrap_or(0)].to_owned()
}

/// An identity that nothing else has.
pub fn new_id() -> String {
    // The only source of the system's randomness in std; two machines that start at once must differ.
    format!("{:016x}", RandomState::new().build_hasher().finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHARD: Shard = Shard { index: 0, count: 2 };

    #[test]
    fn a_mark_survives_the_way_through_kafka_and_foreign_texts_are_none() {
        let place = "ü".repeat(500);
        let long = Mark::new("id", SHARD, &place, Some("topic"), 7);
        assert!(long.encode().len() < 500);
        assert!(long.is_at(&place) && !long.is_at("elsewhere"));
        assert_eq!(Mark::decode(&long.encode()), Some(long));
        for foreign in ["", "by hand", "{}", "{\"log\":1}", "[]"] {
            assert_eq!(Mark::decode(foreign), None, "{foreign}");
        }
        let older = "{\"log\":\"l\",\"shard\":\"0/1\",\"place\":\"p\",\"claim\":3,\"stopped\":true}";
        assert!(Mark::decode(older).is_some_and(|mark| !mark.is_of_another(Some("topic"))));
    }

    #[test]
    fn a_newer_claim_wins_and_what_arrives_late_does_not() {
        let us = Mark::new("ours", SHARD, "here", None, 5);
        let lost_to = |found: &Mark| us.lost_to(found, "g", 0);
        assert_eq!(lost_to(&us), None);
        assert_ne!(new_id(), new_id());
        for late in [Mark::new("ours", SHARD, "here", None, 4), Mark::new("other", SHARD, "there", None, 4)] {
            assert_eq!(lost_to(&late), None);
        }
        for claim in [5, 6] {
            let copy = lost_to(&Mark::new("ours", SHARD, "there", None, claim)).expect("lost");
            assert!(copy.contains("copy of this log") && copy.contains("there"), "{copy}");
            let other = lost_to(&Mark::new("other", SHARD, "there", None, claim)).expect("lost");
            assert!(other.contains("claimed partition 0") && other.contains("id other"), "{other}");
        }
    }
}
