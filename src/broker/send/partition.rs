//! Assigns records to partitions and groups them into requests. Does no I/O.

use crate::broker::record::Record;

/// Maximum bytes of one partition in one request. The broker makes them one batch, which must stay below the
/// topic's `max.message.bytes` (1,048,588 by default).
pub const MAX_PART_BYTES: usize = 900_000;

/// Bytes that a record takes in a request in addition to its key, its value and its headers.
const RECORD_OVERHEAD_BYTES: usize = 26;

/// Records for one partition that travel in one request, by their index in the call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    pub partition: i32,
    pub records: Vec<usize>,
    pub bytes: usize,
    /// An earlier call sent exactly this part, and its outcome is unknown.
    pub is_repeated: bool,
}

/// Rotates records without a key over the available partitions, in whole parts.
#[derive(Debug)]
pub struct Turn(pub usize);

impl Turn {
    fn next(&mut self, available: &[i32]) -> Option<i32> {
        let partition = available.get(self.0 % available.len().max(1)).copied();
        self.0 = self.0.wrapping_add(1);
        partition
    }
}

/// The partition for `key` out of `count`, as Java's default partitioner chooses it.
pub fn of_key(key: &[u8], count: usize) -> i32 {
    let positive = murmur2(key) & 0x7fff_ffff;
    let count = u32::try_from(count).expect("a topic has fewer than 2^31 partitions").max(1);
    (positive % count).cast_signed()
}

/// Splits `records` into parts of at most [`MAX_PART_BYTES`]; a larger record gets a part to itself. Parts of
/// one partition are in the order of the records.
///
/// If no partition is available, records without a key go to the first partition and fail with it. The
/// existing `parts` are kept unchanged, ahead of the others; their records are not split again.
pub fn split(
    records: &[Record<'_>],
    mut parts: Vec<Part>,
    count: usize,
    available: &[i32],
    turn: &mut Turn,
) -> Vec<Part> {
    let mut is_placed = vec![false; if parts.is_empty() { 0 } else { records.len() }];
    for &index in parts.iter().flat_map(|part| &part.records) {
        if let Some(placed) = is_placed.get_mut(index) {
            *placed = true;
        }
    }
    // The part of each partition that still has room. Records without a key fill one part until it is full.
    let mut open: Vec<Option<usize>> = vec![None; count.max(1)];
    let mut keyless: Option<i32> = None;
    for (index, record) in records.iter().enumerate() {
        if is_placed.get(index) == Some(&true) {
            continue;
        }
        let bytes = record.bytes() + RECORD_OVERHEAD_BYTES;
        let fits = |open: &[Option<usize>], parts: &[Part], partition: i32| {
            let part = open[slot(partition)];
            part.is_none_or(|part| parts[part].bytes + bytes <= MAX_PART_BYTES)
        };
        let partition = match (record.key, keyless) {
            (Some(key), _) => of_key(key, count),
            (None, Some(partition)) if fits(&open, &parts, partition) => partition,
            (None, _) => *keyless.insert(turn.next(available).unwrap_or(0)),
        };
        match open[slot(partition)].filter(|_| fits(&open, &parts, partition)) {
            Some(part) => {
                parts[part].records.push(index);
                parts[part].bytes += bytes;
            }
            None => {
                open[slot(partition)] = Some(parts.len());
                parts.push(Part { partition, records: vec![index], bytes, is_repeated: false });
            }
        }
    }
    parts
}

fn slot(partition: i32) -> usize {
    usize::try_from(partition).expect("partition ids start at 0")
}

/// Java's `Utils.murmur2`, so that the same key goes to the same partition as with other producers.
fn murmur2(data: &[u8]) -> u32 {
    const SEED: u32 = 0x9747_b28c;
    const M: u32 = 0x5bd1_e995;
    const R: u32 = 24;
    let length = u32::try_from(data.len()).expect("a key is shorter than 4 GiB");
    let mut hash = SEED ^ length;
    let (words, tail) = data.as_chunks::<4>();
    for word in words {
        let mut k = u32::from_le_bytes(*word).wrapping_mul(M);
        k ^= k >> R;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    if !tail.is_empty() {
        for (position, byte) in tail.iter().enumerate() {
            hash ^= u32::from(*byte) << (8 * position);
        }
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// From Kafka's own `UtilsTest.testMurmur2`.
    #[test]
    fn murmur2_is_javas() {
        for (key, hash) in [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
        ] {
            assert_eq!(murmur2(key.as_bytes()).cast_signed(), hash, "{key}");
        }
    }

    fn keyless(sizes: &[usize]) -> Vec<Vec<u8>> {
        sizes.iter().map(|&size| vec![b'x'; size]).collect()
    }

    fn records(values: &[Vec<u8>]) -> Vec<Record<'_>> {
        values.iter().map(|value| Record::new(None, value)).collect()
    }

    #[test]
    fn a_small_call_without_keys_is_one_part_and_the_next_call_takes_the_next_partition() {
        let values = keyless(&[10; 50]);
        let mut turn = Turn(0);
        for partition in [4, 7, 4] {
            let parts = split(&records(&values), vec![], 9, &[4, 7], &mut turn);
            assert_eq!(parts.len(), 1);
            assert_eq!((parts[0].partition, parts[0].records.len()), (partition, 50));
        }
    }

    #[test]
    fn a_large_call_spreads_and_one_huge_record_stands_alone() {
        let values = keyless(&[500_000, 500_000, 2_000_000, 10]);
        let parts = split(&records(&values), vec![], 3, &[0, 1, 2], &mut Turn(0));
        let spread: Vec<(i32, Vec<usize>)> =
            parts.into_iter().map(|part| (part.partition, part.records)).collect();
        assert_eq!(spread, [(0, vec![0, 3]), (1, vec![1]), (2, vec![2])]);
    }

    #[test]
    fn headers_count_for_the_size_of_a_part() {
        let (values, headers) = (keyless(&[10; 2000]), vec![2; 1000]);
        let records: Vec<Record<'_>> =
            values.iter().map(|value| Record { headers: &headers, ..Record::new(None, value) }).collect();
        let parts = split(&records, vec![], 3, &[0, 1, 2], &mut Turn(0));
        let sizes: Vec<usize> = parts.iter().map(|part| part.records.len()).collect();
        assert_eq!(sizes, [868, 868, 264], "900,000 bytes of 1,036 each");
    }

    #[test]
    fn parts_that_exist_stay_and_only_the_other_records_are_split() {
        let values = keyless(&[10; 4]);
        // Its third record does not belong to this call.
        let existing = Part { partition: 7, records: vec![2, 0, 4], bytes: 30, is_repeated: true };
        let parts = split(&records(&values), vec![existing.clone()], 9, &[7], &mut Turn(0));
        assert_eq!((parts.len(), &parts[0], &parts[1].records[..]), (2, &existing, &[1, 3][..]));
    }

    #[test]
    fn without_an_available_partition_keyless_records_still_have_a_place() {
        let values = keyless(&[1, 1]);
        assert_eq!(split(&records(&values), vec![], 3, &[], &mut Turn(5))[0].records, [0, 1]);
    }

    proptest! {
        #[test]
        fn every_record_is_in_one_part_in_order_and_parts_are_bounded(
            input in prop::collection::vec((prop::option::of(0u8..20), 0usize..400_000), 0..60),
            start in 0usize..10,
        ) {
            let values: Vec<(Option<[u8; 1]>, Vec<u8>)> =
                input.into_iter().map(|(key, size)| (key.map(|key| [key]), vec![0; size])).collect();
            let records: Vec<Record<'_>> = values
                .iter()
                .map(|(key, value)| Record::new(key.as_ref().map(|key| &key[..]), value))
                .collect();
            let parts = split(&records, vec![], 5, &[0, 2, 3], &mut Turn(start));
            let mut seen = vec![0; records.len()];
            let mut last = [None; 5];
            for part in &parts {
                prop_assert!(part.bytes <= MAX_PART_BYTES);
                for &index in &part.records {
                    seen[index] += 1;
                    let key = records[index].key;
                    prop_assert!(key.map_or([0, 2, 3].contains(&part.partition), |key| of_key(key, 5) == part.partition));
                    if let Some(key) = key {
                        let last = &mut last[slot(part.partition)];
                        prop_assert!(last.is_none_or(|(before, _)| before < index), "{:?} {:?}", key, last);
                        *last = Some((index, key));
                    }
                }
            }
            prop_assert!(seen.iter().all(|&count| count == 1));
        }
    }
}
