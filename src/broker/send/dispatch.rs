//! Tracks one send: splits it into rounds and turns responses into outcomes. Does no I/O.
//!
//! A round has at most one part per partition. Dispatch keeps the order within a partition: after a failure
//! nothing later of that partition is sent, so that a retry cannot land behind newer records.

use std::collections::{BTreeMap, HashSet, VecDeque};

use crate::broker::client::Verdict;
use crate::broker::error::{BrokerError, Result};
use crate::broker::record::Receipt;
use crate::broker::send::partition::Part;

/// Maximum bytes of one round. Brokers reject requests of 100 MiB, and we hold a copy.
const MAX_ROUND_BYTES: usize = 8 << 20;

/// Why a part was not acknowledged.
#[derive(Clone, Debug)]
pub enum Refusal {
    /// The records together, or a single one, exceed the topic's limit.
    TooLarge(String),
    /// Some of its records are permanently rejected. The text says where.
    Rejected(String, Verdict),
    /// Any other failure.
    Failed(BrokerError),
}

/// The parts still waiting and the outcomes so far.
pub struct Dispatch {
    waiting: BTreeMap<i32, VecDeque<Part>>,
    outcomes: Vec<Option<Result<Receipt>>>,
    /// Records that were rejected alone with a code that can have other causes. Only the second rejection
    /// counts.
    suspects: HashSet<usize>,
}

impl Dispatch {
    /// `records` is the number of records in `parts`.
    pub fn new(records: usize, parts: Vec<Part>) -> Self {
        let mut waiting: BTreeMap<i32, VecDeque<Part>> = BTreeMap::new();
        for part in parts {
            waiting.entry(part.partition).or_default().push_back(part);
        }
        Self { waiting, outcomes: vec![None; records], suspects: HashSet::new() }
    }

    /// Takes the next part of each partition, as many as fit in one round; empty when everything is settled.
    pub fn next_round(&mut self) -> Vec<Part> {
        let mut bytes = 0;
        let mut round = Vec::new();
        for parts in self.waiting.values_mut() {
            let Some(part) = parts.pop_front_if(|part| bytes == 0 || bytes + part.bytes <= MAX_ROUND_BYTES)
            else {
                continue;
            };
            bytes += part.bytes;
            round.push(part);
        }
        round
    }

    /// Applies the broker's response to `part`: the offset of its first record, or why it was not written.
    pub fn settle(&mut self, part: Part, answer: Result<i64, Refusal>) {
        match answer {
            Ok(first) => {
                for (offset, record) in (first..).zip(part.records) {
                    self.outcomes[record] = Some(Ok(Receipt { partition: part.partition, offset }));
                }
            }
            Err(Refusal::TooLarge(_)) if part.records.len() > 1 => self.bisect(part),
            Err(Refusal::TooLarge(why)) => {
                self.outcomes[part.records[0]] = Some(Err(BrokerError::TooLarge(why)))
            }
            Err(Refusal::Rejected(at, verdict)) => self.reject(part, &at, verdict),
            Err(Refusal::Failed(error)) => self.fail(part, &error),
        }
    }

    /// Returns one outcome per record, in the order of the records.
    pub fn finish(self) -> Vec<Result<Receipt>> {
        let unsent = || Err(BrokerError::Retryable("not sent".into()));
        self.outcomes.into_iter().map(|outcome| outcome.unwrap_or_else(unsent)).collect()
    }

    /// Settles the records that the broker names, or that bisecting finds; the others are sent again.
    fn reject(&mut self, mut part: Part, at: &str, verdict: Verdict) {
        let Verdict { code, mut records, reason } = verdict;
        if records.is_empty() && part.records.len() > 1 {
            return self.bisect(part);
        }
        if records.is_empty() {
            if !code.is_certain() && self.suspects.insert(part.records[0]) {
                self.waiting.entry(part.partition).or_default().push_front(part);
                return;
            }
            records.push((0, reason));
        }
        let whole = part.records.len();
        let mut is_named = vec![false; whole];
        for (place, words) in records {
            let Some(&record) = part.records.get(place) else { continue };
            is_named[place] = true;
            let gap = if words.is_empty() { "" } else { " " };
            self.outcomes[record] = Some(Err(BrokerError::Rejected(format!(
                "{at}: Kafka rejects this event: {words}{gap}({code})"
            ))));
        }
        let mut is_named = is_named.into_iter();
        part.records.retain(|_| !is_named.next().unwrap_or(false));
        if part.records.len() == whole {
            // The broker names records that were not sent to it.
            return self.fail(
                part,
                &BrokerError::Retryable(format!("{at}: rejected records that were not sent: {code}")),
            );
        }
        if !part.records.is_empty() {
            part.is_repeated = false;
            self.waiting.entry(part.partition).or_default().push_front(part);
        }
    }

    /// Splits `part` so that one large record does not get its neighbours rejected.
    fn bisect(&mut self, mut part: Part) {
        let second = part.records.split_off(part.records.len() / 2);
        part.bytes /= 2;
        // Neither half is the batch that was sent before.
        part.is_repeated = false;
        let second = Part { records: second, ..part };
        let queue = self.waiting.entry(part.partition).or_default();
        queue.push_front(second);
        queue.push_front(part);
    }

    fn fail(&mut self, part: Part, error: &BrokerError) {
        let later = self.waiting.remove(&part.partition).unwrap_or_default();
        for record in later.into_iter().flat_map(|part| part.records).chain(part.records) {
            self.outcomes[record] = Some(Err(error.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::protocol::Code;

    fn part(partition: i32, records: &[usize]) -> Part {
        Part { partition, records: records.to_vec(), bytes: 100 * records.len(), is_repeated: false }
    }

    fn failed() -> Refusal {
        Refusal::Failed(BrokerError::Retryable("down".into()))
    }

    #[test]
    fn offsets_count_up_from_the_first() {
        let mut dispatch = Dispatch::new(3, vec![part(2, &[0, 2]), part(5, &[1])]);
        for part in dispatch.next_round() {
            let first = i64::from(part.partition) * 100;
            dispatch.settle(part, Ok(first));
        }
        assert!(dispatch.next_round().is_empty());
        let receipts: Vec<(i32, i64)> =
            dispatch.finish().into_iter().map(|r| r.map(|r| (r.partition, r.offset)).expect("ok")).collect();
        assert_eq!(receipts, [(2, 200), (5, 500), (2, 201)]);
    }

    #[test]
    fn one_large_record_is_found_by_halving_and_its_neighbours_pass() {
        let mut dispatch = Dispatch::new(9, vec![part(0, &[0, 1, 2, 3, 4, 5, 6, 7, 8])]);
        let (mut next_offset, mut rounds) = (0, 0);
        loop {
            let round = dispatch.next_round();
            let Some(part) = round.into_iter().next() else { break };
            rounds += 1;
            let answer = if part.records.contains(&6) {
                Err(Refusal::TooLarge("too large".into()))
            } else {
                next_offset += i64::try_from(part.records.len()).expect("small");
                Ok(next_offset - i64::try_from(part.records.len()).expect("small"))
            };
            dispatch.settle(part, answer);
        }
        let outcomes = dispatch.finish();
        assert!(matches!(outcomes[6], Err(BrokerError::TooLarge(_))), "{outcomes:?}");
        let offsets: Vec<i64> = outcomes.into_iter().filter_map(|r| r.ok().map(|r| r.offset)).collect();
        assert_eq!(offsets, (0..8).collect::<Vec<i64>>(), "in the order of the records");
        assert!(rounds < 10, "{rounds}");
    }

    fn rejected(code: Code, places: &[usize]) -> Refusal {
        let records = places.iter().map(|&place| (place, "no key".to_owned())).collect();
        Refusal::Rejected("events/0".into(), Verdict { records, ..Verdict::of(code) })
    }

    #[test]
    fn records_that_the_broker_names_are_settled_and_the_others_sent_again() {
        let mut dispatch = Dispatch::new(4, vec![part(0, &[0, 1, 2, 3]), part(0, &[])]);
        for part in dispatch.next_round() {
            dispatch.settle(part, Err(rejected(Code::INVALID_RECORD, &[0, 2, 99])));
        }
        let round = dispatch.next_round();
        assert_eq!(round[0].records, [1, 3], "ahead of the waiting part");
        dispatch.settle(round[0].clone(), Ok(7));
        let outcomes = dispatch.finish();
        let Err(BrokerError::Rejected(text)) = &outcomes[2] else { panic!("{outcomes:?}") };
        assert_eq!(text, "events/0: Kafka rejects this event: no key (INVALID_RECORD (87))");
        assert_eq!(outcomes[3], Ok(Receipt { partition: 0, offset: 8 }));
    }

    #[test]
    fn without_names_the_record_is_found_by_halving_and_called_corrupt_only_twice() {
        for (code, sent) in [(Code::INVALID_RECORD, 5), (Code::CORRUPT_MESSAGE, 6)] {
            let mut dispatch = Dispatch::new(4, vec![part(0, &[0, 1, 2, 3])]);
            let mut rounds = 0;
            while let Some(part) = dispatch.next_round().pop() {
                rounds += 1;
                let answer = if part.records.contains(&2) { Err(rejected(code, &[])) } else { Ok(rounds) };
                dispatch.settle(part, answer);
            }
            let outcomes = dispatch.finish();
            assert!(matches!(outcomes[2], Err(BrokerError::Rejected(_))), "{outcomes:?}");
            assert_eq!((outcomes.iter().filter(|outcome| outcome.is_ok()).count(), rounds), (3, sent));
        }
    }

    #[test]
    fn a_verdict_on_records_that_were_not_sent_is_a_failure() {
        let mut dispatch = Dispatch::new(1, vec![part(0, &[0])]);
        let part = dispatch.next_round().remove(0);
        dispatch.settle(part, Err(rejected(Code::INVALID_RECORD, &[1])));
        assert!(dispatch.finish()[0].as_ref().is_err_and(BrokerError::is_retryable));
    }

    #[test]
    fn after_a_failure_nothing_later_of_that_partition_is_sent_but_others_go_on() {
        let parts = vec![part(0, &[0]), part(0, &[1]), part(1, &[2]), part(1, &[3])];
        let mut dispatch = Dispatch::new(4, parts);
        for part in dispatch.next_round() {
            let answer = if part.partition == 0 { Err(failed()) } else { Ok(7) };
            dispatch.settle(part, answer);
        }
        let round = dispatch.next_round();
        assert_eq!(round, [part(1, &[3])]);
        dispatch.settle(part(1, &[3]), Ok(8));
        let ok: Vec<bool> = dispatch.finish().iter().map(Result::is_ok).collect();
        assert_eq!(ok, [false, false, true, true]);
    }

    #[test]
    fn a_round_is_bounded_but_never_empty_while_something_waits() {
        let huge = |partition| Part { bytes: MAX_ROUND_BYTES - 1, ..part(partition, &[0]) };
        let mut dispatch = Dispatch::new(1, vec![huge(0), huge(1)]);
        assert_eq!(
            [dispatch.next_round().len(), dispatch.next_round().len(), dispatch.next_round().len()],
            [1, 1, 0]
        );
    }

    #[test]
    fn what_was_never_answered_is_retryable() {
        let outcomes = Dispatch::new(1, vec![part(0, &[0])]).finish();
        assert!(outcomes[0].as_ref().is_err_and(BrokerError::is_retryable));
    }
}
