//! What can go wrong between us and Kafka, in the classes that callers decide by.

use std::fmt;
use std::time::Instant;

use super::Parting;

/// Why a call on a `Sink` or `Source` failed. The text names the host or partition, the value and the way out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BrokerError {
    /// Worth another try later: unreachable, timed out, leader moving, too few replicas.
    /// For a send, the record may have been written all the same.
    Retryable(String),
    /// As retryable, and said by the leader itself: what an earlier call sent still waits for the replicas of its
    /// partition, while others acknowledge records without a key.
    Waiting(String),
    /// A quota of the broker is exceeded: until then it reads no request of this connection. Nothing was sent.
    Throttled(Instant, String),
    /// The record alone exceeds what the topic takes (`max.message.bytes`); a retry cannot help.
    TooLarge(String),
    /// Kafka rejects this record for good, with the broker's reason; a retry cannot help, and other records are taken.
    Rejected(String),
    /// The requested offset is no longer, or not yet, in the partition.
    OffsetOutOfRange(String),
    /// The partition's log is not the one that was read any more: it was cut, and perhaps has other records there.
    Parted(Parting),
    /// The data of this partition cannot be read by this client (lz4, zstd): change the topic or the producer.
    Unreadable(String),
    /// A broker was reached, and it did not let us in or did not prove who it is: certificate, name, password,
    /// protocol. Somebody must change a setting or the broker, so a program that starts ends with it; one that was
    /// let in before tries again, since the mistake may be the broker's and may be mended under it.
    Refused(String),
    /// The broker does not allow this operation on the group: an ACL, members of another program, a setting of the
    /// broker. The same call fails until somebody changes that; records are not concerned.
    Denied(String),
    /// The broker cannot serve this client at all, whatever is retried: wrong Kafka version.
    Unsupported(String),
}

impl BrokerError {
    /// True if the same call may succeed later without anybody's help.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Retryable(_) | Self::Waiting(_) | Self::Throttled(..))
    }

    /// A short stable word for metrics and logs.
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
                write!(f, "the log of the partition is another one from offset {offset} on")
            }
            Self::Parted(Parting::Before(offset)) => {
                write!(f, "the log of the partition has nothing of what was read from offset {offset} on")
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
