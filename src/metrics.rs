//! Registers metrics and renders them as Prometheus text; includes the metrics that all programs share.
//!
//! Names follow Prometheus conventions: prefix `pipeline_`, base units, `_total` on counters. Each program
//! declares its own metrics in its own module and registers them here.

use std::time::{SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use prometheus::core::Collector;
use prometheus::proto::MetricType;
use prometheus::{
    Gauge, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
};

use crate::{broker, linux, logging};

/// Content type of the text that [`Metrics::render`] returns.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Buckets for the duration of a request, a broker call or a write, in seconds.
pub const SECONDS_BUCKETS: [f64; 14] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// The Kafka clients, as in `KAFKA_CLIENT`.
const KAFKA_CLIENTS: [&str; 2] = ["crate", "wire"];

/// Describes a metric, for the documentation.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Description {
    /// Name of the metric.
    pub name: String,
    /// `counter`, `gauge` or `histogram`.
    pub kind: &'static str,
    /// Names of the labels.
    pub labels: Vec<String>,
    /// What the metric counts.
    pub help: String,
}

/// The metrics registry of one program.
pub struct Metrics {
    families: Families,
    kafka_client: IntGaugeVec,
    resident_bytes: IntGauge,
    open_fds: IntGauge,
    threads: IntGauge,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Creates a registry with build info and process metrics.
    pub fn new() -> Self {
        let families = Families::default();
        let build = Opts::new("pipeline_build_info", "Version of this program; always 1")
            .const_label("version", env!("CARGO_PKG_VERSION"));
        families.add(IntGauge::with_opts(build)).set(1);
        let start =
            families.add(Gauge::new("process_start_time_seconds", "Unix time at which the process started"));
        start.set(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |age| age.as_secs_f64()));
        families.add(Ok(logging::dropped_lines()));
        let int = |name, help| families.add(IntGauge::new(name, help));
        let client = Opts::new(
            "pipeline_kafka_client_info",
            "1 for the Kafka client in use (KAFKA_CLIENT), else 0; 0 for both before the first connection",
        );
        let kafka_client = IntGaugeVec::new(client, &["client"]).expect("a legal metric");
        for name in KAFKA_CLIENTS {
            kafka_client.with_label_values(&[name]);
        }
        Self {
            kafka_client: families.add(Ok(kafka_client)),
            resident_bytes: int("process_resident_memory_bytes", "Resident memory"),
            open_fds: int("process_open_fds", "Open file descriptors"),
            threads: int("process_threads", "Threads of the process"),
            families,
        }
    }

    /// Registers a counter.
    pub fn counter(&self, name: &str, help: &str) -> IntCounter {
        self.families.add(IntCounter::new(name, help))
    }

    /// Registers a counter with labels. Each label must have few values.
    pub fn counters(&self, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
        self.families.add(IntCounterVec::new(Opts::new(name, help), labels))
    }

    /// Registers a counter with one label, which exists from the start for each of `values`.
    pub fn counters_for(&self, name: &str, help: &str, label: &str, values: &[&str]) -> IntCounterVec {
        let counters = self.counters(name, help, &[label]);
        for value in values {
            counters.with_label_values(&[value]);
        }
        counters
    }

    /// Registers a gauge with integer values.
    pub fn int_gauge(&self, name: &str, help: &str) -> IntGauge {
        self.families.add(IntGauge::new(name, help))
    }

    /// Registers a gauge.
    pub fn gauge(&self, name: &str, help: &str) -> Gauge {
        self.families.add(Gauge::new(name, help))
    }

    /// Registers a histogram with the given buckets.
    pub fn histogram(&self, name: &str, help: &str, buckets: &[f64]) -> Histogram {
        self.families.add(Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets.to_vec())))
    }

    /// Registers any other collector, for example gauges with labels.
    pub fn register<C: Collector + Clone + 'static>(&self, collector: C) -> C {
        self.families.add(Ok(collector))
    }

    /// Describes every metric of this registry, sorted by name.
    pub fn descriptions(&self) -> Vec<Description> {
        let mut all = self.families.descriptions.lock().clone();
        all.sort();
        all
    }

    /// Renders the response body of `/metrics`.
    pub fn render(&self) -> String {
        let in_use = broker::client_in_use();
        for name in KAFKA_CLIENTS {
            self.kafka_client.with_label_values(&[name]).set((in_use == Some(name)).into());
        }
        let size = linux::process_size("self");
        self.resident_bytes.set(size.resident_bytes as i64);
        self.open_fds.set(size.open_fds as i64);
        self.threads.set(size.threads as i64);
        TextEncoder::new().encode_to_string(&self.families.registry.gather()).unwrap_or_default()
    }
}

/// The registered metrics and their descriptions.
#[derive(Default)]
struct Families {
    registry: Registry,
    descriptions: Mutex<Vec<Description>>,
}

impl Families {
    /// Panics if a name is invalid or used twice: names are constants of this crate, so the first test finds
    /// that bug.
    fn add<C: Collector + Clone + 'static>(&self, collector: prometheus::Result<C>) -> C {
        let collector = collector.expect("a legal metric");
        self.registry.register(Box::new(collector.clone())).expect("a metric name used once");
        let kind = collector.collect().first().map(|family| family.get_field_type());
        let described = collector.desc().into_iter().map(|desc| Description {
            name: desc.fq_name.clone(),
            kind: match kind {
                Some(MetricType::COUNTER) => "counter",
                Some(MetricType::HISTOGRAM) => "histogram",
                _ => "gauge",
            },
            labels: desc
                .variable_labels
                .iter()
                .cloned()
                .chain(desc.const_label_pairs.iter().map(|pair| pair.name().to_owned()))
                .collect(),
            help: desc.help.clone(),
        });
        self.descriptions.lock().extend(described);
        collector
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_holds_what_was_counted_and_the_process() {
        let metrics = Metrics::new();
        metrics.counter("pipeline_things_total", "Things").inc_by(3);
        let text = metrics.render();
        assert!(text.contains("pipeline_things_total 3"), "{text}");
        assert!(text.contains(concat!("pipeline_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1")));
        assert!(text.contains("process_open_fds"));
    }
}
