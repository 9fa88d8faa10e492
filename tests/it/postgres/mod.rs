//! The consumer with PostgreSQL as its destination: a real topic, the real program, a real server, and SQL afterwards.

mod basics;
mod blame;
mod commits;
mod faults;
mod fencing;
mod monthly;
mod refused;
mod repeats;
mod start;
#[cfg(feature = "tls")]
mod tls;

use std::collections::BTreeMap;

use serde_json::Value;
use tempfile::TempDir;

use crate::consumer::{self, CATCH_UP, wait_ready};
use crate::support::postgres::Database;
use crate::support::process::{Program, Running};
use crate::support::topic::Topic;
use crate::support::wait::{eventually, secs};

/// Events have ids, by which repeated ones are found.
const IDS: (&str, &str) = ("EVENT_ID_FIELD", "event_id");

/// The tables of a topic, over several lives of the consumer.
struct Tables<'a> {
    topic: &'a Topic,
    database: &'a Database<'a>,
    url: String,
    dir: TempDir,
}

impl<'a> Tables<'a> {
    fn new(topic: &'a Topic, database: &'a Database<'a>) -> Self {
        Self { topic, database, url: database.url(), dir: tempfile::tempdir().expect("directory") }
    }

    /// The same, reached through `hosts`.
    fn through(topic: &'a Topic, database: &'a Database<'a>, hosts: &str) -> Self {
        Self { url: database.url_at(hosts), ..Self::new(topic, database) }
    }

    fn program(&self, settings: &[(&str, &str)]) -> Program {
        let ours = [("DESTINATION_URL", self.url.as_str()), ("CREATE_TABLES", "run")];
        consumer::program(self.topic, self.dir.path(), &[&ours, settings].concat())
    }

    fn start(&self, settings: &[(&str, &str)]) -> Running {
        self.program(settings).start()
    }

    /// Starts it and waits until it reads.
    fn start_ready(&self, settings: &[(&str, &str)]) -> Running {
        let mut running = self.start(settings);
        wait_ready(&mut running);
        running
    }

    /// Runs a consumer that cannot work, and returns its exit code and what it said.
    fn fails(&self, settings: &[(&str, &str)]) -> (Option<i32>, String) {
        let finished = self.program(settings).run(secs(120));
        (finished.status.code(), finished.stderr)
    }

    /// Records before the offsets of the table, all partitions together; 0 while it cannot be asked.
    fn covered(&self) -> usize {
        let sql = "SELECT coalesce(sum(next_offset), 0) FROM event_offsets";
        let text = self.database.server.try_sql(&self.database.name, sql);
        text.ok().and_then(|text| text.parse().ok()).unwrap_or_default()
    }

    /// Waits until the offsets cover the whole topic.
    #[track_caller]
    fn wait_caught_up(&self) {
        let count = self.topic.count();
        eventually(CATCH_UP, &format!("all {count} records are covered"), || self.covered() == count);
    }

    /// Waits until more than `before` records are covered.
    #[track_caller]
    fn wait_progress(&self, before: usize) {
        eventually(secs(120), "the consumer makes progress", || self.covered() > before);
    }

    /// Every record of the topic is in `events` or in `event_rejects`, once, unchanged.
    #[track_caller]
    fn audit(&self) {
        let mut events: BTreeMap<(i32, i64), Value> = BTreeMap::new();
        let rows = self.database.sql("SELECT partition, \"offset\", event::text FROM events");
        for row in rows.lines() {
            let (place, text) = place_of(row);
            let event = serde_json::from_str(text).expect("JSON");
            assert!(events.insert(place, event).is_none(), "{place:?} is there twice");
        }
        let mut rejects: BTreeMap<(i32, i64), String> = BTreeMap::new();
        let rows = self.database.sql("SELECT partition, \"offset\", encode(value, 'hex') FROM event_rejects");
        for row in rows.lines() {
            let (place, hex) = place_of(row);
            rejects.insert(place, hex.to_owned());
        }
        for record in self.topic.records() {
            let place = (record.partition, record.offset);
            let value = record.value.clone().unwrap_or_default();
            match (events.remove(&place), rejects.remove(&place)) {
                (Some(event), None) => {
                    let sent: Value = serde_json::from_slice(&value).expect("JSON");
                    assert_eq!(event, sent, "{place:?}");
                }
                (None, Some(hex)) => {
                    let sent: String = value.iter().map(|byte| format!("{byte:02x}")).collect();
                    assert_eq!(hex, sent, "{place:?}");
                }
                (event, reject) => panic!("{place:?} is lost or twice: {event:?} {reject:?}"),
            }
        }
        assert!(events.is_empty() && rejects.is_empty(), "not in the topic: {events:?} {rejects:?}");
    }
}

impl Tables<'_> {
    /// Each of `count` records is in one of the tables, once. For events that are too large for our own JSON reader.
    #[track_caller]
    fn audit_places(&self, count: i64) {
        let both = "SELECT partition, \"offset\" FROM events UNION ALL SELECT partition, \"offset\" FROM event_rejects";
        assert_eq!(self.database.number(&format!("SELECT count(*) FROM ({both}) t")), count);
        assert_eq!(
            self.database.number(&format!("SELECT count(*) FROM (SELECT DISTINCT * FROM ({both}) t) u")),
            count
        );
    }
}

fn place_of(row: &str) -> ((i32, i64), &str) {
    let mut columns = row.splitn(3, '|');
    let mut next = || columns.next().expect("three columns");
    ((next().parse().expect("a partition"), next().parse().expect("an offset")), next())
}

/// Rounds of a test that harms the same thing again and again; `POSTGRES_ROUNDS` sets them, a release takes 100.
fn rounds() -> usize {
    std::env::var("POSTGRES_ROUNDS").map_or(6, |text| text.parse().expect("POSTGRES_ROUNDS is a number"))
}
