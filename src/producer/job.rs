//! Holds the events of one request, and the outcome of each, from acceptance to acknowledgement.

use std::sync::Arc;
use std::time::Instant;

use serde::Serialize;

use crate::broker::{Headers, Receipt, Record};

/// The events of one request as lines ready for Kafka, in one allocation.
#[derive(Debug, Default)]
pub struct Lines {
    bytes: Vec<u8>,
    ends: Vec<u32>,
    /// For each line, whether it has a key and where that ends in `key_bytes`; empty without a key field.
    key_ends: Vec<(bool, u32)>,
    key_bytes: Vec<u8>,
    headers: Headers,
}

impl Lines {
    /// Creates an empty list with room for `bytes` bytes.
    pub fn with_capacity(bytes: usize) -> Self {
        Self { bytes: Vec::with_capacity(bytes), ..Self::default() }
    }

    /// The buffer to append the next line to; call [`Lines::end_line`] afterwards.
    pub fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// Ends the line that was appended to the buffer.
    pub fn end_line(&mut self) {
        let end = u32::try_from(self.bytes.len()).expect("a body is far below 4 GiB");
        self.ends.push(end);
    }

    /// Sets the key of the last line; call this for every line or for none.
    pub fn set_key(&mut self, key: Option<&[u8]>) {
        self.key_bytes.extend_from_slice(key.unwrap_or_default());
        self.key_ends.push((key.is_some(), self.key_bytes.len() as u32));
    }

    /// Sets the headers that the record of each event has.
    pub fn set_headers(&mut self, headers: Headers) {
        self.headers = headers;
    }

    /// Number of events.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// True if there are no events.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Bytes of memory held for these events.
    pub fn held_bytes(&self) -> usize {
        self.bytes.capacity()
            + self.key_bytes.capacity()
            + self.ends.capacity() * 4
            + self.headers.held_bytes()
    }

    /// The event at `index`, without a line ending.
    pub fn line(&self, index: usize) -> &[u8] {
        let start = if index == 0 { 0 } else { self.ends[index - 1] as usize };
        &self.bytes[start..self.ends[index] as usize]
    }

    /// The event at `index` as a record for the broker.
    pub fn record(&self, index: usize) -> Record<'_> {
        Record { key: self.key(index), value: self.line(index), headers: self.headers.as_bytes() }
    }

    /// Bytes of the event at `index` and of its headers, which count for the limits of a batch.
    pub fn record_bytes(&self, index: usize) -> usize {
        self.line(index).len() + self.headers.as_bytes().len()
    }

    fn key(&self, index: usize) -> Option<&[u8]> {
        let &(present, end) = self.key_ends.get(index)?;
        let start = if index == 0 { 0 } else { self.key_ends[index - 1].1 };
        present.then(|| &self.key_bytes[start as usize..end as usize])
    }
}

/// The outcome of one event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Outcome {
    /// Not known yet.
    #[default]
    Open,
    /// In Kafka.
    Acknowledged(Receipt),
    /// The topic does not accept an event of this size; a retry cannot help.
    TooLarge(Arc<str>),
    /// Kafka rejects this event for the given reason; a retry cannot help.
    Rejected(Arc<str>),
    /// Not acknowledged in time, but it may still be in Kafka.
    Unacknowledged(Arc<str>),
}

/// Receipts with consecutive offsets.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct ReceiptRange {
    /// Partition of the events.
    pub partition: i32,
    /// Offset of the first event.
    pub first_offset: i64,
    /// Offset of the last event.
    pub last_offset: i64,
}

/// The events of one request on their way to Kafka, with the ticket that answers it.
#[derive(Debug)]
pub struct Job<T> {
    /// The events.
    pub lines: Lines,
    /// The outcome of each event, parallel to `lines`.
    pub outcomes: Vec<Outcome>,
    /// When the request is answered with whatever outcomes there are.
    pub deadline: Instant,
    /// Answers the request.
    pub ticket: T,
}

impl<T> Job<T> {
    /// Creates a job without outcomes.
    pub fn new(lines: Lines, deadline: Instant, ticket: T) -> Self {
        Self { outcomes: vec![Outcome::Open; lines.len()], lines, deadline, ticket }
    }

    /// True if every event has an outcome.
    pub fn is_settled(&self) -> bool {
        !self.outcomes.contains(&Outcome::Open)
    }

    /// Number of events that are in Kafka.
    pub fn acknowledged(&self) -> usize {
        self.outcomes.iter().filter(|outcome| matches!(outcome, Outcome::Acknowledged(_))).count()
    }

    /// Marks every event without an outcome as not acknowledged, with `reason`.
    pub fn give_up(&mut self, reason: &Arc<str>) {
        for outcome in self.outcomes.iter_mut().filter(|outcome| **outcome == Outcome::Open) {
            *outcome = Outcome::Unacknowledged(reason.clone());
        }
    }

    /// Returns the receipts as ranges, in the order of the events.
    pub fn receipt_ranges(&self) -> Vec<ReceiptRange> {
        let mut ranges: Vec<ReceiptRange> = Vec::new();
        for outcome in &self.outcomes {
            let Outcome::Acknowledged(Receipt { partition, offset }) = *outcome else { continue };
            match ranges.last_mut() {
                Some(run) if run.partition == partition && run.last_offset + 1 == offset => {
                    run.last_offset = offset;
                }
                _ => ranges.push(ReceiptRange { partition, first_offset: offset, last_offset: offset }),
            }
        }
        ranges
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A job with these lines, without keys.
    pub fn job<T>(lines: &[&str], deadline: Instant, ticket: T) -> Job<T> {
        let mut built = Lines::default();
        for line in lines {
            built.buffer().extend_from_slice(line.as_bytes());
            built.end_line();
        }
        Job::new(built, deadline, ticket)
    }

    #[test]
    fn lines_and_keys_come_back_as_records() {
        let mut lines = Lines::default();
        for (line, key) in [("{1}", Some("a")), ("{22}", None), ("{333}", Some("")), ("{4}", Some("bc"))] {
            lines.buffer().extend_from_slice(line.as_bytes());
            lines.end_line();
            lines.set_key(key.map(str::as_bytes));
        }
        let got: Vec<_> = (0..4).map(|i| (lines.record(i).value, lines.record(i).key)).collect();
        let expected: [(&[u8], Option<&[u8]>); 4] =
            [(b"{1}", Some(b"a")), (b"{22}", None), (b"{333}", Some(b"")), (b"{4}", Some(b"bc"))];
        assert_eq!(got, expected);
    }

    #[test]
    fn every_record_has_the_headers_and_they_count() {
        let mut job = job(&["a", "bc"], Instant::now(), ());
        let before = job.lines.held_bytes();
        let mut headers = Headers::default();
        headers.push("client", b"shop");
        job.lines.set_headers(headers.clone());
        assert!([0, 1].iter().all(|index| job.lines.record(*index).headers == headers.as_bytes()));
        let bytes = headers.as_bytes().len();
        assert_eq!([0, 1].map(|index| job.lines.record_bytes(index)), [1 + bytes, 2 + bytes]);
        assert!(job.lines.held_bytes() >= before + bytes, "once, however many events there are");
    }

    #[test]
    fn receipts_become_ranges_in_order() {
        let mut job = job(&["a", "b", "c", "d", "e", "f"], Instant::now(), ());
        let acknowledged = |partition, offset| Outcome::Acknowledged(Receipt { partition, offset });
        job.outcomes[0] = acknowledged(1, 7);
        job.outcomes[1] = acknowledged(1, 8);
        job.outcomes[3] = acknowledged(1, 9);
        job.outcomes[5] = acknowledged(0, 10);
        assert!(!job.is_settled());
        job.give_up(&"too slow".into());
        assert!(job.is_settled());
        let range =
            |partition, first_offset, last_offset| ReceiptRange { partition, first_offset, last_offset };
        assert_eq!(job.receipt_ranges(), [range(1, 7, 9), range(0, 10, 10)]);
        assert_eq!(job.acknowledged(), 4);
    }
}
