//! Requests that every Kafka from 0.11 to 4.x supports in these versions: versions and offsets; and what is
//! common to the responses of most requests.
//!
//! All requests but ApiVersions, which opens a connection, report whether a quota is exceeded. They use our
//! own bounded connection, whichever client carries the records, because the kafka crate's equivalents block
//! for minutes, retry without end, or hide error codes.

use std::time::Instant;

use crate::broker::error::Result;
use crate::broker::protocol::code::Code;
use crate::broker::protocol::connection::{Api, Connection, MUTING_PRODUCE, PRODUCE_KEY, REASONS_PRODUCE};
use crate::broker::protocol::frame::{Malformed, Reader, Writer};
use crate::broker::record::Bounds;

const LIST_OFFSETS: Api = Api { name: "ListOffsets", key: 2, version: 2 };
const API_VERSIONS: Api = Api { name: "ApiVersions", key: 18, version: 0 };

/// Whether records of transactions that have not been committed are returned.
pub const READ_UNCOMMITTED: i8 = 0;
pub const READ_COMMITTED: i8 = 1;

const LATEST: i64 = -1;
const EARLIEST: i64 = -2;

/// Lowest and highest version of each request that a broker supports.
pub struct Versions(pub Vec<(i16, i16, i16)>);

impl Versions {
    /// True if the broker says that it supports `version` of request `key`.
    pub fn serves(&self, key: i16, version: i16) -> bool {
        self.0.iter().any(|&(api, min, max)| api == key && (min..=max).contains(&version))
    }
}

/// The control connection to a broker during one call, which is about `topic` and must be over at `deadline`.
pub struct Call<'a> {
    pub connection: &'a mut Connection,
    pub versions: &'a Versions,
    pub topic: &'a str,
    pub deadline: Instant,
}

impl Call<'_> {
    /// True if the broker mutes a connection when a quota is exceeded, and says for how long.
    pub fn mutes(&self) -> bool {
        self.versions.serves(PRODUCE_KEY, MUTING_PRODUCE)
    }

    /// True if the broker says which records of a produce request it rejects, and why.
    pub fn gives_reasons(&self) -> bool {
        self.versions.serves(PRODUCE_KEY, REASONS_PRODUCE)
    }

    /// Sends a request and returns what `read` makes of its response.
    ///
    /// # Errors
    /// As for [`Connection::call`].
    pub fn ask<T>(
        &mut self,
        api: Api,
        body: Writer<'_>,
        read: impl FnOnce(&mut Reader<'_>) -> Result<T, Malformed>,
    ) -> Result<T> {
        self.connection.call(api, body, self.deadline, read)
    }
}

/// The broker's outcome for each requested partition.
pub type PerPartition<T> = Vec<(i32, Result<T, Code>)>;

/// Asks which requests the broker supports.
///
/// # Errors
/// Fails with `BrokerError::Retryable`.
pub fn versions(on: &mut Connection, deadline: Instant) -> Result<Versions> {
    on.call(API_VERSIONS, Writer::default(), deadline, |r| {
        let _code = r.i16()?;
        r.array(|r| Ok((r.i16()?, r.i16()?, r.i16()?))).map(Versions)
    })
}

/// Returns the first readable and the next offset of each of `partitions`, all led by the broker behind `on`.
///
/// # Errors
/// Fails with `BrokerError::Retryable`.
pub fn bounds(on: &mut Call<'_>, partitions: &[i32]) -> Result<PerPartition<Bounds>> {
    let earliest = list_offsets(on, partitions, EARLIEST)?;
    let latest = list_offsets(on, partitions, LATEST)?;
    Ok(earliest
        .into_iter()
        .map(|(partition, earliest)| {
            let latest = outcome_of(&latest, partition);
            (partition, earliest.and_then(|earliest| Ok(Bounds { partition, earliest, latest: latest? })))
        })
        .collect())
}

/// Returns the first readable offset of each of `partitions`, all led by the broker behind `on`. This is the
/// cheapest query about a log.
///
/// # Errors
/// Fails with `BrokerError::Retryable`.
pub fn first_offsets(on: &mut Call<'_>, partitions: &[i32]) -> Result<PerPartition<i64>> {
    list_offsets(on, partitions, EARLIEST)
}

fn list_offsets(on: &mut Call<'_>, partitions: &[i32], time: i64) -> Result<PerPartition<i64>> {
    let topic = on.topic;
    let body = Writer::default()
        .i32(-1)
        .i8(READ_UNCOMMITTED)
        .array(&[topic], |w, t| w.str(t).array(partitions, |w, partition| w.i32(*partition).i64(time)));
    on.ask(LIST_OFFSETS, body, |r| {
        r.throttle()?;
        per_partition(r, topic, |r| {
            let (partition, code) = (r.i32()?, Code(r.i16()?));
            let (_time, offset) = (r.i64()?, r.i64()?);
            Ok((partition, code.check().map(|()| offset)))
        })
    })
}

/// Reads `[topic, [partition outcome]]`, the shape of most responses. Any topic other than `topic` is
/// malformed.
pub fn per_partition<T>(
    r: &mut Reader<'_>,
    topic: &str,
    mut each: impl FnMut(&mut Reader<'_>) -> Result<(i32, Result<T, Code>), Malformed>,
) -> Result<PerPartition<T>, Malformed> {
    let topics = r.array(|r| {
        // A response about another topic does not belong to our request.
        if r.str()? != topic {
            return Err(Malformed);
        }
        r.array(&mut each)
    })?;
    Ok(topics.into_iter().flatten().collect())
}

/// True if there is exactly one outcome for each partition of `asked` and no others. If not, the response
/// does not belong to our request.
pub fn answers_exactly<T>(asked: &[i32], outcomes: &PerPartition<T>) -> bool {
    let once = |partition: &i32| outcomes.iter().filter(|(id, _)| id == partition).count() == 1;
    asked.len() == outcomes.len() && asked.iter().all(once)
}

/// The outcome of `partition`. If the broker left it out, it counts as unknown to the broker.
pub fn outcome_of<T: Clone>(outcomes: &PerPartition<T>, partition: i32) -> Result<T, Code> {
    let found = outcomes.iter().find(|(id, _)| *id == partition);
    found.map_or(Err(Code::UNKNOWN_TOPIC_OR_PARTITION), |(_, outcome)| outcome.clone())
}
