//! Asks a leader where each leader epoch ends in its log (OffsetForLeaderEpoch, KIP-320).

use crate::broker::error::Result;
use crate::broker::protocol::code::Code;
use crate::broker::protocol::connection::Api;
use crate::broker::protocol::control::{Call, PerPartition, per_partition};
use crate::broker::protocol::frame::Writer;

/// Available since Kafka 2.3, where it needs only the permission to describe the topic.
pub const EPOCH_ENDS: Api = Api { name: "OffsetForLeaderEpoch", key: 23, version: 3 };

const NO_REPLICA: i32 = -1;

/// A question about one partition.
#[derive(Clone, Copy, Debug)]
pub struct Question {
    pub partition: i32,
    /// Epoch in which the broker must lead the partition; in any other it refuses to answer.
    pub current: i32,
    /// The epoch that is asked about.
    pub epoch: i32,
}

/// Finds the largest epoch in the log up to the one asked about, and the offset after its last record.
///
/// # Errors
/// Fails with `BrokerError::Retryable`. The inner error is the broker's code, also if it does not lead in
/// the epoch that the question names.
pub fn epoch_ends(on: &mut Call<'_>, questions: &[Question]) -> Result<PerPartition<(i32, i64)>> {
    let topic = on.topic;
    let body = Writer::default().i32(NO_REPLICA).array(&[topic], |w, t| {
        w.str(t).array(questions, |w, asked| w.i32(asked.partition).i32(asked.current).i32(asked.epoch))
    });
    on.ask(EPOCH_ENDS, body, |r| {
        r.throttle()?;
        per_partition(r, topic, |r| {
            let (code, partition) = (Code(r.i16()?), r.i32()?);
            let found = (r.i32()?, r.i64()?);
            Ok((partition, code.check().map(|()| found)))
        })
    })
}
