//! The last five minutes, one point per second. Pure.

use std::collections::VecDeque;

use serde::Serialize;

/// Points that are kept: five minutes.
pub const POINTS: usize = 300;

/// What the charts show of one second. `None` where no program said it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Point {
    /// Seconds since 1970.
    pub time: u64,
    /// Events per second.
    pub received: Option<f64>,
    pub acknowledged: Option<f64>,
    pub logged: Option<f64>,
    /// Events.
    pub in_flight: Option<f64>,
    /// Records.
    pub lag: Option<f64>,
    /// Seconds.
    pub answer_p99: Option<f64>,
    pub end_to_end_p99: Option<f64>,
}

/// Points as columns, which is the shortest form in JSON.
#[derive(Debug, Default, PartialEq, Serialize)]
pub struct Columns {
    time: Vec<u64>,
    received: Vec<Option<f64>>,
    acknowledged: Vec<Option<f64>>,
    logged: Vec<Option<f64>>,
    in_flight: Vec<Option<f64>>,
    lag: Vec<Option<f64>>,
    answer_p99: Vec<Option<f64>>,
    end_to_end_p99: Vec<Option<f64>>,
}

/// The latest points, the oldest first.
#[derive(Debug, Default)]
pub struct History(VecDeque<Point>);

impl History {
    /// Adds the point of this second.
    pub fn push(&mut self, point: Point) {
        if self.0.len() == POINTS {
            self.0.pop_front();
        }
        self.0.push_back(point);
    }

    /// The last `count` points, or all if there are fewer.
    pub fn last(&self, count: usize) -> Columns {
        let mut columns = Columns::default();
        for point in self.0.iter().skip(self.0.len().saturating_sub(count)) {
            columns.time.push(point.time);
            columns.received.push(point.received.map(tidy));
            columns.acknowledged.push(point.acknowledged.map(tidy));
            columns.logged.push(point.logged.map(tidy));
            columns.in_flight.push(point.in_flight.map(tidy));
            columns.lag.push(point.lag.map(tidy));
            columns.answer_p99.push(point.answer_p99.map(tidy));
            columns.end_to_end_p99.push(point.end_to_end_p99.map(tidy));
        }
        columns
    }
}

/// The value with four significant digits, which is more than a chart shows.
fn tidy(value: f64) -> f64 {
    if value == 0.0 || !value.is_finite() {
        return value;
    }
    let scale = 10_f64.powi(3 - value.abs().log10().floor() as i32);
    if scale >= 1.0 { (value * scale).round() / scale } else { value.round() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_point_makes_room() {
        let mut history = History::default();
        for time in 0..POINTS as u64 + 5 {
            history.push(Point { time, received: Some(time as f64), ..Point::default() });
        }
        let all = history.last(POINTS);
        assert_eq!((all.time.len(), all.time[0], all.time[POINTS - 1]), (POINTS, 5, POINTS as u64 + 4));
        let last = history.last(1);
        assert_eq!((last.time, last.received, last.lag), (vec![304], vec![Some(304.0)], vec![None]));
        assert_eq!(History::default().last(POINTS), Columns::default());
    }

    #[test]
    fn values_are_short() {
        for (value, short) in
            [(0.0, 0.0), (0.001_234_56, 0.001_235), (12.345_6, 12.35), (123_456.7, 123_457.0)]
        {
            assert_eq!(tidy(value), short);
        }
        assert!(tidy(f64::NAN).is_nan());
    }
}
