//! Puts together what the page shows, from all programs and the tail of the topic. Pure.

use std::collections::BTreeMap;
use std::time::Instant;

use serde::Serialize;

use crate::live::buckets::{Buckets, Percentile};
use crate::live::history::{Columns, History, POINTS, Point};
use crate::live::reading::{Counts, Reading, Refusal};
use crate::live::sample::{Event, Taken};
use crate::live::watched::{Program, Role, Watched};

/// Most rows of each table.
const MAX_REFUSALS: usize = 24;
const MAX_PARTITIONS: usize = 48;

/// All programs and the last five minutes.
pub struct View {
    pub programs: Vec<Watched>,
    /// False if no events are shown.
    shows_events: bool,
    history: History,
    number: u64,
}

/// The moment of a snapshot.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    pub now: Instant,
    /// The same, in milliseconds since 1970.
    pub unix_millis: u64,
}

/// The two texts of a snapshot.
#[derive(Debug)]
pub struct Rendered {
    pub number: u64,
    pub whole: String,
    pub change: String,
}

#[derive(Serialize)]
struct Document<'a> {
    number: u64,
    is_whole: bool,
    time: u64,
    points: Columns,
    programs: &'a [Program<'a>],
    /// Counters of all programs together, each since the start of its program.
    totals: Counts,
    in_flight: f64,
    capacity: f64,
    queue_bytes: f64,
    connections: f64,
    lag: &'a [Lag<'a>],
    answer: Percentiles,
    end_to_end: Percentiles,
    refused: &'a [Refused<'a>],
    events: Events<'a>,
}

#[derive(Serialize)]
struct Lag<'a> {
    consumer: &'a str,
    partition: i32,
    records: f64,
}

#[derive(Clone, Copy, Default, Serialize)]
struct Percentiles {
    p50: Option<Seconds>,
    p99: Option<Seconds>,
}

/// A percentile in seconds; [`Percentile`] does not know about JSON.
#[derive(Clone, Copy, Serialize)]
struct Seconds {
    seconds: f64,
    is_above: bool,
}

#[derive(Serialize)]
struct Refused<'a> {
    what: &'static str,
    reason: &'a str,
    client: &'a str,
    total: f64,
    /// In the last minute.
    recent: f64,
}

#[derive(Serialize)]
struct Events<'a> {
    is_on: bool,
    problem: Option<&'a str>,
    /// Records that came to the topic since the snapshot before.
    seen: u64,
    list: &'a [Event],
}

impl View {
    /// A view of programs of which nothing is known yet.
    pub fn new(programs: Vec<Watched>, shows_events: bool) -> Self {
        Self { programs, shows_events, history: History::default(), number: 0 }
    }

    /// Adds this second to the history and renders the snapshot.
    pub fn render(&mut self, moment: Moment, taken: &Taken) -> Rendered {
        self.number += 1;
        let answer = self.percentiles(moment.now, Role::Producer, |reading| &reading.answer_seconds);
        let end_to_end = self.percentiles(moment.now, Role::Consumer, |reading| &reading.end_to_end_seconds);
        let point = self.point(moment, &answer, &end_to_end);
        self.history.push(point);
        let now = moment.now;
        let programs: Vec<Program<'_>> = self.programs.iter().map(|watched| watched.program(now)).collect();
        let (lag, refused) = (self.lag(now), self.refused(now));
        let sum = |of: fn(&Reading) -> f64| self.readings(now).map(of).fold(0.0, |sum, value| sum + value);
        let text = |is_whole: bool| {
            let document = Document {
                number: self.number,
                is_whole,
                time: moment.unix_millis,
                points: self.history.last(if is_whole { POINTS } else { 1 }),
                programs: &programs,
                totals: self.totals(),
                in_flight: sum(|reading| reading.in_flight),
                capacity: sum(|reading| reading.capacity),
                queue_bytes: sum(|reading| reading.queue_bytes),
                connections: sum(|reading| reading.connections),
                lag: &lag,
                answer,
                end_to_end,
                refused: &refused,
                events: Events {
                    is_on: self.shows_events,
                    problem: taken.problem.as_deref(),
                    seen: taken.seen,
                    list: if is_whole { &taken.recent } else { &taken.fresh },
                },
            };
            serde_json::to_string(&document).unwrap_or_default()
        };
        Rendered { number: self.number, whole: text(true), change: text(false) }
    }

    fn readings(&self, now: Instant) -> impl Iterator<Item = &Reading> {
        self.programs.iter().filter_map(move |watched| watched.reading(now))
    }

    /// Of every program as it was last seen: a counter does not become wrong by silence.
    fn totals(&self) -> Counts {
        let counts = self.programs.iter().map(Watched::counts);
        counts.fold(Counts::default(), |sum, counts| sum.zip(&counts, |a, b| a + b))
    }

    /// The sum over all programs of a role that answer; `None` if none does.
    fn sum(&self, now: Instant, role: Role, of: impl Fn(&Watched) -> Option<f64>) -> Option<f64> {
        let programs = self.programs.iter().filter(|watched| watched.role == role);
        let values = programs.filter(|watched| watched.reading(now).is_some()).filter_map(of);
        values.fold(None, |sum: Option<f64>, value| Some(sum.unwrap_or(0.0) + value))
    }

    fn point(&self, moment: Moment, answer: &Percentiles, end_to_end: &Percentiles) -> Point {
        let now = moment.now;
        let rate = |role, of: fn(&Counts) -> f64| self.sum(now, role, |watched| watched.rates(now).map(of));
        let value =
            |role, of: fn(&Reading) -> f64| self.sum(now, role, |watched| watched.reading(now).map(of));
        Point {
            time: moment.unix_millis / 1000,
            received: rate(Role::Producer, |rates| rates.received),
            acknowledged: rate(Role::Producer, |rates| rates.acknowledged),
            logged: rate(Role::Consumer, |rates| rates.logged),
            in_flight: value(Role::Producer, |reading| reading.in_flight),
            lag: value(Role::Consumer, |reading| reading.lag.values().sum()),
            answer_p99: answer.p99.map(|p99| p99.seconds),
            end_to_end_p99: end_to_end.p99.map(|p99| p99.seconds),
        }
    }

    fn percentiles(&self, now: Instant, role: Role, which: fn(&Reading) -> &Buckets) -> Percentiles {
        let mut sum = Buckets::default();
        for watched in self.programs.iter().filter(|watched| watched.role == role) {
            sum.merge(&watched.recent_buckets(now, which).unwrap_or_default());
        }
        let shown = |found: Percentile| Seconds { seconds: found.value, is_above: found.is_above };
        Percentiles { p50: sum.percentile(0.5).map(shown), p99: sum.percentile(0.99).map(shown) }
    }

    fn lag(&self, now: Instant) -> Vec<Lag<'_>> {
        let all = self.programs.iter().filter_map(|watched| {
            let reading = watched.reading(now)?;
            let name = watched.name.as_str();
            Some(reading.lag.iter().map(move |(&partition, &records)| Lag {
                consumer: name,
                partition,
                records,
            }))
        });
        all.flatten().take(MAX_PARTITIONS).collect()
    }

    /// Refusals of all programs, the most frequent ones of the last minute first.
    fn refused(&self, now: Instant) -> Vec<Refused<'_>> {
        let mut sums: BTreeMap<&Refusal, (f64, f64)> = BTreeMap::new();
        for (refusal, (total, recent)) in self.programs.iter().flat_map(|watched| watched.refusals(now)) {
            let sum = sums.entry(refusal).or_default();
            *sum = (sum.0 + total, sum.1 + recent);
        }
        let mut rows: Vec<Refused<'_>> = sums
            .into_iter()
            .map(|(refusal, (total, recent))| {
                let (reason, client) = (refusal.reason.as_str(), refusal.client.as_str());
                Refused { what: refusal.what, reason, client, total, recent }
            })
            .collect();
        rows.sort_by(|a, b| {
            (b.recent, b.total).partial_cmp(&(a.recent, a.total)).unwrap_or(std::cmp::Ordering::Equal)
        });
        rows.truncate(MAX_REFUSALS);
        rows
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::Value;

    use super::*;
    use crate::live::ask::Answer;

    fn answer(at: Instant, text: &str) -> Answer {
        let text = format!("pipeline_build_info{{version=\"1\"}} 1\nprocess_start_time_seconds 1\n{text}");
        Answer { at, reading: Reading::of(&text), problems: Vec::new() }
    }

    fn parsed(text: &str) -> Value {
        serde_json::from_str(text).expect("JSON")
    }

    fn moment(start: Instant, second: u64) -> Moment {
        Moment { now: start + Duration::from_secs(second), unix_millis: 1_764_254_553_000 + second * 1000 }
    }

    #[test]
    fn programs_are_added_up_and_a_silent_one_leaves_a_gap() {
        let start = Instant::now();
        let producer = |name| Watched::new(Role::Producer, name);
        let mut view =
            View::new(vec![producer("a:1"), producer("b:1"), Watched::new(Role::Consumer, "c:1")], false);
        let first = parsed(&view.render(moment(start, 0), &Taken::default()).whole);
        assert_eq!(first["points"]["received"], serde_json::json!([null]));
        for second in 0..2 {
            let count = second * 10;
            let at = moment(start, second).now;
            for (index, factor) in [(0, 1), (1, 2)] {
                let text =
                    format!("pipeline_events_received_total {}\npipeline_queue_events 3\n", count * factor);
                view.programs[index].take(&answer(at, &text));
            }
            let refused = "pipeline_consumer_rejected_total{reason=\"not_json\"} 7\n";
            let lag = "pipeline_consumer_lag_records{partition=\"0\"} 4\npipeline_log_events_total 5\n";
            view.programs[2].take(&answer(at, &format!("{refused}{lag}")));
        }
        let rendered = view.render(moment(start, 1), &Taken::default());
        let (whole, change) = (parsed(&rendered.whole), parsed(&rendered.change));
        assert_eq!(
            (&whole["number"], &whole["is_whole"], &change["is_whole"]),
            (&2.into(), &true.into(), &false.into())
        );
        assert_eq!(whole["points"]["received"], serde_json::json!([null, 30.0]));
        assert_eq!(change["points"]["received"], serde_json::json!([30.0]));
        assert_eq!((&whole["totals"]["received"], &whole["totals"]["logged"]), (&30.0.into(), &5.0.into()));
        assert_eq!((&whole["in_flight"], &whole["lag"][0]["records"]), (&6.0.into(), &4.0.into()));
        assert_eq!(
            (&whole["refused"][0]["what"], &whole["refused"][0]["total"]),
            (&"record".into(), &7.0.into())
        );
        let later = parsed(&view.render(moment(start, 60), &Taken::default()).change);
        assert_eq!(
            (&later["points"]["logged"][0], &later["programs"][2]["state"]),
            (&Value::Null, &"silent".into())
        );
        assert_eq!(later["totals"]["logged"], 5.0, "what was counted stays");
    }

    #[test]
    fn a_new_viewer_gets_the_events_before_and_the_others_only_the_new_ones() {
        let start = Instant::now();
        let event = |offset| Event::new(0, offset, None, b"{}");
        let taken =
            Taken { fresh: vec![event(9)], recent: vec![event(8), event(9)], seen: 100, problem: None };
        let rendered = View::new(Vec::new(), true).render(moment(start, 0), &taken);
        let (whole, change) = (parsed(&rendered.whole), parsed(&rendered.change));
        assert_eq!(whole["events"]["list"].as_array().map(Vec::len), Some(2));
        assert_eq!(
            (&change["events"]["list"][0]["offset"], &change["events"]["seen"]),
            (&9.into(), &100.into())
        );
    }
}
