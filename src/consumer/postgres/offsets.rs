//! The rows of `event_offsets`: the progress of each partition, and who writes it. Pure.
//!
//! A row belongs to the consumer whose claim and name it has. A transaction changes the rows of its partitions only
//! if they still are as that consumer left them.

use std::collections::BTreeMap;
use std::fmt::Write;

use postgres_protocol::escape::escape_literal;

use crate::broker::Trail;
use crate::consumer::postgres::connection::Row;
use crate::consumer::progress::{Offsets, Progress, is_another};
use crate::tables::named;

/// Who writes, and where.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The schema with the tables.
    pub schema: String,
    /// The topic.
    pub topic: String,
    /// Its identity, if the brokers have one.
    pub topic_id: Option<String>,
    /// Identity of the tables in the group.
    pub log_id: String,
    /// The number of this start.
    pub claim: u64,
    /// Name of this start, which no other has.
    pub writer: String,
    /// The shard, for people.
    pub shard: String,
}

/// A row of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OffsetRow {
    /// The partition.
    pub partition: i32,
    /// The topic's identity, if it was known.
    pub topic_id: Option<String>,
    /// How often reading went back in it.
    pub history: i32,
    /// Next offset to read.
    pub next: i64,
    /// What was read before it.
    pub trail: Trail,
    /// Identity of the tables in the group.
    pub log_id: String,
    /// The number of the start that owns it.
    pub claim: u64,
    /// The name of that start.
    pub writer: String,
}

/// A partition as it is after a transaction.
#[derive(Clone, Debug)]
pub struct Change<'a> {
    /// The partition.
    pub partition: i32,
    /// Next offset before.
    pub from: i64,
    /// Next offset after.
    pub to: i64,
    /// What was read then.
    pub trail: Option<&'a Trail>,
}

/// The partitions of which more was `read` than is `covered`.
pub fn changes<'a>(covered: &Progress, read: &'a Progress) -> Vec<Change<'a>> {
    let change = |(&partition, &to): (&i32, &i64)| {
        let from = *covered.offsets.get(&partition)?;
        let trail = read.trails.get(&partition);
        let has_changed = from != to || trail != covered.trails.get(&partition);
        has_changed.then_some(Change { partition, from, to, trail })
    };
    read.offsets.iter().filter_map(change).collect()
}

/// Whether the rows of `event_offsets` are locked to read them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// No: nothing of ours is under way.
    Plain,
    /// Yes: this waits for a transaction of an earlier session that is still under way.
    Locked,
}

/// How the rows stand to what this consumer has written.
#[derive(Debug, PartialEq, Eq)]
pub enum Standing {
    /// As it has left them.
    AsBefore,
    /// The transaction of unknown outcome was committed.
    Committed,
    /// Another consumer owns one of them, or somebody has changed it: the reason.
    Taken(String),
    /// The database has lost transactions that it had confirmed: the reason.
    Behind(String),
}

/// The column `topic_id` of rows that are read from a partition now. Where reading went back, the rows before stay: the
/// topic has other records at those offsets, so it counts as another one.
pub fn row_key(topic: &str, topic_id: Option<&str>, history: i32) -> String {
    let id = topic_id.map_or_else(|| format!("topic:{topic}"), str::to_owned);
    if history == 0 { id } else { format!("{id}~{history}") }
}

/// Reads all rows of a topic; `more` is the end of the statement.
pub fn select(schema: &str, topic: &str, more: &str) -> String {
    format!(
        "SELECT partition, topic_id, history, next_offset, trail, log_id, claim, writer FROM {} WHERE topic ={} {more}",
        named(schema, "event_offsets"),
        escape_literal(topic)
    )
}

/// Reads the rows of an answer to [`select`].
///
/// # Errors
/// A row was changed by hand into something that this program does not write.
pub fn parse(rows: &[Row]) -> Result<Vec<OffsetRow>, String> {
    rows.iter()
        .map(|row| {
            parse_one(row).ok_or_else(|| format!("event_offsets has a row that cannot be read: {row:?}"))
        })
        .collect()
}

fn parse_one(row: &Row) -> Option<OffsetRow> {
    let [partition, topic_id, history, next, trail, log_id, claim, writer] = row.as_slice() else {
        return None;
    };
    Some(OffsetRow {
        partition: partition.as_ref()?.parse().ok()?,
        topic_id: topic_id.clone(),
        history: history.as_ref()?.parse().ok()?,
        next: next.as_ref()?.parse().ok()?,
        trail: serde_json::from_str(trail.as_ref()?).ok()?,
        log_id: log_id.clone()?,
        claim: claim.as_ref()?.parse().ok()?,
        writer: writer.clone()?,
    })
}

/// The progress that `rows`, those of our partitions, say. Of several topics of this name, it is that of the newest. A row
/// without an id is from a time when the brokers had none.
pub fn progress(rows: &[&OffsetRow], topic: &str, shard: &str, log_id: &str) -> Option<Progress> {
    let claim = rows.iter().map(|row| row.claim).max()?;
    let topic_id = rows.iter().filter(|row| row.topic_id.is_some()).max_by_key(|row| row.claim);
    let topic_id = topic_id.and_then(|row| row.topic_id.clone());
    let is_ours = |row: &&&OffsetRow| !is_another(row.topic_id.as_deref(), topic_id.as_deref());
    let ours: Vec<_> = rows.iter().filter(is_ours).collect();
    Some(Progress {
        topic: topic.to_owned(),
        topic_id: topic_id.clone(),
        shard: shard.to_owned(),
        log_id: Some(log_id.to_owned()),
        claim: Some(claim),
        offsets: ours.iter().map(|row| (row.partition, row.next)).collect(),
        trails: ours.iter().map(|row| (row.partition, row.trail.clone())).collect(),
    })
}

/// Makes rows ours: partition, history, next offset and what was read before.
pub fn take(us: &Identity, rows: &[(i32, i32, i64, Option<&Trail>)]) -> String {
    let values: Vec<String> = rows
        .iter()
        .map(|(partition, history, next, trail)| {
            format!(
                "({topic}, {partition}, {topic_id}, {history}, {next}, {trail}, {log}, {claim}, {writer}, {shard})",
                topic = escape_literal(&us.topic),
                topic_id = us.topic_id.as_deref().map_or_else(|| "NULL".into(), escape_literal),
                trail = trail_literal(*trail),
                log = escape_literal(&us.log_id),
                claim = us.claim,
                writer = escape_literal(&us.writer),
                shard = escape_literal(&us.shard),
            )
        })
        .collect();
    format!(
        "INSERT INTO {} (topic, partition, topic_id, history, next_offset, trail, log_id, claim, writer, shard) VALUES {} \
         ON CONFLICT (topic, partition) DO UPDATE SET topic_id = excluded.topic_id, history = excluded.history, \
         next_offset = excluded.next_offset, trail = excluded.trail, log_id = excluded.log_id, claim = excluded.claim, \
         writer = excluded.writer, shard = excluded.shard, updated_at = now()",
        named(&us.schema, "event_offsets"),
        values.join(", ")
    )
}

/// Moves rows on, but only those that are as we left them: this keeps out a consumer that was replaced.
pub fn advance(us: &Identity, changes: &[Change<'_>]) -> String {
    let mut values = String::new();
    for Change { partition, from, to, trail } in changes {
        let comma = if values.is_empty() { "" } else { ", " };
        let _ =
            write!(values, "{comma}({partition}, {from}::bigint, {to}::bigint, {})", trail_literal(*trail));
    }
    format!(
        "UPDATE {} AS o SET next_offset = v.new, trail = v.trail, updated_at = now() FROM (VALUES {values}) AS \
         v(partition, old, new, trail) WHERE o.topic ={} AND o.partition = v.partition AND o.next_offset = v.old AND \
         o.claim = {} AND o.writer ={}",
        named(&us.schema, "event_offsets"),
        escape_literal(&us.topic),
        us.claim,
        escape_literal(&us.writer)
    )
}

/// The last offsets that `events` and `event_rejects` have for each partition and its key.
pub fn last_rows(schema: &str, keys: &BTreeMap<i32, String>) -> String {
    let values: Vec<String> =
        keys.iter().map(|(partition, key)| format!("({partition}, {})", escape_literal(key))).collect();
    let last = |table: &str| {
        format!(
            "(SELECT max(e.\"offset\") FROM {} e WHERE e.topic_id = k.key AND e.partition = k.partition)",
            named(schema, table)
        )
    };
    format!(
        "SELECT k.partition, {}, {} FROM (VALUES {}) AS k(partition, key)",
        last("events"),
        last("event_rejects"),
        values.join(", ")
    )
}

fn trail_literal(trail: Option<&Trail>) -> String {
    let text =
        serde_json::to_string(trail.unwrap_or(&Trail::default())).expect("a struct of plain values is JSON");
    format!("{}::json", escape_literal(&text))
}

/// How `rows` stand to `covered`, and to `doubt`, what a commit of unknown outcome would have made of it.
pub fn standing(us: &Identity, rows: &[OffsetRow], covered: &Offsets, doubt: Option<&Offsets>) -> Standing {
    let (mut is_before, mut is_after) = (true, doubt.is_some());
    for (partition, before) in covered {
        let name = format!("partition {partition} of topic {}", us.topic);
        let Some(row) = rows.iter().find(|row| row.partition == *partition) else {
            return Standing::Behind(format!(
                "event_offsets has no row for {name} any more: somebody has removed it, or this server lacks the latest \
                 transactions; started again, the consumer finds out how to continue"
            ));
        };
        let is_ours = (row.claim, &row.writer) == (us.claim, &us.writer);
        if !is_ours && row.claim >= us.claim {
            return Standing::Taken(format!(
                "another consumer writes {name} into these tables now (claim {}, ours is {}); this one stops, so that no \
                 event is written twice. Run only one consumer per shard",
                row.claim, us.claim
            ));
        }
        if !is_ours || row.next < *before {
            return Standing::Behind(format!(
                "the database has lost transactions that it had confirmed (event_offsets says {} for {name}, and {before} \
                 was committed): it was restored, has failed over to a server that lagged behind, or has \
                 synchronous_commit off; started again, the consumer continues from there",
                row.next
            ));
        }
        let after = doubt.and_then(|doubt| doubt.get(partition)).unwrap_or(before);
        is_before &= row.next == *before;
        is_after &= row.next == *after;
    }
    match (is_before, is_after) {
        (true, _) => Standing::AsBefore,
        (false, true) => Standing::Committed,
        (false, false) => Standing::Taken(format!(
            "event_offsets of topic {} has offsets that this consumer has not written; start again to continue from them",
            us.topic
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn us() -> Identity {
        Identity {
            schema: "public".into(),
            topic: "it's".into(),
            topic_id: None,
            log_id: "log".into(),
            claim: 5,
            writer: "w".into(),
            shard: "0/1".into(),
        }
    }

    fn row(partition: i32, next: i64, claim: u64, writer: &str) -> OffsetRow {
        OffsetRow {
            partition,
            topic_id: Some("id".into()),
            history: 0,
            next,
            trail: Trail::default(),
            log_id: "log".into(),
            claim,
            writer: writer.into(),
        }
    }

    #[test]
    fn a_commit_of_unknown_outcome_is_known_from_the_rows() {
        let (covered, doubt): (Offsets, Offsets) = ([(0, 5), (1, 7)].into(), [(0, 9), (1, 7)].into());
        let standing = |rows: &[OffsetRow], doubt| standing(&us(), rows, &covered, doubt);
        let same = row(1, 7, 5, "w");
        assert_eq!(standing(&[row(0, 5, 5, "w"), same.clone()], None), Standing::AsBefore);
        assert_eq!(standing(&[row(0, 5, 5, "w"), same.clone()], Some(&doubt)), Standing::AsBefore);
        assert_eq!(standing(&[row(0, 9, 5, "w"), same.clone()], Some(&doubt)), Standing::Committed);
        for (rows, doubt) in [
            (vec![row(0, 9, 5, "w"), same.clone()], None),
            (vec![row(0, 6, 5, "w"), same.clone()], Some(&doubt)),
            (vec![row(0, 5, 6, "x"), same.clone()], None),
            (vec![row(0, 5, 5, "x"), same.clone()], None),
        ] {
            let found = standing(&rows, doubt);
            assert!(matches!(found, Standing::Taken(_)), "{rows:?}: {found:?}");
        }
        for rows in [
            vec![row(0, 4, 5, "w"), same.clone()],
            vec![row(0, 5, 4, "before"), same.clone()],
            vec![same.clone()],
        ] {
            assert!(matches!(standing(&rows, None), Standing::Behind(_)), "{rows:?}");
        }
    }

    #[test]
    fn rows_that_went_back_get_another_key() {
        assert_eq!(row_key("events", Some("ab"), 0), "ab");
        assert_eq!(row_key("events", Some("ab"), 2), "ab~2");
        assert_eq!(row_key("events", None, 0), "topic:events");
    }

    #[test]
    fn statements_quote_names() {
        let change = Change { partition: 3, from: 1, to: 2, trail: None };
        let sql = advance(&us(), &[change.clone(), Change { partition: 4, ..change }]);
        assert!(sql.contains("o.topic = 'it''s'") || sql.contains("o.topic ='it''s'"), "{sql}");
        assert!(sql.contains("(3, 1::bigint, 2::bigint, "), "{sql}");
    }

    #[test]
    fn the_progress_is_that_of_the_newest_topic() {
        let (old, new) = (OffsetRow { topic_id: Some("old".into()), ..row(0, 9, 3, "w") }, row(1, 4, 8, "w"));
        let progress = progress(&[&old, &new], "events", "0/1", "log").expect("rows");
        assert_eq!((progress.topic_id.as_deref(), progress.claim), (Some("id"), Some(8)));
        assert_eq!(progress.offsets, [(1, 4)].into());
        let (unknown, new) = (OffsetRow { topic_id: None, ..row(2, 6, 9, "w") }, row(1, 4, 8, "w"));
        let progress = super::progress(&[&old, &new, &unknown], "events", "0/1", "log").expect("rows");
        assert_eq!((progress.topic_id.as_deref(), progress.claim), (Some("id"), Some(9)));
        assert_eq!(progress.offsets, [(1, 4), (2, 6)].into());
        assert_eq!(super::progress(&[], "events", "0/1", "log"), None);
        assert!(parse(&[vec![Some("x".into())]]).is_err());
    }
}
