//! Keeps parts that may have been written, so that the next call can resend them unchanged. Does no I/O.
//!
//! A broker recognises a repeated part only as a whole and in its partition. The caller resends
//! unacknowledged records ahead of newer ones, but grouped differently; this module puts the original parts
//! together again.

use std::collections::{HashMap, VecDeque};

use crate::broker::record::Record;
use crate::broker::send::partition::Part;

/// Key and value of a record, owned.
type Kept = (Option<Vec<u8>>, Vec<u8>);

/// Key and value of a record, for comparison.
type Contents<'a> = (Option<&'a [u8]>, &'a [u8]);

/// The parts in doubt, at most one per partition.
#[derive(Default)]
pub struct Doubts(Vec<(i32, Vec<Kept>)>);

/// The parts of a call that repeat parts in doubt.
#[derive(Default)]
pub struct Repeated<'a> {
    /// The repeated parts. Indexes past the call's own records refer to `given_up`.
    pub parts: Vec<Part>,
    /// Records of those parts that the caller no longer sends. Without them the part would not be the same.
    pub given_up: Vec<Record<'a>>,
}

impl Doubts {
    /// Keeps `part` of `records`, up to 900 kB or one event, until the next call.
    pub fn keep(&mut self, part: &Part, records: &[Record<'_>]) {
        let kept = part.records.iter().map(|&index| {
            let record = records[index];
            (record.key.map(<[u8]>::to_vec), record.value.to_vec())
        });
        self.0.push((part.partition, kept.collect()));
    }

    /// True if a part of `partition` is in doubt.
    pub fn has(&self, partition: i32) -> bool {
        self.0.iter().any(|(id, _)| *id == partition)
    }

    /// Finds the parts of which `records` contains at least one record; the others are forgotten.
    ///
    /// Records are matched by their bytes. If two are equal, it does not matter which is matched to which.
    pub fn repeated<'a>(&'a self, records: &[Record<'_>]) -> Repeated<'a> {
        let mut repeated = Repeated::default();
        if self.0.is_empty() {
            return repeated;
        }
        let mut places: HashMap<Contents<'_>, VecDeque<usize>> = HashMap::new();
        for (index, record) in records.iter().enumerate() {
            places.entry((record.key, record.value)).or_default().push_back(index);
        }
        for (partition, kept) in &self.0 {
            let found: Vec<Option<usize>> = (kept.iter())
                .map(|(key, value)| places.get_mut(&(key.as_deref(), value.as_slice()))?.pop_front())
                .collect();
            if found.iter().all(Option::is_none) {
                continue;
            }
            let indices = Vec::with_capacity(kept.len());
            let mut part = Part { partition: *partition, records: indices, bytes: 0, is_repeated: true };
            for ((key, value), index) in kept.iter().zip(found) {
                part.bytes += value.len() + key.as_ref().map_or(0, Vec::len);
                part.records.push(index.unwrap_or_else(|| {
                    repeated.given_up.push(Record { key: key.as_deref(), value });
                    records.len() + repeated.given_up.len() - 1
                }));
            }
            repeated.parts.push(part);
        }
        repeated
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records<'a>(values: &[&'a str]) -> Vec<Record<'a>> {
        values.iter().map(|value| Record { key: None, value: value.as_bytes() }).collect()
    }

    fn doubts(parts: &[(i32, &[usize])], values: &[&str]) -> Doubts {
        let mut doubts = Doubts::default();
        for (partition, indices) in parts {
            doubts.keep(
                &Part { partition: *partition, records: indices.to_vec(), bytes: 0, is_repeated: false },
                &records(values),
            );
        }
        doubts
    }

    /// Partition and indices of each part, and the values given up.
    fn repeated(doubts: &Doubts, values: &[&str]) -> (Vec<(i32, Vec<usize>)>, Vec<String>) {
        let repeated = doubts.repeated(&records(values));
        let given_up = repeated.given_up.iter().map(|r| String::from_utf8_lossy(r.value).into_owned());
        let given_up = given_up.collect();
        (repeated.parts.into_iter().map(|part| (part.partition, part.records)).collect(), given_up)
    }

    #[test]
    fn parts_come_again_as_they_were_wherever_their_records_stand_now() {
        let doubts = doubts(&[(4, &[1, 3]), (2, &[0])], &["a", "b", "c", "d"]);
        let (parts, given_up) = repeated(&doubts, &["d", "new", "a", "b"]);
        assert_eq!(parts, [(4, vec![3, 0]), (2, vec![2])]);
        assert!(given_up.is_empty());
    }

    #[test]
    fn what_the_caller_gave_up_still_belongs_to_its_part() {
        let doubts = doubts(&[(0, &[0, 1, 2])], &["a", "b", "c"]);
        assert_eq!(repeated(&doubts, &["b", "n"]), (vec![(0, vec![2, 0, 3])], vec!["a".into(), "c".into()]));
        assert_eq!(
            repeated(&doubts, &["n"]),
            (vec![], vec![]),
            "forgotten if none of its records come again"
        );
    }

    #[test]
    fn records_alike_are_each_taken_once_and_a_key_makes_a_difference() {
        let doubts = doubts(&[(0, &[0, 1])], &["same", "same"]);
        assert_eq!(repeated(&doubts, &["same", "same", "same"]).0, [(0, vec![0, 1])]);
        let keyed = [Record { key: Some(b"k"), value: b"same" }];
        assert!(doubts.repeated(&keyed).parts.is_empty());
        assert!(Doubts::default().repeated(&keyed).parts.is_empty());
    }
}
