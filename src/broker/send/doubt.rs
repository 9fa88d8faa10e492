//! Puts batches that may have been written together again, so that they are resent unchanged. Does no I/O.
//!
//! A broker recognises a repeated batch only as a whole and in its partition. The caller resends
//! unacknowledged records ahead of newer ones, but grouped differently.

use std::collections::{HashMap, VecDeque};

use crate::broker::client::{BatchInDoubt, OwnedRecord};
use crate::broker::record::Record;
use crate::broker::send::partition::Part;

/// The parts of a call that repeat parts in doubt.
#[derive(Default)]
pub struct Repeated<'a> {
    /// The repeated parts. Indexes past the call's own records refer to `given_up`.
    pub parts: Vec<Part>,
    /// Records of those parts that the caller no longer sends. Without them the part would not be the same.
    pub given_up: Vec<Record<'a>>,
}

/// Finds the batches `in_doubt` of which `records` contains at least one record.
///
/// Records are matched by their bytes. If two are equal, it does not matter which is matched to which.
pub fn repeated<'a>(in_doubt: &'a [BatchInDoubt], records: &[Record<'_>]) -> Repeated<'a> {
    let mut repeated = Repeated::default();
    if in_doubt.is_empty() {
        return repeated;
    }
    let mut places: HashMap<Record<'_>, VecDeque<usize>> = HashMap::new();
    for (index, record) in records.iter().enumerate() {
        places.entry(*record).or_default().push_back(index);
    }
    for batch in in_doubt {
        let found: Vec<Option<usize>> =
            (batch.records.iter()).map(|record| places.get_mut(&record.record())?.pop_front()).collect();
        if found.iter().all(Option::is_none) {
            continue;
        }
        let indices = Vec::with_capacity(found.len());
        let mut part = Part { partition: batch.partition, records: indices, bytes: 0, is_repeated: true };
        for (record, index) in batch.records.iter().map(OwnedRecord::record).zip(found) {
            part.bytes += record.bytes();
            part.records.push(index.unwrap_or_else(|| {
                repeated.given_up.push(record);
                records.len() + repeated.given_up.len() - 1
            }));
        }
        repeated.parts.push(part);
    }
    repeated
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records<'a>(values: &[&'a str]) -> Vec<Record<'a>> {
        values.iter().map(|value| Record::new(None, value.as_bytes())).collect()
    }

    fn in_doubt(batches: &[(i32, &[&str])]) -> Vec<BatchInDoubt> {
        let batch = |(partition, values): &(i32, &[&str])| {
            let records = records(values).iter().map(OwnedRecord::of).collect();
            BatchInDoubt { partition: *partition, records }
        };
        batches.iter().map(batch).collect()
    }

    /// Partition and indices of each part, and the values given up.
    fn found(in_doubt: &[BatchInDoubt], values: &[&str]) -> (Vec<(i32, Vec<usize>)>, Vec<String>) {
        let repeated = repeated(in_doubt, &records(values));
        let given_up = repeated.given_up.iter().map(|r| String::from_utf8_lossy(r.value).into_owned());
        let given_up = given_up.collect();
        (repeated.parts.into_iter().map(|part| (part.partition, part.records)).collect(), given_up)
    }

    #[test]
    fn parts_come_again_as_they_were_wherever_their_records_stand_now() {
        let batches = in_doubt(&[(4, &["b", "d"]), (2, &["a"])]);
        let (parts, given_up) = found(&batches, &["d", "new", "a", "b"]);
        assert_eq!(parts, [(4, vec![3, 0]), (2, vec![2])]);
        assert!(given_up.is_empty());
    }

    #[test]
    fn what_the_caller_gave_up_still_belongs_to_its_part() {
        let batches = in_doubt(&[(0, &["a", "b", "c"])]);
        assert_eq!(found(&batches, &["b", "n"]), (vec![(0, vec![2, 0, 3])], vec!["a".into(), "c".into()]));
        assert_eq!(found(&batches, &["n"]), (vec![], vec![]), "left out if none of its records come again");
    }

    #[test]
    fn records_alike_are_each_taken_once_and_a_key_makes_a_difference() {
        let batches = in_doubt(&[(0, &["same", "same"])]);
        assert_eq!(found(&batches, &["same", "same", "same"]).0, [(0, vec![0, 1])]);
        let keyed = [Record::new(Some(b"k"), b"same")];
        assert!(repeated(&batches, &keyed).parts.is_empty());
        let traced = [Record { headers: b"\x02\x02a\x02b", ..Record::new(None, b"same") }];
        assert!(repeated(&batches, &traced).parts.is_empty());
        assert!(repeated(&[], &keyed).parts.is_empty());
    }
}
