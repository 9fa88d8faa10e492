//! Serves the pages for operators, and builds the answers for requests that are not accepted.

use std::time::{Duration, Instant};

use crate::metrics::CONTENT_TYPE;
use crate::producer::answer::Answer;
use crate::producer::handler::Handler;
use crate::producer::health::NotReady;
use crate::producer::routes::Route;
use crate::readiness::not_ready;

/// How long clients should wait before a retry while Kafka does not acknowledge.
pub const RETRY_WHEN_DOWN: Duration = Duration::from_secs(2);

const STOPPING: &str = "this producer is stopping; use another one";

impl Handler {
    /// The page for a `GET`.
    pub fn show(&self, route: Route) -> Answer {
        let plain =
            |status, text: &'static str| Answer::text(status, "text/plain; charset=utf-8", text.as_bytes());
        match route {
            Route::Livez if self.queue.is_dead() => plain(503, "publisher ended\n"),
            Route::Livez => plain(200, "ok\n"),
            Route::Readyz => match self.health.check(Instant::now()) {
                Ok(()) => plain(200, "ok\n"),
                Err(reason) => unready(&reason),
            },
            Route::Metrics => Answer::text(200, CONTENT_TYPE, self.render_metrics().into_bytes()),
            _ => {
                let body =
                    concat!(r#"{"name":"event-pipeline","version":""#, env!("CARGO_PKG_VERSION"), "\"}\n");
                Answer::text(200, "application/json", body.as_bytes())
            }
        }
    }

    fn render_metrics(&self) -> String {
        let (metrics, usage) = (&self.metrics, self.queue.usage());
        metrics.queue.events.set(usage.events() as i64);
        metrics.queue.bytes.set(usage.bytes() as i64);
        metrics.queue.capacity.set(usage.max_events() as i64);
        metrics.http.parked.set(self.connections.parked() as i64);
        metrics.kafka.connected.set(self.health.is_connected(Instant::now()).into());
        metrics.common.render()
    }

    /// The answer to a request while no events are accepted.
    pub fn not_ready(&self, reason: &NotReady) -> Answer {
        match reason {
            NotReady::Draining => Answer::unavailable("draining", STOPPING, RETRY_WHEN_DOWN),
            NotReady::KafkaUnavailable(text) => {
                let message = format!("Kafka does not acknowledge: {text}");
                Answer::unavailable("kafka_unavailable", &message, RETRY_WHEN_DOWN)
            }
        }
    }

    /// How long a refused client should wait: until the pending events have left, or until a quota lets Kafka
    /// accept events again, whichever is later.
    pub fn retry_after(&self) -> Duration {
        self.queue.usage().retry_after().max(self.health.throttled_for(Instant::now()))
    }

    /// The answer when one of our limits is reached; nothing of the request was accepted.
    pub fn overloaded(&self, what: &str) -> Answer {
        let message = format!("{what}; nothing was accepted");
        Answer::unavailable("overloaded", &message, self.retry_after())
    }
}

/// The page `/readyz` while no events are accepted.
fn unready(reason: &NotReady) -> Answer {
    let problem = match reason {
        NotReady::Draining => ("producer", STOPPING),
        NotReady::KafkaUnavailable(text) => ("kafka", text.as_str()),
    };
    Answer {
        retry_after: Some(RETRY_WHEN_DOWN),
        ..Answer::text(503, "application/json", not_ready([problem]).into_bytes())
    }
}
