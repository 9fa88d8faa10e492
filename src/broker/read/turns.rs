//! Rotates partitions over fetches, so that none is starved where a fetch or its response is limited. Does no
//! I/O.
//!
//! A fetch holds a limited number of partitions, and a broker sends a batch above a partition's share only for
//! the first partition that has data.

use std::collections::HashMap;

use crate::broker::record::Position;

/// Remembers when each partition was last asked, and when it was last the first in a request.
#[derive(Default)]
pub struct Turns {
    /// Number of places given out.
    count: u64,
    asked: HashMap<i32, u64>,
    first: HashMap<i32, u64>,
}

impl Turns {
    /// Chooses the `max` of `positions` that were asked the longest ago. In the order in which they are
    /// returned, the one that was first the longest ago comes first, also among those of one broker.
    pub fn choose(&mut self, positions: &[Position], max: usize) -> Vec<Position> {
        let mut chosen = positions.to_vec();
        chosen.sort_by_key(|at| self.asked.get(&at.partition));
        chosen.truncate(max);
        self.asked.extend((self.count..).zip(&chosen).map(|(place, at)| (at.partition, place)));
        self.count += chosen.len() as u64;
        chosen.sort_by_key(|at| self.first.get(&at.partition));
        chosen
    }

    /// Notes that `partition` is the first of a request.
    pub fn is_first(&mut self, partition: i32) {
        self.first.insert(partition, self.count);
        self.count += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn positions(partitions: std::ops::Range<i32>) -> Vec<Position> {
        partitions.map(|partition| Position { partition, offset: 0 }).collect()
    }

    #[test]
    fn each_is_first_once_before_any_is_twice_also_with_several_brokers() {
        // Partition p is led by broker p % brokers.
        for (count, brokers) in [(9, 1), (12, 3), (10, 4)] {
            let (mut turns, positions) = (Turns::default(), positions(0..count));
            let mut first = vec![0; count as usize];
            for _ in 0..count {
                let chosen = turns.choose(&positions, 12);
                for broker in 0..brokers {
                    let at = chosen.iter().find(|at| at.partition % brokers == broker).expect("one of it");
                    turns.is_first(at.partition);
                    first[at.partition as usize] += 1;
                }
            }
            for broker in 0..brokers {
                let of_broker: Vec<i32> =
                    first.iter().skip(broker as usize).step_by(brokers as usize).copied().collect();
                let (min, max) = (of_broker.iter().min(), of_broker.iter().max());
                assert!(max <= min.map(|min| min + 1).as_ref(), "{count} {brokers}: {of_broker:?}");
            }
        }
    }

    #[test]
    fn with_more_than_fit_each_is_asked_and_first_in_turn() {
        for count in [13, 24, 30] {
            let (mut turns, positions) = (Turns::default(), positions(0..count));
            let (mut asked, mut first) = (vec![0; count as usize], vec![0; count as usize]);
            let fetches = 12 * count;
            for _ in 0..fetches {
                let chosen = turns.choose(&positions, 12);
                chosen.iter().for_each(|at| asked[at.partition as usize] += 1);
                first[chosen[0].partition as usize] += 1;
                turns.is_first(chosen[0].partition);
            }
            assert!(asked.iter().all(|asked| (143..=145).contains(asked)), "{count}: {asked:?}");
            assert!(first.iter().all(|first| *first >= 6), "{count}: {first:?}");
        }
        assert!(Turns::default().choose(&[], 12).is_empty());
    }
}
