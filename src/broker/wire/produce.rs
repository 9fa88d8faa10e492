//! Requests that write: Produce, with or without reasons for what a broker rejects, and InitProducerId.

use std::time::Duration;

use crate::broker::client::{Batch, Produced, Verdict};
use crate::broker::error::{BrokerError, Result};
use crate::broker::protocol::{
    Api, Call, Code, Malformed, PRODUCE_KEY, PerPartition, REASONS_PRODUCE, Writer, answers_exactly,
    per_partition,
};
use crate::broker::wire::batch;
use crate::broker::wire::sequence::ProducerId;

const PRODUCE: Api = Api { name: "Produce", key: PRODUCE_KEY, version: 3 };
const PRODUCE_WITH_REASONS: Api = Api { version: REASONS_PRODUCE, ..PRODUCE };
const INIT_PRODUCER_ID: Api = Api { name: "InitProducerId", key: 22, version: 0 };

const NULL: i16 = -1;
const ALL_REPLICAS: i16 = -1;

/// Writes `batches` without sequence numbers and without a time, as the kafka crate does, for a broker that
/// gives reasons.
///
/// # Errors
/// Fails with [`BrokerError::Retryable`]. Any of the batches may have been written.
pub fn produce_plainly(
    on: &mut Call<'_>,
    batches: &[Batch<'_>],
    ack_timeout: Duration,
) -> Result<PerPartition<Produced>> {
    const NO_TIME: i64 = -1;
    let body = produce_body(on.topic, ack_timeout).array(batches, |w, batch| {
        w.i32(batch.partition).bytes(&batch::encode(&batch.records, batch::Stamp::NONE, NO_TIME))
    });
    let outcomes = produced(on, body)?;
    check_answers(on.connection.host(), batches, &outcomes)?;
    Ok(outcomes)
}

/// The beginning of a produce request, up to the partitions of the topic.
pub fn produce_body(topic: &str, ack_timeout: Duration) -> Writer<'static> {
    let ack_timeout = i32::try_from(ack_timeout.as_millis()).unwrap_or(i32::MAX);
    Writer::default().i16(NULL).i16(ALL_REPLICAS).i32(ack_timeout).i32(1).str(topic)
}

/// Sends a produce request that begins with [`produce_body`].
///
/// # Errors
/// As for [`Call::ask`].
pub fn produced(on: &mut Call<'_>, body: Writer<'_>) -> Result<PerPartition<Produced>> {
    let api = if on.gives_reasons() { PRODUCE_WITH_REASONS } else { PRODUCE };
    let topic = on.topic;
    on.ask(api, body, |r| {
        let outcomes = per_partition(r, topic, |r| {
            let (partition, code, base, _append_time) = (r.i32()?, Code(r.i16()?), r.i64()?, r.i64()?);
            let mut verdict = Verdict::of(code);
            if api.version >= PRODUCE_WITH_REASONS.version {
                let _log_start = r.i64()?;
                let place = |place: i32| usize::try_from(place).map_err(|_| Malformed);
                verdict.records = r.array(|r| Ok((place(r.i32()?)?, r.str()?.to_owned())))?;
                r.str()?.clone_into(&mut verdict.reason);
            }
            let outcome = match code.check() {
                Ok(()) => Ok(Produced::At(base)),
                Err(code) if code.is_of_record() => Ok(Produced::Rejected(verdict)),
                Err(code) => Err(code),
            };
            Ok((partition, outcome))
        })?;
        r.throttle()?;
        Ok(outcomes)
    })
}

pub fn offset_in(outcome: &Result<Produced, Code>) -> Result<i64, Code> {
    match outcome {
        Ok(Produced::At(offset)) => Ok(*offset),
        Ok(Produced::Rejected(verdict)) => Err(verdict.code),
        Err(code) => Err(*code),
    }
}

/// Requires exactly one outcome per batch. If not, the response does not belong to our request.
pub fn check_answers(host: &str, batches: &[Batch<'_>], outcomes: &PerPartition<Produced>) -> Result<()> {
    let asked: Vec<i32> = batches.iter().map(|batch| batch.partition).collect();
    let is_absurd = outcomes.iter().any(|(_, outcome)| offset_in(outcome).is_ok_and(|offset| offset < 0));
    if is_absurd || !answers_exactly(&asked, outcomes) {
        return Err(BrokerError::Retryable(format!("broker {host}: produce: response to another request")));
    }
    Ok(())
}

/// Requests a producer id for batches outside of transactions.
pub fn new_producer_id(on: &mut Call<'_>) -> Result<Result<ProducerId, Code>> {
    let no_transaction_timeout = i32::MAX;
    on.ask(INIT_PRODUCER_ID, Writer::default().i16(NULL).i32(no_transaction_timeout), |r| {
        r.throttle()?;
        let code = Code(r.i16()?);
        let id = (r.i64()?, r.i16()?);
        Ok(code.check().map(|()| id))
    })
}
