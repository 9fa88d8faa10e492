//! How old records are once the checkpoint covers them. Pure: the clock is passed in.

/// Times of the records that wait to be covered; a row of equal ones is one entry.
#[derive(Debug, Default)]
pub struct Ages {
    rows: Vec<(i64, u64)>,
}

impl Ages {
    /// One more record waits, of `time_ms` since 1970; without a time it has no age.
    pub fn wait(&mut self, time_ms: Option<i64>) {
        let Some(time_ms) = time_ms else { return };
        match self.rows.last_mut() {
            Some((time, records)) if *time == time_ms => *records += 1,
            _ => self.rows.push((time_ms, 1)),
        }
    }

    /// Ages in seconds at `now_ms` and the number of records of each; nothing waits then. A time ahead of our clock
    /// is one of now.
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
            ages.wait(time);
        }
        let covered: Vec<(f64, u64)> = ages.covered(2500).collect();
        assert_eq!(covered, [(1.5, 3), (1.0, 1), (1.5, 1), (0.0, 1)]);
        assert_eq!(ages.covered(2500).count(), 0);
    }
}
