//! Kafka's error codes: their names, and the groups of codes that callers act on. Does no I/O.

use std::fmt;

/// An error code of the Kafka protocol; 0 is success.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Code(pub i16);

/// Declares codes by Kafka's names, which messages show.
macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $number:literal,)*) => {
        #[allow(dead_code, reason = "some are only shown")]
        impl Code {
            $($(#[$doc])* pub const $name: Self = Self($number);)*

            fn name(self) -> &'static str {
                match self.0 {
                    $($number => stringify!($name),)*
                    _ => "see the Kafka protocol guide",
                }
            }
        }
    };
}

codes! {
    NONE = 0,
    OFFSET_OUT_OF_RANGE = 1,
    CORRUPT_MESSAGE = 2,
    UNKNOWN_TOPIC_OR_PARTITION = 3,
    LEADER_NOT_AVAILABLE = 5,
    NOT_LEADER_OR_FOLLOWER = 6,
    /// For a produce request: written, but not acknowledged by all replicas in time.
    REQUEST_TIMED_OUT = 7,
    BROKER_NOT_AVAILABLE = 8,
    REPLICA_NOT_AVAILABLE = 9,
    MESSAGE_TOO_LARGE = 10,
    OFFSET_METADATA_TOO_LARGE = 12,
    COORDINATOR_LOAD_IN_PROGRESS = 14,
    COORDINATOR_NOT_AVAILABLE = 15,
    NOT_COORDINATOR = 16,
    INVALID_TOPIC_EXCEPTION = 17,
    RECORD_LIST_TOO_LARGE = 18,
    NOT_ENOUGH_REPLICAS = 19,
    NOT_ENOUGH_REPLICAS_AFTER_APPEND = 20,
    ILLEGAL_GENERATION = 22,
    UNKNOWN_MEMBER_ID = 25,
    REBALANCE_IN_PROGRESS = 27,
    TOPIC_AUTHORIZATION_FAILED = 29,
    GROUP_AUTHORIZATION_FAILED = 30,
    CLUSTER_AUTHORIZATION_FAILED = 31,
    INVALID_TIMESTAMP = 32,
    UNSUPPORTED_SASL_MECHANISM = 33,
    ILLEGAL_SASL_STATE = 34,
    UNSUPPORTED_VERSION = 35,
    UNSUPPORTED_FOR_MESSAGE_FORMAT = 43,
    POLICY_VIOLATION = 44,
    OUT_OF_ORDER_SEQUENCE_NUMBER = 45,
    DUPLICATE_SEQUENCE_NUMBER = 46,
    INVALID_PRODUCER_EPOCH = 47,
    KAFKA_STORAGE_ERROR = 56,
    SASL_AUTHENTICATION_FAILED = 58,
    UNKNOWN_PRODUCER_ID = 59,
    FENCED_LEADER_EPOCH = 74,
    UNKNOWN_LEADER_EPOCH = 75,
    UNSUPPORTED_COMPRESSION_TYPE = 76,
    OFFSET_NOT_AVAILABLE = 78,
    INVALID_RECORD = 87,
}

impl Code {
    /// Also used by the kafka crate for every code above 35.
    pub const UNKNOWN: Self = Self(-1);

    /// Returns `Ok` for success, otherwise this code.
    pub fn check(self) -> Result<(), Self> {
        if self == Self::NONE { Ok(()) } else { Err(self) }
    }

    /// The records together, or a single one, exceed the topic's limit.
    pub fn is_too_large(self) -> bool {
        matches!(self, Self::MESSAGE_TOO_LARGE | Self::RECORD_LIST_TOO_LARGE)
    }

    /// A produce request with this outcome wrote nothing: the broker refused it before the append.
    pub fn is_before_append(self) -> bool {
        // "No leader" is not in the list: a broker that loses leadership while it waits for its replicas
        // reports that after the append.
        matches!(self.0, 2 | 10 | 17 | 18 | 19 | 29 | 31 | 32 | 35 | 43 | 44 | 76 | 87)
    }

    /// A record is at fault, not the partition: for example, it has no key in a compacted topic, or its time
    /// is out of range. Brokers before 2.4 report the first of these as [`Code::CORRUPT_MESSAGE`], which may
    /// also mean damage in transit (KIP-467: until then `InvalidRecordException` was a kind of
    /// `CorruptRecordException`).
    pub fn is_of_record(self) -> bool {
        matches!(self, Self::INVALID_RECORD | Self::INVALID_TIMESTAMP | Self::CORRUPT_MESSAGE)
    }

    /// In a verdict on a single record, this code can only be caused by the record.
    pub fn is_certain(self) -> bool {
        !matches!(self, Self::CORRUPT_MESSAGE | Self::UNKNOWN)
    }

    /// The coordinator that serves the request is loading or moving.
    pub fn is_of_coordinator(self) -> bool {
        matches!(self.0, 14..=16)
    }

    /// The broker does not know the producer id, or expects another sequence number.
    pub fn is_of_sequence(self) -> bool {
        matches!(self.0, 45 | 46 | 47 | 59)
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::UNKNOWN {
            return f
                .write_str("UNKNOWN_SERVER_ERROR (-1, or a code above 35; the broker's log has the cause)");
        }
        write!(f, "{} ({})", self.name(), self.0)?;
        // For the topic or the cluster.
        let is_acl = matches!(self.0, 29 | 31);
        if is_acl {
            f.write_str(": this user lacks a permission (ACL); docs/KAFKA.md lists those needed")
        } else {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_names_itself_with_its_number() {
        assert_eq!(Code(19).to_string(), "NOT_ENOUGH_REPLICAS (19)");
        assert_eq!(Code(999).to_string(), "see the Kafka protocol guide (999)");
        assert!(Code::UNKNOWN.to_string().contains("broker's log"));
        assert!(Code(29).to_string().contains("TOPIC_AUTHORIZATION_FAILED (29): this user lacks"));
    }

    #[test]
    fn what_judges_a_record_was_said_before_it_was_written() {
        let judging: Vec<i16> = (-1..150).filter(|&code| Code(code).is_of_record()).collect();
        assert_eq!(judging, [2, 32, 87]);
        assert!(judging.iter().all(|&code| Code(code).is_before_append()));
    }

    #[test]
    fn only_size_codes_are_bisected() {
        let large: Vec<i16> = (-1..100).filter(|&code| Code(code).is_too_large()).collect();
        assert_eq!(large, [10, 18]);
    }
}
