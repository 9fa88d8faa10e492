//! Measures how old records are when the checkpoint covers them. Pure: the clock is passed in.

/// Timestamps of the records that are not covered yet. Consecutive equal timestamps share one entry.
#[derive(Debug, Default)]
pub struct Ages {
    rows: Vec<(i64, u64)>,
}

impl Ages {
    /// Adds a record with the timestamp `time_ms` (milliseconds since 1970). A record without one is not
    /// counted.
    pub fn add(&mut self, time_ms: Option<i64>) {
        let Some(time_ms) = time_ms else { return };
        match self.rows.last_mut() {
            Some((time, records)) if *time == time_ms => *records += 1,
            _ => self.rows.push((time_ms, 1)),
        }
    }

    /// Removes all records and returns their ages at `now_ms` in seconds, each with its number of records. A
    /// timestamp ahead of our clock counts as age 0.
    pub fn covered(&mut self, now_ms: i64) -> impl Iterator<Item = (f64, u64)> {
        self.rows
            .drain(..)
            .map(move |(time_ms, records)| (now_ms.saturating_sub(time_ms).max(0) as f64 / 1000.0, records))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_equal_times_are_counted_and_given_once() {
        let mut ages = Ages::default();
        for time in [Some(1000), Some(1000), None, Some(1000), Some(1500), Some(1000), Some(3000)] {
            ages.add(time);
        }
        let covered: Vec<(f64, u64)> = ages.covered(2500).collect();
        assert_eq!(covered, [(1.5, 3), (1.0, 1), (1.5, 1), (0.0, 1)]);
        assert_eq!(ages.covered(2500).count(), 0);
    }
}
