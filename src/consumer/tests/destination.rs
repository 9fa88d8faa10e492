//! The writer with a destination that is not a log: a table with its offsets in the same transaction.

use std::sync::Arc;
use std::time::Duration;

use crossbeam::channel::bounded;
use parking_lot::Mutex;

use crate::broker::Page;
use crate::config::EventEcho;
use crate::consumer::destination::{Destination, DestinationError, Record, Staged};
use crate::consumer::failure::{EXIT_UNDECIDED, Failure};
use crate::consumer::progress::Progress;
use crate::consumer::state::State;
use crate::consumer::writer::Writer;
use crate::echo::Echo;
use crate::shutdown::Shutdown;

#[derive(Default)]
struct Table {
    rows: Arc<Mutex<Vec<String>>>,
    transaction: Vec<String>,
    progress: Progress,
    /// What the next commits fail with, the last one first.
    failures: Vec<DestinationError>,
    /// Commits only when it must.
    waits: bool,
}

impl Destination for Table {
    const NAME: &'static str = "table";

    fn covered(&self) -> &Progress {
        &self.progress
    }

    fn stage(&mut self, record: &Record<'_>) -> Staged {
        let text = record.event.unwrap_or_else(|error| error.kind.as_str());
        if record.id.is_some_and(|id| *id.text == *b"known") {
            return Staged::Dropped;
        }
        if self.transaction.len() == 2 {
            return Staged::Full;
        }
        self.transaction.push(format!("{} {text}", record.offset));
        Staged::Taken(record.value.len())
    }

    fn settle(&mut self, read: &Progress, now: bool) -> Result<Option<Duration>, DestinationError> {
        if self.waits && !now {
            return Ok(Some(Duration::from_secs(1)));
        }
        if !self.transaction.is_empty()
            && let Some(error) = self.failures.pop()
        {
            return Err(error);
        }
        self.rows.lock().append(&mut self.transaction);
        self.progress.clone_from(read);
        Ok(None)
    }

    fn close(&mut self) -> Result<(), DestinationError> {
        Ok(())
    }
}

/// Writes `records` records and returns the rows, the state, and how it ended.
fn written(table: Table, records: i64) -> (Vec<String>, State, Result<(), Failure>) {
    let mut page = Page::new(0, records);
    for offset in 0..records {
        page.push(offset, None, if offset == 3 { b"nonsense" } else { b"{}" });
    }
    let (send, pages) = bounded(1);
    send.send(vec![(0, page)]).expect("room");
    drop(send);
    let (_hangup, hangups) = bounded(1);
    let (_trigger, shutdown) = Shutdown::manual();
    let echo = Echo::start(EventEcho::Off, "").expect("no thread");
    let (rows, state) = (table.rows.clone(), Arc::new(State::default()));
    let ended = Writer::new(table, Some("id".into()), echo, (pages, hangups), state.clone(), shutdown).run();
    let rows = rows.lock().clone();
    (rows, Arc::into_inner(state).expect("the writer has ended"), ended)
}

#[test]
fn a_full_transaction_is_settled_and_one_that_fails_is_tried_again() {
    let full = || DestinationError::Retryable("disk full".into());
    let table = Table { failures: vec![full(), full()], ..Table::default() };
    let (rows, state, ended) = written(table, 5);
    ended.expect("all was written");
    assert_eq!(rows, ["0 {}", "1 {}", "2 {}", "3 not_json", "4 {}"]);
    assert_eq!((state.covered(), state.is_closed()), ([(0, 5)].into(), true));
    assert_eq!((state.metrics.write_errors.get(), state.metrics.records.get()), (2, 5));
    assert!(state.problems().is_empty());
}

#[test]
fn a_destination_that_refuses_ends_the_consumer_for_a_human() {
    let failures = vec![DestinationError::Refused("another schema".into())];
    let (rows, state, ended) = written(Table { failures, ..Table::default() }, 5);
    let failure = ended.expect_err("refused");
    assert_eq!((failure.exit_code, failure.reason.as_str()), (EXIT_UNDECIDED, "another schema"));
    assert!(rows.is_empty() && !state.is_closed());
}

#[test]
fn a_record_is_counted_once_it_is_durable() {
    let failures = vec![DestinationError::Refused("another schema".into())];
    let (rows, state, ended) = written(Table { failures, waits: true, ..Table::default() }, 2);
    assert!(ended.is_err() && rows.is_empty());
    assert_eq!(state.metrics.records.get(), 0);
}
