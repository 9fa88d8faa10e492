//! Builds the pages for operators, and the answers to requests that are not accepted now.

use std::time::{Duration, Instant};

use crate::metrics::CONTENT_TYPE;
use crate::producer::answer::{Answer, JSON};
use crate::producer::health::{Health, NotReady};
use crate::producer::metrics::ProducerMetrics;
use crate::producer::queue::Queue;
use crate::producer::routes::Route;
use crate::producer::status::{ErrorTag, Status};
use crate::readiness;

/// How long clients should wait before a retry while Kafka does not acknowledge.
pub const RETRY_WHEN_DOWN: Duration = Duration::from_secs(2);

const STOPPING: &str = "this producer is stopping; use another one";

/// The page for a `GET`.
pub fn show<J>(
    route: Route,
    server: &str,
    queue: &Queue<J>,
    health: &Health,
    metrics: &ProducerMetrics,
) -> Answer {
    let plain =
        |status, text: &'static str| Answer::new(status, "text/plain; charset=utf-8", text.as_bytes());
    let now = Instant::now();
    match route {
        Route::Livez if queue.is_dead() => plain(Status::ServiceUnavailable, "publisher ended\n"),
        Route::Livez => plain(Status::Ok, "ok\n"),
        Route::Readyz => match health.check(now) {
            Ok(()) => plain(Status::Ok, "ok\n"),
            Err(reason) => unready(&reason),
        },
        Route::Metrics => {
            metrics.queue.show(queue.usage());
            metrics.kafka.connected.set(health.is_connected(now).into());
            Answer::new(Status::Ok, CONTENT_TYPE, metrics.common.render().into_bytes())
        }
        _ => {
            let version = env!("CARGO_PKG_VERSION");
            let body =
                format!(r#"{{"name":"event-pipeline","version":"{version}","http_server":"{server}"}}"#);
            Answer::new(Status::Ok, JSON, (body + "\n").into_bytes())
        }
    }
}

/// The page `/readyz` while no events are accepted.
fn unready(reason: &NotReady) -> Answer {
    let problem = match reason {
        NotReady::Draining => ("producer", STOPPING),
        NotReady::KafkaUnavailable(text) => ("kafka", text.as_str()),
    };
    let body = readiness::not_ready([problem]).into_bytes();
    Answer::new(Status::ServiceUnavailable, JSON, body).retry_after(RETRY_WHEN_DOWN)
}

/// The answer to a request while no events are accepted.
pub fn not_ready(reason: &NotReady) -> Answer {
    let answer = match reason {
        NotReady::Draining => Answer::error(ErrorTag::Draining, STOPPING),
        NotReady::KafkaUnavailable(text) => {
            Answer::error(ErrorTag::KafkaUnavailable, &format!("Kafka does not acknowledge: {text}"))
        }
    };
    answer.retry_after(RETRY_WHEN_DOWN)
}

/// The answer when one of our limits is reached; nothing of the request was accepted.
pub fn overloaded(what: &str, retry_after: Duration) -> Answer {
    Answer::error(ErrorTag::Overloaded, &format!("{what}; nothing was accepted")).retry_after(retry_after)
}
