//! Asks one program for its metrics and its health, once a second, in a thread of its own.
//!
//! A program that does not answer delays no other one, because each has its thread and each request its limits.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use ureq::{Agent, Error};

use crate::live::pace::{ASK, Pace};
use crate::live::reading::Reading;
use crate::shutdown::Shutdown;
use crate::thread::spawn;

/// Longest time to connect, and for each part of a request and its answer.
const PART_LIMIT: Duration = Duration::from_millis(800);
/// Idle time after which a connection is not reused; below the idle timeout of every HTTP server that we ask.
const MAX_IDLE: Duration = Duration::from_secs(5);
/// Largest page that is read.
const MAX_PAGE_BYTES: u64 = 1 << 20;
/// Most problems of a program that are shown, and the longest text of one.
const MAX_PROBLEMS: usize = 8;
const MAX_TEXT_BYTES: usize = 400;

/// What one round found.
#[derive(Debug)]
pub struct Answer {
    /// When the metrics were complete.
    pub at: Instant,
    /// The metrics, or why there are none.
    pub reading: Result<Reading, String>,
    /// Why the program is not ready; empty if it is.
    pub problems: Vec<Problem>,
}

/// A problem as `/readyz` reports it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// What does not work.
    pub what: String,
    /// Why.
    pub message: String,
}

/// The latest answer of one program.
pub type Slot = Arc<Mutex<Option<Arc<Answer>>>>;

/// Starts asking the program at `address` (host:port) until the shutdown. `key` opens the page of metrics.
///
/// # Errors
/// The thread cannot be started.
pub fn start(
    name: String,
    address: &str,
    key: Option<&str>,
    pace: Pace,
    shutdown: Shutdown,
) -> io::Result<(Slot, JoinHandle<()>)> {
    let slot = Slot::default();
    let (asker, answers) = (Asker::new(address, key), slot.clone());
    let thread = spawn(name, move || {
        pace.each(ASK, &shutdown, || *answers.lock() = Some(Arc::new(asker.ask())));
    })?;
    Ok((slot, thread))
}

struct Asker {
    agent: Agent,
    base: String,
    authorization: Option<String>,
}

impl Asker {
    fn new(address: &str, key: Option<&str>) -> Self {
        // No limit on the whole call: with one, ureq resolves the host in a thread of its own each time.
        let config = Agent::config_builder()
            .proxy(None)
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent(concat!("event-pipeline-live/", env!("CARGO_PKG_VERSION")))
            .timeout_connect(Some(PART_LIMIT))
            .timeout_send_request(Some(PART_LIMIT))
            .timeout_recv_response(Some(PART_LIMIT))
            .timeout_recv_body(Some(PART_LIMIT))
            .max_idle_age(MAX_IDLE)
            .max_idle_connections(1)
            .max_idle_connections_per_host(1)
            .build();
        Self {
            agent: Agent::new_with_config(config),
            base: format!("http://{address}"),
            authorization: key.map(|key| format!("Bearer {key}")),
        }
    }

    fn ask(&self) -> Answer {
        let reading = match self.get("/metrics") {
            Ok((200, text)) => Reading::of(&text),
            Ok((401, _)) => {
                Err("/metrics needs a key of kind `secret`; set LIVE_KEY, or ask ADMIN_ADDR".into())
            }
            Ok((status, _)) => Err(format!("/metrics was answered {status}")),
            Err(reason) => Err(reason),
        };
        let at = Instant::now();
        let problems = if reading.is_ok() { self.problems() } else { Vec::new() };
        Answer { at, reading, problems }
    }

    fn problems(&self) -> Vec<Problem> {
        let unclear = |message: String| vec![Problem { what: "/readyz".into(), message }];
        match self.get("/readyz") {
            Ok((200, _)) => Vec::new(),
            Ok((503, body)) => problems_in(&body)
                .filter(|problems| !problems.is_empty())
                .unwrap_or_else(|| unclear("answered 503".into())),
            Ok((status, _)) => unclear(format!("answered {status}")),
            Err(reason) => unclear(reason),
        }
    }

    fn get(&self, path: &str) -> Result<(u16, String), String> {
        let mut request = self.agent.get(format!("{}{path}", self.base));
        if let Some(authorization) = &self.authorization {
            request = request.header("Authorization", authorization);
        }
        let mut response = request.call().map_err(|error| cause(&error))?;
        let status = response.status().as_u16();
        let body = response.body_mut().with_config().limit(MAX_PAGE_BYTES).lossy_utf8(true);
        Ok((status, body.read_to_string().map_err(|error| cause(&error))?))
    }
}

/// The problems in the body of `/readyz`.
fn problems_in(body: &str) -> Option<Vec<Problem>> {
    #[derive(Deserialize)]
    struct NotReady {
        problems: Vec<Problem>,
    }
    let mut problems = serde_json::from_str::<NotReady>(body).ok()?.problems;
    problems.truncate(MAX_PROBLEMS);
    for problem in &mut problems {
        for text in [&mut problem.what, &mut problem.message] {
            text.truncate(text.floor_char_boundary(MAX_TEXT_BYTES));
        }
    }
    Some(problems)
}

fn cause(error: &Error) -> String {
    match error {
        Error::Io(error) => error.to_string(),
        Error::Timeout(_) => format!("no answer within {} ms", PART_LIMIT.as_millis()),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problems_are_those_of_readyz_and_bounded() {
        let body = crate::readiness::not_ready([("kafka", "timed out"), ("log", "disk full")]);
        let problems = problems_in(&body).expect("problems");
        let pairs: Vec<_> = problems.iter().map(|problem| (&*problem.what, &*problem.message)).collect();
        assert_eq!(pairs, [("kafka", "timed out"), ("log", "disk full")]);
        let long = "é".repeat(1000);
        let many: Vec<(&str, &str)> = (0..100).map(|_| ("x", &*long)).collect();
        let problems = problems_in(&crate::readiness::not_ready(many)).expect("problems");
        assert!(problems.len() == MAX_PROBLEMS && problems[0].message.len() == MAX_TEXT_BYTES);
        assert_eq!(problems_in("publisher ended\n"), None);
    }
}
