//! Rotates the partition order of fetches so that none is starved when responses are size-limited.
//!
//! A broker sends a batch above a partition's share only for the first partition that has data. Does no I/O.

use std::collections::HashMap;

/// Remembers when each partition was last the first.
#[derive(Default)]
pub struct Turns {
    fetches: u64,
    firsts: HashMap<i32, u64>,
}

impl Turns {
    /// Place in `asked` of the partition that was first the longest ago. Every partition gets its turn,
    /// whatever groups of partitions the caller rotates through.
    pub fn next(&mut self, asked: impl Iterator<Item = i32>) -> usize {
        let Some((_, place, partition)) = asked
            .enumerate()
            .map(|(place, partition)| (self.firsts.get(&partition).copied(), place, partition))
            .min()
        else {
            return 0;
        };
        self.fetches += 1;
        self.firsts.insert(partition, self.fetches);
        place
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_first_once_before_any_is_twice_also_when_groups_alternate() {
        for groups in [&[0..12, 12..24][..], &[0..3, 3..6, 6..9]] {
            let mut turns = Turns::default();
            let partitions: i32 = groups.iter().map(|group| group.len() as i32).sum();
            let mut first: Vec<i32> = (0..partitions as usize)
                .map(|fetch| {
                    let group = groups[fetch % groups.len()].clone();
                    group.start + turns.next(group) as i32
                })
                .collect();
            first.sort_unstable();
            assert_eq!(first, (0..partitions).collect::<Vec<_>>());
        }
        assert_eq!(Turns::default().next(std::iter::empty()), 0);
    }
}
