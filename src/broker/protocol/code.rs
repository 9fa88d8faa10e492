//! Kafka's error codes: their names, and the groups of codes that callers act on. Does no I/O.

use std::fmt;

/// An error code of the Kafka protocol; 0 is success.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Code(pub i16);

impl Code {
    /// Also used by the kafka crate for every code above 35.
    pub const UNKNOWN: Self = Self(-1);
    pub const NONE: Self = Self(0);
    pub const OFFSET_OUT_OF_RANGE: Self = Self(1);
    pub const UNKNOWN_TOPIC_OR_PARTITION: Self = Self(3);
    pub const LEADER_NOT_AVAILABLE: Self = Self(5);
    pub const NOT_LEADER: Self = Self(6);
    /// For a produce request: written, but not acknowledged by all replicas in time.
    pub const REQUEST_TIMED_OUT: Self = Self(7);
    pub const MESSAGE_TOO_LARGE: Self = Self(10);
    pub const OFFSET_METADATA_TOO_LARGE: Self = Self(12);
    pub const COORDINATOR_NOT_AVAILABLE: Self = Self(15);
    pub const ILLEGAL_GENERATION: Self = Self(22);
    pub const UNKNOWN_MEMBER_ID: Self = Self(25);
    pub const REBALANCE_IN_PROGRESS: Self = Self(27);
    pub const GROUP_AUTHORIZATION_FAILED: Self = Self(30);
    pub const RECORD_LIST_TOO_LARGE: Self = Self(18);
    pub const NOT_ENOUGH_REPLICAS: Self = Self(19);
    pub const TOPIC_AUTHORIZATION_FAILED: Self = Self(29);
    #[cfg(feature = "tls")]
    pub const UNSUPPORTED_SASL_MECHANISM: Self = Self(33);
    #[cfg(feature = "tls")]
    pub const ILLEGAL_SASL_STATE: Self = Self(34);
    pub const UNSUPPORTED_VERSION: Self = Self(35);
    #[cfg(feature = "tls")]
    pub const SASL_AUTHENTICATION_FAILED: Self = Self(58);
    pub const CORRUPT_MESSAGE: Self = Self(2);
    pub const INVALID_TIMESTAMP: Self = Self(32);
    pub const INVALID_RECORD: Self = Self(87);
    pub const UNSUPPORTED_COMPRESSION: Self = Self(76);

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

    fn name(self) -> &'static str {
        match self.0 {
            0 => "NONE",
            1 => "OFFSET_OUT_OF_RANGE",
            2 => "CORRUPT_MESSAGE",
            3 => "UNKNOWN_TOPIC_OR_PARTITION",
            5 => "LEADER_NOT_AVAILABLE",
            6 => "NOT_LEADER_OR_FOLLOWER",
            7 => "REQUEST_TIMED_OUT",
            8 => "BROKER_NOT_AVAILABLE",
            9 => "REPLICA_NOT_AVAILABLE",
            10 => "MESSAGE_TOO_LARGE",
            12 => "OFFSET_METADATA_TOO_LARGE",
            14 => "COORDINATOR_LOAD_IN_PROGRESS",
            15 => "COORDINATOR_NOT_AVAILABLE",
            16 => "NOT_COORDINATOR",
            17 => "INVALID_TOPIC_EXCEPTION",
            18 => "RECORD_LIST_TOO_LARGE",
            19 => "NOT_ENOUGH_REPLICAS",
            20 => "NOT_ENOUGH_REPLICAS_AFTER_APPEND",
            22 => "ILLEGAL_GENERATION",
            25 => "UNKNOWN_MEMBER_ID",
            27 => "REBALANCE_IN_PROGRESS",
            29 => "TOPIC_AUTHORIZATION_FAILED",
            30 => "GROUP_AUTHORIZATION_FAILED",
            31 => "CLUSTER_AUTHORIZATION_FAILED",
            32 => "INVALID_TIMESTAMP",
            33 => "UNSUPPORTED_SASL_MECHANISM",
            34 => "ILLEGAL_SASL_STATE",
            35 => "UNSUPPORTED_VERSION",
            43 => "UNSUPPORTED_FOR_MESSAGE_FORMAT",
            44 => "POLICY_VIOLATION",
            45 => "OUT_OF_ORDER_SEQUENCE_NUMBER",
            46 => "DUPLICATE_SEQUENCE_NUMBER",
            47 => "INVALID_PRODUCER_EPOCH",
            56 => "KAFKA_STORAGE_ERROR",
            58 => "SASL_AUTHENTICATION_FAILED",
            59 => "UNKNOWN_PRODUCER_ID",
            74 => "FENCED_LEADER_EPOCH",
            75 => "UNKNOWN_LEADER_EPOCH",
            76 => "UNSUPPORTED_COMPRESSION_TYPE",
            78 => "OFFSET_NOT_AVAILABLE",
            87 => "INVALID_RECORD",
            _ => "see the Kafka protocol guide",
        }
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
