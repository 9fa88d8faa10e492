//! Findings of an audit, as text and as JSON. Pure.

use std::fmt::Write;
use std::time::Duration;

use serde_json::{Value, json};

/// Most examples kept per finding.
const MAX_EXAMPLES: usize = 10;

/// A count, with the first few examples.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listed<T> {
    /// Number of occurrences.
    pub count: u64,
    /// The first few occurrences.
    pub first: Vec<T>,
}

impl<T> Listed<T> {
    /// Counts one more, and keeps it if it is one of the first.
    pub fn add(&mut self, example: impl FnOnce() -> T) {
        self.count += 1;
        if self.first.len() < MAX_EXAMPLES {
            self.first.push(example());
        }
    }
}

/// Findings of an audit. Events are identified by their sequence numbers.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    /// Events with a recorded outcome.
    pub sent: u64,
    /// Events that were acknowledged.
    pub acknowledged: u64,
    /// Events that the simulator sent more than once.
    pub repeated: u64,
    /// Events with a recorded outcome that are in the log, each counted once.
    pub logged: u64,
    /// Acknowledged events that are not in the log.
    pub lost: Listed<u32>,
    /// Events that are in the log more than once.
    pub duplicated: Listed<u32>,
    /// Duplicated events that the simulator itself sent more than once.
    pub duplicated_by_retry: u64,
    /// Events that were not acknowledged but are in the log, which is allowed.
    pub unknown_found: u64,
    /// Events that were not acknowledged and are not in the log, which is allowed.
    pub unknown_missing: u64,
    /// Events that were permanently rejected but are in the log.
    pub rejected_logged: Listed<u32>,
    /// Lines of this run without a recorded outcome, because the simulator died before it recorded it.
    pub unrecorded: u64,
    /// Events that come after one of the same partition with the same or a higher offset, in the same log.
    pub out_of_order: Listed<u32>,
    /// Lines that are not complete log lines.
    pub torn: Listed<String>,
    /// What is wrong with files of a lake.
    pub damaged: Listed<String>,
    /// Complete lines that do not belong to this run.
    pub foreign: u64,
}

impl Findings {
    /// Describes each violation of the delivery guarantee; empty if there is none.
    pub fn faults(&self) -> Vec<String> {
        let numbers = [
            ("acknowledged but not logged", &self.lost),
            ("logged more than once", &self.duplicated),
            ("rejected but logged", &self.rejected_logged),
            ("out of order", &self.out_of_order),
        ];
        let mut faults: Vec<String> = numbers
            .iter()
            .filter(|(_, listed)| listed.count > 0)
            .map(|(what, listed)| {
                let more = if listed.count > listed.first.len() as u64 { ", …" } else { "" };
                let first: Vec<String> = listed.first.iter().map(u32::to_string).collect();
                format!("{} {what} (seq {}{more})", listed.count, first.join(", "))
            })
            .collect();
        if let Some(example) = self.torn.first.first() {
            faults.push(format!("{} torn lines (first: {example})", self.torn.count));
        }
        if let Some(example) = self.damaged.first.first() {
            faults.push(format!("{} damaged files (first: {example})", self.damaged.count));
        }
        faults
    }

    /// The findings in `logs` as text; scripts rely on the last line.
    pub fn text(&self, run: &str, logs: &str, elapsed: Duration) -> String {
        let mut text = format!("   run {run} in {logs}: {} foreign lines\n", self.foreign);
        // Writing to a string cannot fail.
        if self.unknown_found + self.unknown_missing + self.unrecorded > 0 {
            let _ = writeln!(
                text,
                "   not acknowledged: {} logged, {} not logged, {} logged without a record",
                self.unknown_found, self.unknown_missing, self.unrecorded
            );
        }
        if self.duplicated_by_retry > 0 {
            let _ = writeln!(
                text,
                "   {} of the duplicated events were sent more than once by --retry; \
                 a consumer with EVENT_ID_FIELD=event_id drops repeats",
                self.duplicated_by_retry
            );
        }
        for fault in self.faults() {
            let _ = writeln!(text, "   {fault}");
        }
        let _ = writeln!(
            text,
            "{} sent, {} acknowledged, {} logged, {} lost, {} duplicated in {:.1} seconds",
            self.sent,
            self.acknowledged,
            self.logged,
            self.lost.count,
            self.duplicated.count,
            elapsed.as_secs_f64()
        );
        text
    }

    /// The findings as JSON.
    pub fn json(&self, run: &str, elapsed: Duration) -> Value {
        json!({
            "run": run,
            "seconds": elapsed.as_secs_f64(),
            "sent": self.sent,
            "acknowledged": self.acknowledged,
            "repeated": self.repeated,
            "logged": self.logged,
            "lost": self.lost.count,
            "lostSeqs": self.lost.first,
            "duplicated": self.duplicated.count,
            "duplicatedSeqs": self.duplicated.first,
            "duplicatedByRetry": self.duplicated_by_retry,
            "unknownFound": self.unknown_found,
            "unknownMissing": self.unknown_missing,
            "unrecorded": self.unrecorded,
            "rejectedLogged": self.rejected_logged.count,
            "outOfOrder": self.out_of_order.count,
            "torn": self.torn.count,
            "damaged": self.damaged.count,
            "foreign": self.foreign,
        })
    }
}
