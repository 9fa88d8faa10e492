//! Errors from Kafka access, classified by how callers must react.

use std::fmt;
use std::time::Instant;

/// Why a call on a `Sink` or `Source` failed. The text names the host or partition, the value, and what to
/// do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BrokerError {
    /// Worth retrying later: unreachable, timed out, leader moving, too few replicas. A record that was being
    /// sent may have been written anyway.
    Retryable(String),
    /// Like `Retryable`, but reported by the leader itself: records from an earlier call are still waiting
    /// for the replicas of their partition, while other partitions acknowledge records without a key.
    Waiting(String),
    /// A quota of the broker is exceeded: until the given time it reads no requests on this connection.
    /// Nothing was sent.
    Throttled(Instant, String),
    /// This record alone exceeds the topic's limit (`max.message.bytes`); a retry cannot help.
    TooLarge(String),
    /// Kafka permanently rejects this record, for the reason it gives; a retry cannot help. Other records are
    /// accepted.
    Rejected(String),
    /// The requested offset is no longer, or not yet, in the partition.
    OffsetOutOfRange(String),
    /// The partition's log is not the one that was read: it was truncated, and may hold other records there
    /// now.
    Parted(Parting),
    /// This client cannot read the partition's data (lz4, zstd): change the topic or the producer.
    Unreadable(String),
    /// A broker was reached, but it did not accept us or did not prove its identity: certificate, name,
    /// password, protocol. A setting or the broker must be changed, so a program that is starting exits. A
    /// program that was accepted before retries, because the mistake may be the broker's and may be fixed
    /// while the program runs.
    Refused(String),
    /// The broker does not allow this operation on the group: an ACL, members of another program, a broker
    /// setting. The same call fails until that is changed; records are not affected.
    Denied(String),
    /// The broker cannot serve this client at all, and no retry helps: wrong Kafka version.
    Unsupported(String),
}

/// Result of a call on the broker, or another one with an error of its own.
pub type Result<T, E = BrokerError> = std::result::Result<T, E>;

/// Where a leader's log diverges from what was read of the partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parting {
    /// Identical up to this offset, different from there on.
    At(i64),
    /// The log has none of the remembered records, which begin at this offset.
    Before(i64),
}

impl BrokerError {
    /// True if the same call may succeed later without intervention.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Retryable(_) | Self::Waiting(_) | Self::Throttled(..))
    }

    /// A short, stable name for metrics and logs.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Retryable(_) => "retryable",
            Self::Waiting(_) => "waiting",
            Self::Throttled(..) => "throttled",
            Self::TooLarge(_) => "too_large",
            Self::Rejected(_) => "rejected",
            Self::OffsetOutOfRange(_) => "offset_out_of_range",
            Self::Parted(_) => "parted",
            Self::Unreadable(_) => "unreadable",
            Self::Refused(_) => "refused",
            Self::Denied(_) => "denied",
            Self::Unsupported(_) => "unsupported",
        }
    }
}

impl fmt::Display for BrokerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Parted(Parting::At(offset)) => {
                write!(f, "the partition's log differs from what was read, from offset {offset} on")
            }
            Self::Parted(Parting::Before(offset)) => {
                write!(f, "the partition's log has none of what was read from offset {offset} on")
            }
            Self::Retryable(text)
            | Self::Waiting(text)
            | Self::Throttled(_, text)
            | Self::TooLarge(text)
            | Self::Rejected(text)
            | Self::OffsetOutOfRange(text)
            | Self::Unreadable(text)
            | Self::Refused(text)
            | Self::Denied(text)
            | Self::Unsupported(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for BrokerError {}
