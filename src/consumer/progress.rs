//! How far a destination has read the topic, and what it has read: all that a start needs to continue there. Pure.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::broker::Trails;

/// Next offset to read in each partition.
pub type Offsets = BTreeMap<i32, i64>;

/// Belongs to exactly what a destination holds, so each destination stores it together with that.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Progress {
    /// The topic.
    pub topic: String,
    /// The topic's identity, if the broker has one: another topic may have the same name.
    pub topic_id: Option<String>,
    /// The shard of the topic, `i/n`.
    pub shard: String,
    /// The log's identity in the group; earlier versions wrote none.
    #[serde(default)]
    pub log_id: Option<String>,
    /// Number of the start that wrote it, as in the marks of that log; earlier versions wrote none.
    #[serde(default)]
    pub claim: Option<u64>,
    /// Next offset to read in each partition.
    pub offsets: Offsets,
    /// Leader epochs and checksums of records before these offsets.
    #[serde(default)]
    pub trails: Trails,
}

impl Progress {
    /// True if its topic was deleted, and the one of this id created under the same name.
    pub fn is_of_another(&self, topic_id: Option<&str>) -> bool {
        is_another(self.topic_id.as_deref(), topic_id)
    }
}

/// True if these are the ids of two topics. Not every broker has them.
pub fn is_another(one: Option<&str>, other: Option<&str>) -> bool {
    one.zip(other).is_some_and(|(one, other)| one != other)
}
