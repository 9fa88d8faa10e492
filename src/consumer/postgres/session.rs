//! A session with the server that accepts writes: statements with a deadline, and locks on partitions.
//!
//! The locks keep a second consumer waiting from its start on. They end with the session, so what protects the tables
//! is the check of `event_offsets` in each transaction.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::config::{DestinationConfig, PostgresUrl};
use crate::consumer::destination::DestinationError;
use crate::consumer::postgres::connection::{Answer, Connection, Row};
use crate::consumer::postgres::error::PgError;
use crate::consumer::postgres::hosts;

/// How much longer than the server's own limit an answer is waited for, so that the server can say what it was.
const GRACE: Duration = Duration::from_secs(5);
/// How long a temporary table is used. Autovacuum leaves it alone, so an old one would keep the whole database from
/// forgetting old transaction ids, which in the end stops all writes.
const TABLE_LIFE: Duration = Duration::from_secs(3600);

/// An open session.
pub struct Session {
    connection: Connection,
    timeout: Duration,
    locked: BTreeSet<i32>,
    /// When the temporary table was made.
    table_since: Option<Instant>,
    is_broken: bool,
    /// When the server answered last.
    pub answered: Instant,
}

impl Session {
    /// Connects.
    ///
    /// # Errors
    /// See [`hosts::connect`].
    pub fn open(config: &DestinationConfig, url: &PostgresUrl) -> Result<Self, PgError> {
        let connection = hosts::connect(config, url)?;
        Ok(Self {
            connection,
            timeout: config.timeout(),
            locked: BTreeSet::new(),
            table_since: None,
            is_broken: false,
            answered: Instant::now(),
        })
    }

    /// The server, host:port.
    pub fn host(&self) -> &str {
        self.connection.host()
    }

    /// Runs statements.
    ///
    /// # Errors
    /// See [`Connection::query`].
    pub fn run(&mut self, sql: &str) -> Result<Answer, PgError> {
        let answer = self.connection.query(sql, Instant::now() + self.timeout + GRACE);
        self.note(answer)
    }

    /// Runs statements that end with a COPY of `parts`.
    ///
    /// # Errors
    /// See [`Connection::copy`].
    pub fn copy(&mut self, sql: &str, parts: &[&[u8]]) -> Result<Answer, PgError> {
        let answer = self.connection.copy(sql, parts, Instant::now() + self.timeout + GRACE);
        self.note(answer)
    }

    fn note(&mut self, answer: Result<Answer, PgError>) -> Result<Answer, PgError> {
        self.is_broken |= answer.as_ref().is_err_and(PgError::ends_connection);
        self.answered = Instant::now();
        answer
    }

    /// Ends what a failed call has left under way; false if the session cannot be used any more.
    pub fn recover(&mut self) -> bool {
        !self.is_broken && self.run("ROLLBACK").is_ok()
    }

    /// The session after a call, unless it cannot be used any more.
    pub fn after<T>(mut self, call: &Result<T, DestinationError>) -> Option<Self> {
        (call.is_ok() || self.recover()).then_some(self)
    }

    /// True once per [`TABLE_LIFE`]: the temporary table is to be made again.
    pub fn renews_table(&mut self, now: Instant) -> bool {
        let is_old = is_old(*self.table_since.get_or_insert(now), now);
        if is_old {
            self.table_since = Some(now);
        }
        is_old
    }

    /// Locks partitions of a topic for as long as the session lasts; `class` stands for the tables and the topic.
    /// If another session has one of them, locks none, and returns who has it: two consumers that each wait with some of
    /// the locks would wait for each other.
    ///
    /// # Errors
    /// See [`Connection::query`].
    pub fn lock(
        &mut self,
        class: i32,
        partitions: impl Iterator<Item = i32>,
    ) -> Result<Option<String>, PgError> {
        let wanted: Vec<i32> = partitions.filter(|partition| !self.locked.contains(partition)).collect();
        if wanted.is_empty() {
            return Ok(None);
        }
        let list: Vec<String> = wanted.iter().map(i32::to_string).collect();
        let list = list.join(", ");
        let sql =
            format!("SELECT p, pg_try_advisory_lock({class}, p) FROM unnest(ARRAY[{list}]::int[]) AS p");
        let answer = self.run(&sql)?;
        let is_locked = |row: &&Row| row.get(1).and_then(Option::as_deref) == Some("t");
        let number = |row: &Row| row.first()?.as_ref()?.parse::<i32>().ok();
        let locked: BTreeSet<i32> = answer.rows.iter().filter(is_locked).filter_map(number).collect();
        let Some(taken) = wanted.into_iter().find(|partition| !locked.contains(partition)) else {
            self.locked.extend(locked);
            return Ok(None);
        };
        self.unlock(class, &locked)?;
        self.holder(class, taken).map(Some)
    }

    fn unlock(&mut self, class: i32, partitions: &BTreeSet<i32>) -> Result<(), PgError> {
        let list: Vec<String> = partitions.iter().map(i32::to_string).collect();
        let list = list.join(", ");
        self.run(&format!("SELECT pg_advisory_unlock({class}, p) FROM unnest(ARRAY[{list}]::int[]) AS p"))
            .map(drop)
    }

    fn holder(&mut self, class: i32, partition: i32) -> Result<String, PgError> {
        let answer = self.run(&format!(
            "SELECT a.pid, a.application_name, host(a.client_addr), a.backend_start FROM pg_locks l JOIN pg_stat_activity a \
             ON a.pid = l.pid WHERE l.locktype = 'advisory' AND l.granted AND l.database = (SELECT oid FROM pg_database \
             WHERE datname = current_database()) AND l.classid = {} AND l.objid = {partition} AND l.objsubid = 2",
            class.cast_unsigned()
        ))?;
        let Some(row) = answer.rows.first() else {
            return Ok(format!("partition {partition} was locked a moment ago"));
        };
        let field =
            |at: usize| row.get(at).and_then(Option::as_deref).filter(|text| !text.is_empty()).unwrap_or("?");
        Ok(format!(
            "partition {partition} is written by another session: {} from {}, since {} (pid {})",
            field(1),
            field(2),
            field(3),
            field(0)
        ))
    }

    /// Says goodbye, so that the server does not log a lost connection.
    pub fn close(mut self) {
        let mut message = bytes::BytesMut::new();
        postgres_protocol::message::frontend::terminate(&mut message);
        let _ = self.connection.send(&message, Instant::now() + Duration::from_secs(1));
    }
}

fn is_old(since: Instant, now: Instant) -> bool {
    now.duration_since(since) >= TABLE_LIFE
}

/// The number that stands for the tables of a schema and a topic in locks.
pub fn lock_class(schema: &str, topic: &str) -> i32 {
    let mut crc = flate2::Crc::new();
    for part in ["event-pipeline", schema, topic] {
        crc.update(part.as_bytes());
        crc.update(&[0]);
    }
    crc.sum().cast_signed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_temporary_table_is_made_again_after_a_while() {
        let since = Instant::now();
        assert!(!is_old(since, since) && !is_old(since, since + TABLE_LIFE / 2));
        assert!(is_old(since, since + TABLE_LIFE));
    }

    #[test]
    fn other_tables_and_topics_have_other_locks() {
        let class = lock_class("public", "events");
        assert_eq!(class, lock_class("public", "events"));
        assert!(
            ![lock_class("publi", "cevents"), lock_class("public", "event"), lock_class("a", "events")]
                .contains(&class)
        );
    }
}
