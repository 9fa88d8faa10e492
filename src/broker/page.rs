//! A page: consecutive records of one partition in one allocation, with their times and leader epochs. Pure.

/// Consecutive records of one partition, in one allocation.
#[derive(Debug, Default)]
pub struct Page {
    /// Next offset to read, past the last record of this page.
    pub next_offset: i64,
    /// Offset that the partition's next record will get; used to compute lag.
    pub high_watermark: i64,
    /// Offset that the page was read from.
    begin: i64,
    bytes: Vec<u8>,
    ends: Vec<(i64, usize)>,
    /// Runs of records with the same time: index of the first record, and the time. No time is known before
    /// the first run.
    rows: Vec<(usize, Option<i64>)>,
    /// Leader epochs, each with its end offset (exclusive); empty if unknown.
    epochs: Vec<(i32, i64)>,
    /// Leader epoch of the broker that returned it, if that is known.
    term: Option<i32>,
}

impl Page {
    /// Creates an empty page that continues at `next_offset`.
    pub fn new(next_offset: i64, high_watermark: i64) -> Self {
        Self { next_offset, high_watermark, begin: next_offset, ..Self::default() }
    }

    /// Reserves room for `bytes` bytes of values.
    pub fn reserve(&mut self, bytes: usize) {
        self.bytes.reserve(bytes);
    }

    /// Appends the record at `offset` with its time in milliseconds since 1970, if known. Offsets must
    /// increase.
    pub fn push(&mut self, offset: i64, time_ms: Option<i64>, value: &[u8]) {
        if self.rows.last().and_then(|row| row.1) != time_ms {
            self.rows.push((self.ends.len(), time_ms));
        }
        self.bytes.extend_from_slice(value);
        self.ends.push((offset, self.bytes.len()));
        self.next_offset = offset + 1;
    }

    /// Marks everything since the last call, up to `end`, as written under the leader epoch `epoch`.
    pub fn mark_epoch(&mut self, epoch: i32, end: i64) {
        match self.epochs.last_mut() {
            Some(last) if last.0 == epoch => last.1 = end,
            _ => self.epochs.push((epoch, end)),
        }
    }

    /// Sets the epoch of the leader that returned it.
    pub fn set_term(&mut self, term: Option<i32>) {
        self.term = term;
    }

    /// Leader epoch of the broker that returned it; `None` if that is not known.
    pub fn term(&self) -> Option<i32> {
        self.term
    }

    /// Offset that it was read from.
    pub fn begin(&self) -> i64 {
        self.begin
    }

    /// Drops the records from `end` on.
    pub fn cut(&mut self, end: i64) {
        let records = self.ends.partition_point(|&(offset, _)| offset < end);
        self.ends.truncate(records);
        self.bytes.truncate(self.ends.last().map_or(0, |&(_, bytes)| bytes));
        self.rows.retain(|row| row.0 < records);
        self.next_offset = self.next_offset.min(end);
    }

    /// Leader epochs in offset order, each with its end offset (exclusive); empty if unknown.
    pub fn epochs(&self) -> &[(i32, i64)] {
        &self.epochs
    }

    /// Returns some records in `begin..end`, in order: the first, the last, and those that are 2, 4, 8, … records
    /// before the end.
    pub fn spread_over(&self, begin: i64, end: i64) -> Vec<(i64, &[u8])> {
        let from = self.ends.partition_point(|&(offset, _)| offset < begin);
        let to = self.ends.partition_point(|&(offset, _)| offset < end);
        let record = |index: usize| {
            let start = if index == 0 { 0 } else { self.ends[index - 1].1 };
            (self.ends[index].0, &self.bytes[start..self.ends[index].1])
        };
        let count = to.saturating_sub(from);
        let distances = std::iter::successors(Some(1), |distance| Some(distance * 2));
        let mut found: Vec<_> =
            distances.take_while(|&back| back < count).map(|back| record(to - back)).collect();
        found.extend((count > 0).then(|| record(from)));
        found.reverse();
        found
    }

    /// Iterates over the offset and value of each record. A null value reads as empty.
    pub fn records(&self) -> impl Iterator<Item = (i64, &[u8])> {
        self.timed_records().map(|(_, offset, value)| (offset, value))
    }

    /// Iterates over the time, offset and value of each record. The time is in milliseconds since 1970 and is
    /// the broker's or the sender's, depending on the topic's `message.timestamp.type`; `None` from a client
    /// that does not know it.
    pub fn timed_records(&self) -> impl Iterator<Item = (Option<i64>, i64, &[u8])> {
        let (mut start, mut time_ms) = (0, None);
        let mut rows = self.rows.iter().peekable();
        self.ends.iter().enumerate().map(move |(index, &(offset, end))| {
            if let Some((_, time)) = rows.next_if(|row| row.0 == index) {
                time_ms = *time;
            }
            let value = &self.bytes[start..end];
            start = end;
            (time_ms, offset, value)
        })
    }

    /// Number of records.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// True if there are no records.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Total bytes of all values.
    pub fn value_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Bytes held in memory, not counting spare vector capacity.
    pub fn held_bytes(&self) -> usize {
        self.bytes.len()
            + size_of_val(&self.ends[..])
            + size_of_val(&self.rows[..])
            + size_of_val(&self.epochs[..])
    }
}
