//! Builds the body of `/readyz` that says why a program is not ready, in the same format for both programs.

use serde::Serialize;

#[derive(Serialize)]
struct Problem<'a> {
    what: &'a str,
    message: &'a str,
}

#[derive(Serialize)]
struct NotReady<'a> {
    error: &'static str,
    message: String,
    retryable: bool,
    problems: Vec<Problem<'a>>,
}

/// Builds the JSON body for `problems`, which are pairs of what does not work and why.
pub fn not_ready<'a>(problems: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let problems: Vec<Problem<'_>> =
        problems.into_iter().map(|(what, message)| Problem { what, message }).collect();
    let texts: Vec<String> =
        problems.iter().map(|problem| format!("{}: {}", problem.what, problem.message)).collect();
    let body = NotReady { error: "not_ready", message: texts.join("; "), retryable: true, problems };
    serde_json::to_string(&body).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_problem_is_listed_and_the_message_holds_them_all() {
        let body: serde_json::Value =
            serde_json::from_str(&not_ready([("kafka", "timed out"), ("log", "disk full")])).expect("JSON");
        let expected = serde_json::json!({
            "error": "not_ready",
            "message": "kafka: timed out; log: disk full",
            "retryable": true,
            "problems": [
                {"what": "kafka", "message": "timed out"},
                {"what": "log", "message": "disk full"},
            ],
        });
        assert_eq!(body, expected);
    }
}
