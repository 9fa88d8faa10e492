//! Percentiles of a histogram, from the counts of its buckets. Pure.

/// The buckets of a histogram: the upper bound of each, and how many values are not above it. Bounds rise.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Buckets(Vec<(f64, f64)>);

/// A percentile.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Percentile {
    /// The estimate, in the unit of the histogram.
    pub value: f64,
    /// The percentile is above the highest bound, which is `value`.
    pub is_above: bool,
}

impl Buckets {
    /// Adds `count` values up to `bound`, to those that are known.
    pub fn add(&mut self, bound: f64, count: f64) {
        match self.0.iter_mut().find(|(known, _)| *known == bound) {
            Some((_, known)) => *known += count,
            None => {
                let at = self.0.partition_point(|(known, _)| *known < bound);
                self.0.insert(at, (bound, count));
            }
        }
    }

    /// Adds another histogram with the same bounds.
    pub fn merge(&mut self, other: &Self) {
        for (bound, count) in &other.0 {
            self.add(*bound, *count);
        }
    }

    /// What was counted since `before`; everything if the program has started again.
    pub fn since(&self, before: &Self) -> Self {
        let old =
            |bound: f64| before.0.iter().find(|(known, _)| *known == bound).map_or(0.0, |(_, count)| *count);
        let is_new = self.total() < before.total();
        let change =
            |(bound, count): &(f64, f64)| (*bound, if is_new { *count } else { count - old(*bound) });
        Self(self.0.iter().map(change).collect())
    }

    /// Number of values.
    fn total(&self) -> f64 {
        self.0.last().map_or(0.0, |(_, count)| *count)
    }

    /// The value that `share` (0 to 1) of the values are not above, as `histogram_quantile` of Prometheus estimates it;
    /// `None` without values.
    pub fn percentile(&self, share: f64) -> Option<Percentile> {
        let rank = share * self.total();
        if self.total() <= 0.0 {
            return None;
        }
        let at = self.0.iter().position(|(_, count)| *count >= rank)?;
        let (bound, count) = self.0[at];
        let (below, before) = if at == 0 { (0.0, 0.0) } else { self.0[at - 1] };
        if bound.is_infinite() {
            return Some(Percentile { value: below, is_above: true });
        }
        let part = if count > before { (rank - before) / (count - before) } else { 1.0 };
        Some(Percentile { value: below + (bound - below) * part, is_above: false })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buckets(counts: &[(f64, f64)]) -> Buckets {
        let mut buckets = Buckets::default();
        counts.iter().for_each(|(bound, count)| buckets.add(*bound, *count));
        buckets
    }

    #[test]
    fn a_percentile_is_interpolated_within_its_bucket() {
        let found = buckets(&[(1.0, 50.0), (2.0, 100.0), (f64::INFINITY, 100.0)]);
        let value = |share| found.percentile(share).map(|found| found.value);
        assert_eq!(
            (value(0.25), value(0.5), value(0.75), value(1.0)),
            (Some(0.5), Some(1.0), Some(1.5), Some(2.0))
        );
        assert_eq!(Buckets::default().percentile(0.5), None);
        assert_eq!(buckets(&[(1.0, 0.0), (f64::INFINITY, 0.0)]).percentile(0.5), None, "no values");
    }

    #[test]
    fn above_the_highest_bound_only_that_is_known() {
        let found = buckets(&[(1.0, 1.0), (10.0, 1.0), (f64::INFINITY, 4.0)]).percentile(0.99);
        assert_eq!(found, Some(Percentile { value: 10.0, is_above: true }));
    }

    #[test]
    fn the_difference_is_what_came_in_between_also_after_a_restart() {
        let before = buckets(&[(1.0, 10.0), (2.0, 20.0)]);
        assert_eq!(buckets(&[(1.0, 10.0), (2.0, 25.0)]).since(&before), buckets(&[(1.0, 0.0), (2.0, 5.0)]));
        let restarted = buckets(&[(1.0, 3.0), (2.0, 4.0)]);
        assert_eq!(restarted.since(&before), restarted);
        assert_eq!(before.since(&Buckets::default()), before);
    }

    #[test]
    fn histograms_of_several_programs_are_added() {
        let mut sum = buckets(&[(2.0, 3.0), (1.0, 1.0)]);
        sum.merge(&buckets(&[(1.0, 1.0), (2.0, 1.0)]));
        assert_eq!(sum, buckets(&[(1.0, 2.0), (2.0, 4.0)]));
    }
}
