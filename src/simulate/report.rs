//! Formats the figures of a run as text and as JSON, and checks the thresholds. Pure.

use std::fmt::Write;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::{Map, Value, json};

use crate::config::SimulateConfig;
use crate::simulate::load::Outcome;
use crate::simulate::tally::{LATE_AFTER, Tally};

/// Largest share of late requests with which the schedule still counts as kept.
const MAX_LATE_SHARE: f64 = 0.01;

const PERCENTILES: [(&str, f64); 5] =
    [("p50", 0.5), ("p90", 0.9), ("p95", 0.95), ("p99", 0.99), ("p99.9", 0.999)];

/// The report on one run.
pub struct Report<'a> {
    config: &'a SimulateConfig,
    outcome: &'a Outcome,
}

impl<'a> Report<'a> {
    /// Creates a report on `outcome` of a run with the settings `config`.
    pub fn new(config: &'a SimulateConfig, outcome: &'a Outcome) -> Self {
        Self { config, outcome }
    }

    /// The report as text; its first line is the same as in the original.
    pub fn text(&self) -> String {
        let tally = &self.outcome.measured;
        let seconds = self.outcome.elapsed.as_secs_f64();
        let mut text = format!("✅ Finished in {seconds:.1} seconds.\n");
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "   {} acknowledged, {} rejected, {} failed",
            tally.acknowledged, tally.rejected, tally.failed
        );
        let _ = write!(text, "   {:.0} requests/s", self.requests_per_second());
        if self.config.load.batch > 1 {
            let _ = write!(text, ", {:.0} events/s", per_second(tally.acknowledged, self.outcome.elapsed));
        }
        let _ = write!(text, ", latency");
        for (name, quantile) in PERCENTILES {
            let _ = write!(text, " {name} {:.1} ms,", millis(tally.latency.value_at_quantile(quantile)));
        }
        let _ = writeln!(text, " max {:.1} ms", millis(tally.latency.max()));
        let _ = writeln!(
            text,
            "   {:.0} µs of CPU time per request (simulator); longest gap between acknowledgements {:.0} ms",
            self.cpu_micros_per_request(),
            self.outcome.longest_gap.as_secs_f64() * 1000.0
        );
        self.write_kinds(&mut text);
        for note in self.notes() {
            let _ = writeln!(text, "   note: {note}");
        }
        text
    }

    /// Writes responses by status and failures by cause; nothing if every first attempt was answered 200.
    fn write_kinds(&self, text: &mut String) {
        let tally = &self.outcome.measured;
        for (status, sampled) in tally.statuses.iter().filter(|(status, _)| **status != 200) {
            let _ = write!(text, "   status {status}: {}", sampled.count);
            let _ = if sampled.first.is_empty() {
                writeln!(text)
            } else {
                writeln!(text, " (first: {})", sampled.first)
            };
        }
        for (cause, count) in &tally.errors {
            let _ = writeln!(text, "   {cause}: {count}");
        }
        if tally.attempts > tally.requests {
            let _ = writeln!(
                text,
                "   {} attempts for {} requests: {} requests were repeated, {} of the repeated events were \
                 acknowledged more than once",
                tally.attempts, tally.requests, tally.repeated, tally.acknowledged_again
            );
        }
    }

    /// Notes that a reader needs to interpret the figures.
    pub fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        let tally = &self.outcome.measured;
        match self.config.load.rate {
            None => notes.push(
                "closed loop: nothing is sent while the server stalls, so these latencies cannot show what \
                 waiting clients would have experienced (coordinated omission); --rate can"
                    .into(),
            ),
            Some(rate) if !self.kept_schedule() => notes.push(format!(
                "the schedule of {rate} requests/s was not kept: {} of {} requests began more than {} ms \
                 late, the worst one {:.0} ms, and {} were never sent, because all {} threads were busy; \
                 latencies are measured from the intended start; use more --threads or a lower --rate",
                tally.late,
                tally.requests,
                LATE_AFTER.as_millis(),
                tally.worst_delay.as_secs_f64() * 1000.0,
                self.outcome.unsent,
                self.config.load.threads
            )),
            Some(_) => {}
        }
        if cfg!(debug_assertions) {
            notes.push("debug build: the simulator itself is slow; use cargo run --release".into());
        }
        notes
    }

    /// Describes each threshold that was exceeded.
    pub fn failures(&self) -> Vec<String> {
        let (tally, limits) = (&self.outcome.measured, &self.config.report);
        let mut failures = Vec::new();
        let missed = tally.sent - tally.acknowledged;
        let rate = if tally.sent == 0 { 0.0 } else { missed as f64 / tally.sent as f64 };
        match limits.max_error_rate {
            Some(limit) if rate > limit => failures.push(format!(
                "--max-error-rate {limit}: {missed} of {} events were not acknowledged, a share of {rate:.4}",
                tally.sent
            )),
            None if missed > 0 => {
                failures.push(format!("{missed} of {} events were not acknowledged", tally.sent))
            }
            _ => {}
        }
        let p99 = millis(tally.latency.value_at_quantile(0.99));
        if let Some(limit) = limits.max_p99_ms
            && p99 > limit
        {
            failures.push(format!("--max-p99-ms {limit}: the 99th percentile is {p99:.1} ms"));
        }
        if tally.requests == 0 {
            failures.push("no request was sent".into());
        }
        failures
    }

    /// The report as JSON, with the member names of oha where it has the same figure.
    pub fn json(&self) -> Value {
        let (tally, elapsed) = (&self.outcome.measured, self.outcome.elapsed);
        let latency = &tally.latency;
        let seconds = |micros: u64| micros as f64 / 1e6;
        let answered_well = if tally.sent == 0 { 0.0 } else { tally.acknowledged as f64 / tally.sent as f64 };
        let percentiles: Map<String, Value> = PERCENTILES
            .iter()
            .map(|(name, quantile)| ((*name).into(), seconds(latency.value_at_quantile(*quantile)).into()))
            .collect();
        let statuses: Map<String, Value> =
            tally.statuses.iter().map(|(status, seen)| (status.to_string(), seen.count.into())).collect();
        json!({
            "summary": {
                "successRate": answered_well,
                "total": elapsed.as_secs_f64(),
                "slowest": seconds(latency.max()),
                "fastest": seconds(latency.min()),
                "average": latency.mean() / 1e6,
                "requestsPerSec": self.requests_per_second(),
                "eventsPerSec": per_second(tally.acknowledged, elapsed),
                "cpuMicrosPerRequest": self.cpu_micros_per_request(),
                "longestGap": self.outcome.longest_gap.as_secs_f64(),
            },
            "latencyPercentiles": percentiles,
            "requests": {
                "sent": tally.requests, "attempts": tally.attempts, "repeated": tally.repeated,
            },
            "events": events(tally),
            "warmupEvents": events(&self.outcome.warmup),
            "statusCodeDistribution": statuses,
            "errorDistribution": tally.errors,
            "schedule": self.schedule(),
            "notes": self.notes(),
        })
    }

    fn schedule(&self) -> Value {
        let tally = &self.outcome.measured;
        match self.config.load.rate {
            None => json!({ "loop": "closed" }),
            Some(rate) => json!({
                "loop": "open",
                "rate": rate,
                "kept": self.kept_schedule(),
                "late": tally.late,
                "unsent": self.outcome.unsent,
                "worstDelay": tally.worst_delay.as_secs_f64(),
            }),
        }
    }

    fn kept_schedule(&self) -> bool {
        let tally = &self.outcome.measured;
        (tally.late + self.outcome.unsent) as f64 <= tally.requests as f64 * MAX_LATE_SHARE
    }

    fn requests_per_second(&self) -> f64 {
        per_second(self.outcome.measured.requests, self.outcome.elapsed)
    }

    fn cpu_micros_per_request(&self) -> f64 {
        self.outcome.cpu.as_secs_f64() * 1e6 / self.outcome.measured.requests.max(1) as f64
    }
}

fn events(tally: &Tally) -> Value {
    json!({
        "sent": tally.sent,
        "acknowledged": tally.acknowledged,
        "acknowledgedAgain": tally.acknowledged_again,
        "rejected": tally.rejected,
        "failed": tally.failed,
    })
}

fn per_second(count: u64, elapsed: Duration) -> f64 {
    if elapsed.is_zero() { 0.0 } else { count as f64 / elapsed.as_secs_f64() }
}

fn millis(micros: u64) -> f64 {
    micros as f64 / 1000.0
}

/// Latency distribution in the text format of HdrHistogram's plotter: milliseconds, quantile, count,
/// 1/(1-quantile).
pub fn distribution(latency: &Histogram<u64>) -> String {
    let mut text = String::from("       Value     Percentile TotalCount 1/(1-Percentile)\n\n");
    let mut below = 0;
    for step in latency.iter_quantiles(5) {
        below += step.count_since_last_iteration();
        let (value, quantile) = (millis(step.value_iterated_to()), step.quantile_iterated_to());
        let inverse =
            if quantile < 1.0 { format!("{:14.2}", 1.0 / (1.0 - quantile)) } else { "           inf".into() };
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{value:12.3} {quantile:2.12} {below:10} {inverse}");
    }
    let (mean, deviation) = (latency.mean() / 1000.0, latency.stdev() / 1000.0);
    let _ = writeln!(text, "#[Mean    = {mean:12.3}, StdDeviation   = {deviation:12.3}]");
    let _ =
        writeln!(text, "#[Max     = {:12.3}, Total count    = {:12}]", millis(latency.max()), latency.len());
    let (buckets, sub_buckets) = (latency.buckets(), 2048);
    let _ = writeln!(text, "#[Buckets = {buckets:12}, SubBuckets     = {sub_buckets:12}]");
    text
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    /// A run of 1000 requests of one event each, `missed` of them not acknowledged and `late` of them late.
    fn outcome(missed: u64, late: u64) -> Outcome {
        let mut measured = Tally::default();
        (0..1000).for_each(|n| measured.add_latency(Duration::from_micros(n * 10)));
        (measured.requests, measured.attempts, measured.sent) = (1000, 1000, 1000);
        (measured.acknowledged, measured.failed, measured.late) = (1000 - missed, missed, late);
        let (elapsed, cpu) = (Duration::from_millis(400), Duration::from_millis(30));
        Outcome {
            measured,
            warmup: Tally::default(),
            unsent: 0,
            elapsed,
            cpu,
            longest_gap: Duration::from_millis(7),
        }
    }

    fn config(args: &[&str]) -> SimulateConfig {
        SimulateConfig::try_parse_from([&["simulate"], args].concat()).expect("parses")
    }

    #[test]
    fn figures_follow_from_the_counts() {
        let (config, outcome) = (config(&[]), outcome(0, 0));
        let report = Report::new(&config, &outcome);
        let text = report.text();
        assert!(
            text.starts_with("✅ Finished in 0.4 seconds.\n   1000 acknowledged, 0 rejected, 0 failed\n"),
            "{text}"
        );
        assert!(text.contains("2500 requests/s, latency p50 5.0 ms, p90 9.0 ms"), "{text}");
        assert!(text.contains("30 µs of CPU time per request"), "{text}");
        assert_eq!(
            (report.json()["summary"]["requestsPerSec"].as_f64(), report.failures().len()),
            (Some(2500.0), 0)
        );
    }

    #[test]
    fn a_schedule_is_kept_up_to_one_late_request_in_a_hundred() {
        let config = config(&["--rate", "2500"]);
        let missed = |late| {
            Report::new(&config, &outcome(0, late)).notes().iter().any(|note| note.contains("not kept"))
        };
        assert!(!missed(10) && missed(11));
    }

    #[test]
    fn each_broken_threshold_is_named() {
        let failures = |args: &[&str], missed| Report::new(&config(args), &outcome(missed, 0)).failures();
        assert_eq!(failures(&[], 1), ["1 of 1000 events were not acknowledged"]);
        assert_eq!(failures(&["--max-error-rate", "0.01"], 10).len(), 0);
        assert_eq!(failures(&["--max-error-rate", "0.01", "--max-p99-ms", "9.8"], 11).len(), 2);
        assert_eq!(failures(&["--max-p99-ms", "10"], 0).len(), 0);
    }
}
