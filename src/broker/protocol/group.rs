//! Requests about a consumer group's committed offsets.

use crate::broker::error::Result;
use crate::broker::protocol::code::Code;
use crate::broker::protocol::connection::Api;
use crate::broker::protocol::control::{Call, PerPartition, per_partition};
use crate::broker::protocol::frame::Writer;
use crate::broker::record::{Committed, Position};

const OFFSET_COMMIT: Api = Api { name: "OffsetCommit", key: 8, version: 3 };
const OFFSET_FETCH: Api = Api { name: "OffsetFetch", key: 9, version: 3 };
const FIND_COORDINATOR: Api = Api { name: "FindCoordinator", key: 10, version: 1 };

const GROUP: i8 = 0;

/// Returns the host:port of the broker that keeps the offsets of `group`.
///
/// # Errors
/// Fails with `BrokerError::Retryable`, also while the broker is electing one.
pub fn find_coordinator(on: &mut Call<'_>, group: &str) -> Result<Result<String, Code>> {
    on.ask(FIND_COORDINATOR, Writer::default().str(group).i8(GROUP), |r| {
        r.throttle()?;
        let (code, _message) = (Code(r.i16()?), r.str()?);
        let (_id, host, port) = (r.i32()?, r.str()?, r.i32()?);
        Ok(code.check().map(|()| format!("{host}:{port}")))
    })
}

/// Returns what `group` has committed; `None` where it never did. `on` must be connected to its coordinator.
///
/// # Errors
/// Fails with `BrokerError::Retryable`. The inner error is the broker's code for the group as a whole.
pub fn committed(
    on: &mut Call<'_>,
    group: &str,
    partitions: &[i32],
) -> Result<Result<PerPartition<Option<Committed>>, Code>> {
    let topic = on.topic;
    let body = Writer::default()
        .str(group)
        .array(&[topic], |w, t| w.str(t).array(partitions, |w, partition| w.i32(*partition)));
    on.ask(OFFSET_FETCH, body, |r| {
        r.throttle()?;
        let offsets = per_partition(r, topic, |r| {
            let (partition, offset, note, code) = (r.i32()?, r.i64()?, r.str()?.to_owned(), Code(r.i16()?));
            Ok((partition, code.check().map(|()| (offset >= 0).then_some(Committed { offset, note }))))
        })?;
        // Version 2 added this code for the whole group; version 1 reports nothing committed while the
        // coordinator loads.
        Ok(Code(r.i16()?).check().map(|()| offsets))
    })
}

/// Commits `positions` with `note` for `group`, without being a member. `on` must be connected to its
/// coordinator.
///
/// # Errors
/// Fails with `BrokerError::Retryable`.
pub fn commit(
    on: &mut Call<'_>,
    group: &str,
    positions: &[Position],
    note: &str,
) -> Result<PerPartition<()>> {
    let topic = on.topic;
    let body = Writer::default().str(group).i32(-1).str("").i64(-1).array(&[topic], |w, t| {
        w.str(t).array(positions, |w, position| w.i32(position.partition).i64(position.offset).str(note))
    });
    on.ask(OFFSET_COMMIT, body, |r| {
        r.throttle()?;
        per_partition(r, topic, |r| Ok((r.i32()?, Code(r.i16()?).check())))
    })
}
