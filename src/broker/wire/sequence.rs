//! Assigns the sequence numbers by which a broker recognises a batch it has already written. Does no I/O.
//!
//! This is Kafka's idempotence. The batches of a producer id are numbered consecutively in each partition. A
//! batch that is sent again with the same number is answered with the offset that it already has. A batch
//! whose outcome is unknown is therefore kept, and the same records sent again to the same partition become
//! the same batch. If the caller sends other records instead, the number cannot be reused, because it may
//! have been taken: a new producer id begins.

use std::collections::HashMap;

use crate::broker::client::BatchInDoubt;
use crate::broker::protocol::Code;
use crate::broker::record::Record;
use crate::broker::wire::batch::{self, Stamp};
use crate::broker::wire::compress::Compressor;
use crate::config::Compression;

/// A producer id and its epoch, as assigned by the cluster.
pub type ProducerId = (i64, i16);

/// A batch that is or may be written, but was not acknowledged.
struct InDoubt {
    stamp: Stamp,
    records: usize,
    encoded: Vec<u8>,
    /// Sent more than once: a response to the last attempt says nothing about the earlier ones.
    is_repeated: bool,
}

impl InDoubt {
    fn is_of(&self, records: &[Record<'_>]) -> bool {
        self.records == records.len() && batch::is_of(&self.encoded, records)
    }
}

/// The sequence numbers in use.
#[derive(Default)]
pub struct Sequences {
    id: Option<ProducerId>,
    next: HashMap<i32, i32>,
    in_doubt: HashMap<i32, InDoubt>,
    compressor: Option<Compressor>,
}

impl Sequences {
    /// Compresses batches as `compression` says.
    pub fn new(compression: Compression) -> Self {
        Self { compressor: Compressor::new(compression), ..Self::default() }
    }

    /// The batches that may have been written without our knowing.
    pub fn in_doubt(&self) -> Vec<BatchInDoubt> {
        let batch = |(partition, doubt): (&i32, &InDoubt)| {
            let records = batch::decode(&doubt.encoded).expect("encoded here");
            BatchInDoubt { partition: *partition, records }
        };
        self.in_doubt.iter().map(batch).collect()
    }

    /// Forgets the batch in doubt of `partition`. Its number may have been taken, so a new id must follow.
    pub fn abandon(&mut self, partition: i32) {
        if self.in_doubt.remove(&partition).is_some() {
            self.id = None;
        }
    }

    /// True if batches must wait for [`Sequences::begin`].
    pub fn needs_id(&self) -> bool {
        self.id.is_none()
    }

    /// Starts counting from 0 under a new id.
    pub fn begin(&mut self, id: ProducerId) {
        self.id = Some(id);
        self.next.clear();
    }

    /// Decides whether `records` for `partition` are the batch in doubt again, or others, which retire its
    /// number. Must be called for all batches of a request before [`Sequences::needs_id`].
    pub fn prepare(&mut self, partition: i32, records: &[Record<'_>]) {
        let Some(doubt) = self.in_doubt.get_mut(&partition) else { return };
        doubt.is_repeated = doubt.is_of(records);
        if !doubt.is_repeated {
            self.abandon(partition);
        }
    }

    /// Makes `records` the batch to send to `partition`, which is in doubt from now on. Does nothing without an id,
    /// or if [`Sequences::prepare`] has found the batch in doubt again.
    pub fn number(&mut self, partition: i32, records: &[Record<'_>], now_ms: i64) {
        let Some((producer_id, epoch)) = self.id else { return };
        let sequence = self.next.get(&partition).copied().unwrap_or(0);
        self.in_doubt.entry(partition).or_insert_with(|| {
            let stamp = Stamp { producer_id, epoch, sequence };
            let encoded = match &mut self.compressor {
                None => batch::encode(records, stamp, now_ms),
                Some(compressor) => batch::encode_compressed(records, stamp, now_ms, compressor),
            };
            InDoubt { stamp, records: records.len(), encoded, is_repeated: false }
        });
    }

    /// The batch in doubt of `partition`, as it was first sent.
    pub fn encoded(&self, partition: i32) -> Option<&[u8]> {
        Some(&self.in_doubt.get(&partition)?.encoded)
    }

    /// Applies the broker's response to the batch last sent to `partition`.
    pub fn settle(&mut self, partition: i32, outcome: Result<i64, Code>) {
        let Some(doubt) = self.in_doubt.get(&partition) else { return };
        let is_settled = match outcome {
            Ok(_) => {
                if self.id == Some((doubt.stamp.producer_id, doubt.stamp.epoch)) {
                    self.next.insert(partition, after(doubt.stamp.sequence, doubt.records));
                }
                true
            }
            // The cluster no longer counts as we do, so only a new id can continue.
            Err(code) if code.is_of_sequence() => {
                self.id = None;
                true
            }
            Err(code) => code.is_before_append() && !doubt.is_repeated,
        };
        if is_settled {
            self.in_doubt.remove(&partition);
        }
    }
}

/// The number after a batch; 2^31 - 1 is followed by 0.
fn after(sequence: i32, records: usize) -> i32 {
    ((i64::from(sequence) + records as i64) & i64::from(i32::MAX)) as i32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::client::OwnedRecord;
    use crate::broker::wire::compress::tests::ALL;

    const RETRIABLE: Code = Code(7);
    const BEFORE_APPEND: Code = Code(19);

    fn records<'a>(values: &[&'a str]) -> Vec<Record<'a>> {
        values.iter().map(|value| Record::new(None, value.as_bytes())).collect()
    }

    fn is_in_doubt(sequences: &Sequences, partition: i32, values: &[&str]) -> bool {
        let expected: Vec<OwnedRecord> = records(values).iter().map(OwnedRecord::of).collect();
        let in_doubt = sequences.in_doubt();
        in_doubt.iter().any(|batch| batch.partition == partition && batch.records == expected)
    }

    /// Producer id and first sequence of the batch that goes out.
    fn send(sequences: &mut Sequences, partition: i32, values: &[&str], fresh_id: i64) -> (i64, i32) {
        let records = records(values);
        sequences.prepare(partition, &records);
        if sequences.needs_id() {
            sequences.begin((fresh_id, 0));
        }
        sequences.number(partition, &records, fresh_id);
        let bytes = sequences.encoded(partition).expect("an id");
        let id = i64::from_be_bytes(*bytes[43..].first_chunk().expect("8 bytes"));
        (id, i32::from_be_bytes(*bytes[53..].first_chunk().expect("4 bytes")))
    }

    #[test]
    fn numbers_count_up_in_each_partition() {
        let mut s = Sequences::default();
        for (partition, values, expected) in
            [(0, &["a", "b"][..], 0), (1, &["c"], 0), (0, &["d"], 2), (0, &["e"], 3)]
        {
            assert_eq!(send(&mut s, partition, values, 7), (7, expected));
            s.settle(partition, Ok(0));
            assert!(!is_in_doubt(&s, partition, values));
        }
    }

    #[test]
    fn without_an_answer_the_same_records_are_the_same_batch() {
        let mut s = Sequences::default();
        assert_eq!(send(&mut s, 0, &["a", "b"], 7), (7, 0));
        for code in [RETRIABLE, BEFORE_APPEND] {
            assert!(is_in_doubt(&s, 0, &["a", "b"]), "no answer");
            assert!(!is_in_doubt(&s, 0, &["a", "c"]), "never sent");
            assert_eq!(send(&mut s, 0, &["a", "b"], 8), (7, 0));
            // The last attempt was not accepted, but the first may have been.
            s.settle(0, Err(code));
        }
        assert_eq!(send(&mut s, 0, &["a", "b"], 8), (7, 0));
        s.settle(0, Ok(5));
        assert_eq!(send(&mut s, 0, &["c"], 8), (7, 2));
    }

    #[test]
    fn a_compressed_batch_is_sent_again_byte_for_byte() {
        for compression in ALL {
            let mut s = Sequences::new(compression);
            let values = ["one and the same text"; 40];
            // What was compressed before it does not show in it.
            assert_eq!(send(&mut s, 1, &values, 7), (7, 0));
            assert_eq!(send(&mut s, 0, &values, 7), (7, 0));
            let first = s.encoded(0).expect("an id").to_vec();
            assert!(
                first.len() < batch::encode(&records(&values), Stamp::NONE, 0).len() / 2,
                "{compression}"
            );
            assert!(is_in_doubt(&s, 0, &values), "{compression}");
            assert_eq!(send(&mut s, 0, &values, 8), (7, 0), "{compression}");
            assert_eq!(s.encoded(0), Some(&first[..]), "{compression}");
            assert_eq!(send(&mut s, 0, &values[1..], 8), (8, 0), "other records: {compression}");
        }
    }

    #[test]
    fn other_records_instead_begin_a_new_id_and_leave_the_other_partitions_their_doubt() {
        for other in [&["a"][..], &["a", "B"], &["a", "b", "c"]] {
            let mut s = Sequences::default();
            send(&mut s, 0, &["a", "b"], 7);
            send(&mut s, 1, &["x"], 7);
            assert_eq!(send(&mut s, 0, other, 8), (8, 0));
            s.settle(0, Ok(0));
            assert_eq!(send(&mut s, 1, &["x"], 9), (7, 0), "as it was first sent");
            s.settle(1, Ok(0));
            assert_eq!(send(&mut s, 1, &["y"], 9), (8, 0), "the old id's number is not the new one's");
        }
    }

    #[test]
    fn what_is_abandoned_is_forgotten_and_retires_its_number() {
        let mut s = Sequences::default();
        send(&mut s, 0, &["a"], 7);
        s.abandon(1);
        assert!(is_in_doubt(&s, 0, &["a"]) && !s.needs_id(), "another partition");
        s.abandon(0);
        assert!(s.in_doubt().is_empty() && s.needs_id());
    }

    #[test]
    fn a_number_that_was_surely_not_taken_is_used_again() {
        let mut s = Sequences::default();
        send(&mut s, 0, &["a", "b"], 7);
        s.settle(0, Err(BEFORE_APPEND));
        assert!(!is_in_doubt(&s, 0, &["a", "b"]));
        assert_eq!(send(&mut s, 0, &["c"], 8), (7, 0));
    }

    #[test]
    fn a_broker_that_counts_otherwise_gets_a_new_id() {
        for code in [45, 46, 47, 59] {
            let mut s = Sequences::default();
            send(&mut s, 0, &["a"], 7);
            s.settle(0, Err(Code(code)));
            assert_eq!((is_in_doubt(&s, 0, &["a"]), s.needs_id()), (false, true), "{code}");
            assert_eq!(send(&mut s, 0, &["a"], 8), (8, 0));
        }
    }

    #[test]
    fn numbers_go_round_after_the_last_one() {
        assert_eq!(after(i32::MAX, 1), 0);
        assert_eq!(after(i32::MAX - 1, 1), i32::MAX);
        assert_eq!(after(i32::MAX - 4, 10), 5);
    }
}
