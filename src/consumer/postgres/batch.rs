//! The rows of the next transaction, in the form in which they are sent. Pure.

use std::ops::Range;

use crate::consumer::destination::Record;
use crate::consumer::postgres::copy::{EventType, RowWriter};
use crate::event::{EventId, uuid};

/// Memory that an empty batch keeps.
const KEPT_BYTES: usize = 16 << 20;

/// What is added to the tables next.
#[derive(Debug, Default)]
pub struct Batch {
    /// The rows of `events` as COPY takes them.
    bytes: Vec<u8>,
    rows: Vec<Row>,
    /// The rows of `event_rejects`.
    pub rejects: Vec<Reject>,
    /// Bytes of their values.
    reject_bytes: usize,
}

/// A row of `events`.
#[derive(Debug)]
struct Row {
    /// Where it ends.
    end: usize,
    /// Where the event is in it.
    event: Range<usize>,
    key: usize,
    partition: i32,
    offset: i64,
    now: i64,
}

/// A record that is not in `events`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reject {
    /// The column `topic_id`.
    pub key: String,
    /// The partition.
    pub partition: i32,
    /// Its offset there.
    pub offset: i64,
    /// When it was written, in milliseconds since the epoch.
    pub now: i64,
    /// A stable word.
    pub reason: String,
    /// For people.
    pub message: String,
    /// Its bytes.
    pub value: Vec<u8>,
}

/// The columns of a row that do not come from the record.
#[derive(Clone, Copy, Debug)]
pub struct Columns<'a> {
    /// The column `topic_id`.
    pub key: &'a str,
    /// Type of the column with the event.
    pub event: EventType,
    /// There is a column with the id.
    pub ids: bool,
}

impl Columns<'_> {
    /// The names of all columns of a row.
    pub fn names(ids: bool) -> &'static str {
        if ids {
            "topic_id, partition, \"offset\", logged_at, event, event_id"
        } else {
            "topic_id, partition, \"offset\", logged_at, event"
        }
    }
}

impl Batch {
    /// True if there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.rejects.is_empty()
    }

    /// Number of rows of `events`.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Bytes that it holds.
    pub fn bytes(&self) -> usize {
        self.bytes.len() + self.reject_bytes
    }

    /// Adds an event, whose line is `text`, and returns its bytes.
    pub fn add(&mut self, columns: Columns<'_>, record: &Record<'_>, text: &str) -> usize {
        let begin = self.bytes.len();
        let &Record { partition, offset, now, .. } = record;
        let id = record.id.filter(|_| columns.ids).map(normal_id);
        let place = (partition, offset, now);
        let event_end = write_row(&mut self.bytes, columns, place, text.as_bytes(), id.as_deref());
        let end = self.bytes.len();
        let event = event_end - text.len()..event_end;
        self.rows.push(Row { end, event, key: begin, partition, offset, now });
        end - begin
    }

    /// Adds a record that is not an event, or that the database will not accept, and returns its bytes.
    pub fn reject(&mut self, reject: Reject) -> usize {
        let bytes = reject.value.len() + reject.message.len();
        self.reject_bytes += bytes;
        self.rejects.push(reject);
        bytes
    }

    /// The bytes of these rows.
    pub fn rows(&self, range: Range<usize>) -> &[u8] {
        let end = |count: usize| count.checked_sub(1).map_or(0, |last| self.rows[last].end);
        &self.bytes[end(range.start)..end(range.end)]
    }

    /// Row `at` as one that the database does not accept.
    pub fn refused(&self, at: usize, reason: &str, message: &str) -> Reject {
        let row = &self.rows[at];
        Reject {
            key: self.key(at).0,
            partition: row.partition,
            offset: row.offset,
            now: row.now,
            reason: reason.to_owned(),
            message: message.to_owned(),
            value: self.event(at).to_vec(),
        }
    }

    /// The event of row `at`.
    pub fn event(&self, at: usize) -> &[u8] {
        &self.bytes[self.rows[at].event.clone()]
    }

    /// A row at the place of row `at`, with another event and without an id.
    pub fn row_like(&self, at: usize, text: &[u8], event: EventType, ids: bool) -> Vec<u8> {
        let (mut bytes, row) = (Vec::new(), &self.rows[at]);
        let columns = Columns { key: &self.key(at).0, event, ids };
        write_row(&mut bytes, columns, (row.partition, row.offset, row.now), text, None);
        bytes
    }

    /// The first offset of `partition` in it.
    pub fn first_offset(&self, partition: i32) -> Option<i64> {
        let rows = self.rows.iter().map(|row| (row.partition, row.offset));
        let rejects = self.rejects.iter().map(|reject| (reject.partition, reject.offset));
        rows.chain(rejects).filter(|(of, _)| *of == partition).map(|(_, offset)| offset).min()
    }

    /// Times of the oldest and the newest row.
    pub fn times(&self) -> Option<(i64, i64)> {
        let times = || self.rows.iter().map(|row| row.now);
        times().min().zip(times().max())
    }

    /// Empties it and keeps its memory, unless a large record has grown it.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.bytes.shrink_to(KEPT_BYTES);
        self.rows.clear();
        self.rejects.clear();
        self.reject_bytes = 0;
    }

    /// The columns `topic_id` and `partition` of row `at`.
    pub fn key(&self, at: usize) -> (String, i32) {
        let row = &self.rows[at];
        // After the number of columns and the length of this one.
        let length = &self.bytes[row.key + 2..row.key + 6];
        let length = u32::from_be_bytes(length.try_into().expect("four bytes")) as usize;
        let key = String::from_utf8_lossy(&self.bytes[row.key + 6..row.key + 6 + length]).into_owned();
        (key, row.partition)
    }
}

/// Appends a row for partition, offset and time, and returns where the event in it ends.
fn write_row(
    bytes: &mut Vec<u8>,
    Columns { key, event, ids }: Columns<'_>,
    (partition, offset, now): (i32, i64, i64),
    text: &[u8],
    id: Option<&[u8]>,
) -> usize {
    let row = RowWriter::begin(bytes, if ids { 6 } else { 5 })
        .bytes(key.as_bytes())
        .i32(partition)
        .i64(offset)
        .time(now)
        .event(text, event);
    let event_end = row.end();
    if ids {
        row.optional(id);
    }
    event_end
}

/// The rows of `event_rejects` as COPY takes them.
pub fn reject_rows(rejects: &[Reject]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for reject in rejects {
        RowWriter::begin(&mut bytes, 7)
            .bytes(reject.key.as_bytes())
            .i32(reject.partition)
            .i64(reject.offset)
            .time(reject.now)
            .bytes(reject.reason.as_bytes())
            .bytes(reject.message.as_bytes())
            .bytes(&reject.value);
    }
    bytes
}

/// The text of an id by which repeated events are found: the letters of a UUID may be of any case.
fn normal_id(id: &EventId<'_>) -> Vec<u8> {
    if uuid(&id.text).is_some() { id.text.to_ascii_lowercase() } else { id.text.to_vec() }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::*;

    const COLUMNS: Columns<'_> = Columns { key: "topic", event: EventType::Jsonb, ids: true };

    fn record<'a>(offset: i64, id: Option<&'a EventId<'a>>) -> Record<'a> {
        Record { partition: 2, offset, value: b"{}", time: None, event: Ok("{}"), id, now: 5 }
    }

    #[test]
    fn a_row_can_be_taken_out_again() {
        let id = EventId { text: Cow::Borrowed(b"x"), checksum: 0 };
        let mut batch = Batch::default();
        for (offset, text, id) in [(7, "{}", None), (8, r#"{"a":1}"#, Some(&id)), (9, "{}", None)] {
            batch.add(COLUMNS, &record(offset, id), text);
        }
        let refused = batch.refused(1, "word", "why");
        assert_eq!(
            (refused.key.as_str(), refused.partition, refused.offset, refused.now),
            ("topic", 2, 8, 5)
        );
        assert_eq!(refused.value, br#"{"a":1}"#);
        assert_eq!([batch.rows(0..1), batch.rows(1..3)].concat(), batch.rows(0..3));
        assert_eq!((batch.rows(3..3).len(), batch.len(), batch.times()), (0, 3, Some((5, 5))));
        assert_eq!(batch.row_like(0, br#"{"a":1}"#, COLUMNS.event, true).len(), batch.rows(0..1).len() + 5);
        assert_eq!(batch.row_like(0, b"{}", COLUMNS.event, true), batch.rows(0..1));
        batch.reject(Reject { offset: 3, ..refused });
        assert_eq!((batch.first_offset(2), batch.first_offset(1)), (Some(3), None));
        batch.clear();
        assert!(batch.is_empty() && batch.bytes() == 0);
    }

    #[test]
    fn a_uuid_may_be_of_any_case() {
        let normal = |text: &str| normal_id(&EventId { text: Cow::Borrowed(text.as_bytes()), checksum: 0 });
        let uuid = "F81D4FAE-7DEC-11D0-A765-00A0C91E6BF6";
        assert_eq!(normal(uuid), uuid.to_lowercase().as_bytes());
        for other in ["ABC", "F81D4FAE-7DEC-11D0-A765-00A0C91E6BFX", "F81D4FAE+7DEC-11D0-A765-00A0C91E6BF6"] {
            assert_eq!(normal(other), other.as_bytes());
        }
    }
}
