//! The pages of the consumer: `/metrics`, `/livez`, `/readyz` and `/version`.

use crate::consumer::state::State;
use crate::metrics::CONTENT_TYPE;
use crate::readiness::not_ready;
use crate::status_page::Page;

const OK: &str = r#"{"status":"ok"}"#;

/// The page at `path`, if there is one.
pub fn page(path: &str, state: &State) -> Option<Page> {
    let page = match path {
        "/metrics" => {
            Page { status: "200 OK", content_type: CONTENT_TYPE, body: state.metrics.registry.render() }
        }
        "/livez" | "/health" => Page::json("200 OK", OK),
        "/readyz" | "/ready" | "/healthz" => {
            let problems = state.problems();
            if problems.is_empty() {
                return Some(Page::json("200 OK", OK));
            }
            let listed = problems.iter().map(|(what, message)| (what.as_str(), message.as_str()));
            Page::json("503 Service Unavailable\r\nRetry-After: 1", not_ready(listed))
        }
        "/version" => Page::json(
            "200 OK",
            concat!(r#"{"name":"event-pipeline","version":""#, env!("CARGO_PKG_VERSION"), "\"}"),
        ),
        _ => return None,
    };
    Some(page)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_follows_the_problems_and_live_does_not() {
        let state = State::starting();
        let get = |path: &str| page(path, &state).expect("a page");
        assert!(get("/readyz").status.starts_with("503 "), "not ready before the start has done anything");
        state.solved("start");
        assert_eq!(get("/readyz").status, "200 OK");
        state.problem("log", "No space left on device");
        let unready = get("/readyz");
        assert!(unready.status.starts_with("503 ") && unready.body.contains("No space left"), "{unready:?}");
        for path in ["/livez", "/health"] {
            assert_eq!(get(path).status, "200 OK", "a supervisor must not restart us");
        }
        assert!(get("/metrics").body.contains("pipeline_consumer_records_total 0"));
        assert!(page("/nothing", &state).is_none());
    }
}
