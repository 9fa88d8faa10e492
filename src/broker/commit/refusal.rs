//! Turns error codes of group requests into errors that say what an operator can do. Does no I/O.

use crate::broker::error::BrokerError;
use crate::broker::protocol::Code;

/// Brokers that Kafka needs for its offsets topic unless `offsets.topic.replication.factor` says otherwise.
const OFFSETS_COPIES: usize = 3;

/// The error if no coordinator was found in a cluster of `brokers` brokers.
pub fn no_coordinator(group: &str, code: Code, brokers: usize) -> BrokerError {
    let hint = if code == Code::COORDINATOR_NOT_AVAILABLE && brokers < OFFSETS_COPIES {
        format!(
            "; if this persists, the cluster of {brokers} cannot create its offsets topic, which has \
             {OFFSETS_COPIES} replicas unless offsets.topic.replication.factor says otherwise; set that to \
             {brokers} in the brokers' settings"
        )
    } else {
        String::new()
    };
    failed(group, "no coordinator", code, &hint)
}

/// The error if `what` was refused for the group.
pub fn refused(group: &str, what: &str, code: Code) -> BrokerError {
    failed(group, what, code, "")
}

fn failed(group: &str, what: &str, code: Code, hint: &str) -> BrokerError {
    let text = format!("group {group}: {what}: {code}");
    match code {
        Code::GROUP_AUTHORIZATION_FAILED => BrokerError::Denied(format!(
            "{text}; grant this user the operations Read and Describe on the group (ACL)"
        )),
        Code::ILLEGAL_GENERATION | Code::UNKNOWN_MEMBER_ID | Code::REBALANCE_IN_PROGRESS => {
            BrokerError::Denied(format!(
                "{text}: another program is a member of this group; stop it, or set a KAFKA_GROUP that only \
                 this consumer uses"
            ))
        }
        Code::OFFSET_METADATA_TOO_LARGE => BrokerError::Denied(format!(
            "{text}; set offset.metadata.max.bytes to 1000 or more in the brokers' settings"
        )),
        _ => BrokerError::Retryable(format!("{text}{hint}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_an_operator_can_change_is_denied_and_names_the_way_out() {
        for (code, words) in
            [(30, "ACL"), (25, "KAFKA_GROUP"), (22, "KAFKA_GROUP"), (12, "metadata.max.bytes")]
        {
            let error = refused("g", "commit", Code(code));
            assert_eq!(error.kind(), "denied", "{code}");
            assert!(error.to_string().contains(words), "{error}");
        }
        assert!(refused("g", "commit", Code(16)).is_retryable());
    }

    #[test]
    fn a_small_cluster_without_a_coordinator_is_told_of_the_replication_factor() {
        let hint = "offsets.topic.replication.factor";
        assert!(no_coordinator("g", Code(15), 1).to_string().contains(hint));
        assert!(!no_coordinator("g", Code(15), 3).to_string().contains(hint));
        assert!(!no_coordinator("g", Code(14), 1).to_string().contains(hint));
    }
}
