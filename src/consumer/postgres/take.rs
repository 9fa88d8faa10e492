//! Makes partitions ours: at a start those of the progress, later those that are new.

use std::collections::BTreeMap;

use crate::consumer::destination::DestinationError;
use crate::consumer::postgres::error::PgError;
use crate::consumer::postgres::offsets::{self, Identity, OffsetRow, row_key};
use crate::consumer::postgres::session::{Session, lock_class};
use crate::consumer::progress::Progress;
use crate::tables::named;

/// When partitions are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// A start, which tries again if something has changed since it decided.
    Start,
    /// Reading has begun.
    Running,
}

impl Moment {
    /// What a failed call means.
    pub fn failed(self, error: PgError) -> DestinationError {
        if self == Self::Start { error.at_start() } else { error.while_running() }
    }
}

/// Stores `progress` for its partitions with our claim, and returns how often reading went back in each. An error leaves
/// the session in any state.
///
/// # Errors
/// Retryable if another consumer has one of them, or has changed them at the same time. Restart if one that was to be new
/// is there. Refused if the tables do not agree with each other.
pub fn partitions(
    session: &mut Session,
    us: &Identity,
    progress: &Progress,
    moment: Moment,
) -> Result<BTreeMap<i32, i32>, DestinationError> {
    if progress.offsets.is_empty() {
        return Ok(BTreeMap::new());
    }
    let class = lock_class(&us.schema, &us.topic);
    let failed = |error| moment.failed(error);
    if let Some(holder) = session.lock(class, progress.offsets.keys().copied()).map_err(failed)? {
        return Err(DestinationError::Retryable(format!("{holder}; waiting for it to end")));
    }
    // All consumers of these tables take partitions one after the other, so they agree about the tables' identity.
    session.run(&format!("BEGIN; SELECT pg_advisory_xact_lock({class}, -1)")).map_err(failed)?;
    let all = session.run(&offsets::select(&us.schema, &us.topic, "ORDER BY partition")).map_err(failed)?;
    let all = offsets::parse(&all.rows).map_err(DestinationError::Refused)?;
    if let Some(other) = all.iter().find(|row| row.log_id != us.log_id && moment == Moment::Start) {
        let reason = format!("another consumer has just given the tables their identity ({})", other.log_id);
        return Err(DestinationError::Retryable(reason));
    }
    let ours = session.run(&locked(us, progress)).map_err(failed)?;
    let ours = offsets::parse(&ours.rows).map_err(DestinationError::Refused)?;
    let histories = histories(us, &ours, progress, moment)?;
    check_rows(session, us, progress, (&ours, &histories), moment)?;
    let rows: Vec<_> = (progress.offsets.iter())
        .map(|(partition, &next)| (*partition, histories[partition], next, progress.trails.get(partition)))
        .collect();
    let answer = session.run(&format!("{}; COMMIT", offsets::take(us, &rows))).map_err(failed)?;
    if answer.tags.last().map(String::as_str) == Some("COMMIT") {
        Ok(histories)
    } else {
        Err(DestinationError::Retryable("the transaction was rolled back instead of committed".into()))
    }
}

/// Reads our rows; waits for a transaction that still writes them.
fn locked(us: &Identity, progress: &Progress) -> String {
    let list: Vec<String> = progress.offsets.keys().map(i32::to_string).collect();
    let more = format!("AND partition IN ({}) ORDER BY partition FOR UPDATE", list.join(", "));
    offsets::select(&us.schema, &us.topic, &more)
}

/// How often reading went back in each partition of `progress`, compared with the `rows` that are there.
fn histories(
    us: &Identity,
    rows: &[OffsetRow],
    progress: &Progress,
    moment: Moment,
) -> Result<BTreeMap<i32, i32>, DestinationError> {
    let mut histories = BTreeMap::new();
    for (partition, next) in &progress.offsets {
        let Some(row) = rows.iter().find(|row| row.partition == *partition) else {
            histories.insert(*partition, 0);
            continue;
        };
        let is_ours = (row.claim, &row.writer) == (us.claim, &us.writer);
        if row.claim >= us.claim && !is_ours {
            let reason = format!("another consumer has taken partition {partition} (claim {})", row.claim);
            return Err(match moment {
                Moment::Start => DestinationError::Retryable(reason),
                Moment::Running => {
                    DestinationError::Refused(format!("{reason}; run only one consumer per shard"))
                }
            });
        }
        if !is_ours && moment == Moment::Running {
            // Where it continues is for a start to decide.
            return Err(DestinationError::Restart(format!(
                "event_offsets has a row for partition {partition} since this consumer started; started again, it \
                 continues there"
            )));
        }
        histories.insert(*partition, row.history + i32::from(*next < row.next));
    }
    Ok(histories)
}

/// Checks that the tables have no rows at the offsets that are read next. The database would never accept those.
fn check_rows(
    session: &mut Session,
    us: &Identity,
    progress: &Progress,
    (ours, histories): (&[OffsetRow], &BTreeMap<i32, i32>),
    moment: Moment,
) -> Result<(), DestinationError> {
    let keys: BTreeMap<i32, String> = (histories.iter())
        .map(|(partition, history)| (*partition, row_key(&us.topic, us.topic_id.as_deref(), *history)))
        .collect();
    let answer = session.run(&offsets::last_rows(&us.schema, &keys)).map_err(|error| moment.failed(error))?;
    for row in &answer.rows {
        let number = |at: usize| row.get(at)?.as_ref()?.parse::<i64>().ok();
        let partition = number(0).and_then(|number| i32::try_from(number).ok()).unwrap_or_default();
        let next = progress.offsets.get(&partition).copied().unwrap_or_default();
        let Some((last, table)) = [(number(1), "events"), (number(2), "event_rejects")]
            .into_iter()
            .max()
            .and_then(|(last, table)| Some((last?, table)))
            .filter(|(last, _)| *last >= next)
        else {
            continue;
        };
        let has_row = ours.iter().any(|row| row.partition == partition);
        return Err(DestinationError::Refused(disagreement(
            us,
            (partition, &keys[&partition]),
            (last, table),
            next,
            has_row,
        )));
    }
    Ok(())
}

/// Says that `table` has offset `last` although `next` is to be read next. With events alone emptied, those of
/// `event_rejects` would be read again.
fn disagreement(
    us: &Identity,
    (partition, key): (i32, &str),
    (last, table): (i64, &str),
    next: i64,
    has_row: bool,
) -> String {
    let offsets = named(&us.schema, "event_offsets");
    let go_on =
        if has_row { format!("put next_offset = {} into {offsets}; or ", last + 1) } else { String::new() };
    format!(
        "{} has offset {last} of partition {partition} (topic_id {key}), but {next} is to be read next: {offsets} is \
         missing, or one of the tables was changed or restored alone. Options: restore all three tables together; or \
         {go_on}empty all three and set a new KAFKA_GROUP to read the topic from its beginning",
        named(&us.schema, table)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::Trail;

    #[test]
    fn going_back_is_counted_and_a_newer_claim_is_left_alone() {
        let us = Identity {
            schema: "s".into(),
            topic: "t".into(),
            topic_id: None,
            log_id: "l".into(),
            claim: 5,
            writer: "w".into(),
            shard: "0/1".into(),
        };
        let row = |claim, writer: &str| OffsetRow {
            partition: 1,
            topic_id: None,
            history: 2,
            next: 10,
            trail: Trail::default(),
            log_id: "l".into(),
            claim,
            writer: writer.into(),
        };
        let at = |next, row: OffsetRow, moment| {
            let progress = Progress { offsets: [(0, 3), (1, next)].into(), ..Progress::default() };
            histories(&us, &[row], &progress, moment)
        };
        assert_eq!(at(10, row(4, "x"), Moment::Start), Ok([(0, 0), (1, 2)].into()));
        assert_eq!(at(9, row(4, "x"), Moment::Start), Ok([(0, 0), (1, 3)].into()));
        assert_eq!(at(10, row(5, "w"), Moment::Running), Ok([(0, 0), (1, 2)].into()));
        assert!(matches!(at(10, row(5, "x"), Moment::Start), Err(DestinationError::Retryable(_))));
        assert!(matches!(at(10, row(6, "x"), Moment::Running), Err(DestinationError::Refused(_))));
        assert!(matches!(at(10, row(4, "x"), Moment::Running), Err(DestinationError::Restart(_))));
    }
}
