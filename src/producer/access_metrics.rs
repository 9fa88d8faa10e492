//! Metrics of clients and keys. Their labels are bounded by the file of keys.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;
use prometheus::{IntCounterVec, IntGaugeVec, Opts};

use crate::access::keys::Keys;
use crate::metrics::Metrics;

/// Why a request of a known client is refused.
const REASONS: [&str; 3] = ["rate_limited", "origin_not_allowed", "bad_signature"];

/// Metrics of clients and keys; empty without a file of keys.
pub struct AccessMetrics {
    /// Results of reading the file again.
    pub reloads: IntCounterVec,
    events: IntCounterVec,
    refused: IntCounterVec,
    last_used: IntGaugeVec,
    expiry: IntGaugeVec,
    /// Those that are shown.
    shown: Mutex<Shown>,
}

#[derive(Default)]
struct Shown {
    clients: BTreeSet<String>,
    /// Client and id of each key.
    keys: BTreeSet<(String, String)>,
}

impl AccessMetrics {
    /// Registers them.
    pub fn new(metrics: &Metrics) -> Self {
        let by_key = |name: &str, help: &str| {
            let gauges = IntGaugeVec::new(Opts::new(name, help), &["client", "key"]);
            metrics.register(gauges.expect("valid options"))
        };
        Self {
            reloads: metrics.counters_for(
                "pipeline_auth_reloads_total",
                "Changes of AUTH_KEYS_FILE that were found, by result",
                "result",
                &["ok", "refused"],
            ),
            events: metrics.counters(
                "pipeline_client_events_total",
                "Events accepted from a client",
                &["client"],
            ),
            refused: metrics.counters(
                "pipeline_client_refused_total",
                "Requests of a client that were refused because of its key or its limits",
                &["client", "reason"],
            ),
            last_used: by_key(
                "pipeline_key_last_used_timestamp_seconds",
                "Unix time of a key's last use; 0 if never",
            ),
            expiry: by_key(
                "pipeline_key_expiry_timestamp_seconds",
                "Unix time from which a key is no longer valid (`until=` of its line); missing for keys without it",
            ),
            shown: Mutex::default(),
        }
    }

    /// Shows the clients of `keys`, and no others.
    pub fn name(&self, keys: &Keys) {
        let now = Shown {
            clients: keys.clients.keys().cloned().collect(),
            keys: keys.by_id.values().map(|key| (key.client.name.clone(), key.id.clone())).collect(),
        };
        let mut shown = self.shown.lock();
        for gone in shown.clients.difference(&now.clients) {
            let _ = self.events.remove_label_values(&[gone]);
            for reason in REASONS {
                let _ = self.refused.remove_label_values(&[gone, reason]);
            }
        }
        for (client, key) in shown.keys.difference(&now.keys) {
            let _ = self.last_used.remove_label_values(&[client, key]);
            let _ = self.expiry.remove_label_values(&[client, key]);
        }
        for name in &now.clients {
            self.events.with_label_values(&[name]);
            for reason in REASONS {
                self.refused.with_label_values(&[name.as_str(), reason]);
            }
        }
        *shown = now;
        self.show_last_used(keys);
        self.show_expiry(keys);
    }

    /// Shows until when each key is valid, if it has an end.
    fn show_expiry(&self, keys: &Keys) {
        for key in keys.by_id.values() {
            let labels = [key.client.name.as_str(), key.id.as_str()];
            match key.until {
                Some(until) => {
                    let at = i64::try_from(until.as_secs()).unwrap_or(i64::MAX);
                    self.expiry.with_label_values(&labels).set(at);
                }
                None => {
                    let _ = self.expiry.remove_label_values(&labels);
                }
            }
        }
    }

    /// Shows when each key was used last.
    pub fn show_last_used(&self, keys: &Keys) {
        for key in keys.by_id.values() {
            let at = i64::try_from(key.last_used.load(Ordering::Relaxed)).unwrap_or(i64::MAX);
            self.last_used.with_label_values(&[key.client.name.as_str(), key.id.as_str()]).set(at);
        }
    }

    /// Counts accepted events of a client.
    pub fn accepted(&self, client: &str, events: usize) {
        self.events.with_label_values(&[client]).inc_by(events as u64);
    }

    /// Counts a refused request of a client.
    pub fn refuse(&self, client: &str, reason: &str) {
        self.refused.with_label_values(&[client, reason]).inc();
    }
}
