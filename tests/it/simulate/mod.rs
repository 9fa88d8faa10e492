//! The simulator against a double that can stall, refuse, cut, lose and repeat: does it say what happened?

mod audit;
mod double;
#[cfg(feature = "lake")]
mod lake;
mod load;
mod retry;
mod several;

use serde_json::Value;

use crate::support::process::{Finished, Program};
use crate::support::wait::secs;

/// Runs the simulator in a directory of its own.
#[track_caller]
fn simulate(arguments: &[&str]) -> Finished {
    Program::simulate().args(arguments).run(secs(60))
}

/// Runs it with JSON output and returns exit code and report.
#[track_caller]
fn simulate_json(arguments: &[&str]) -> (i32, Value) {
    let finished = simulate(&[arguments, &["--output", "json"]].concat());
    let report = serde_json::from_str(&finished.stdout);
    let report = report.unwrap_or_else(|error| panic!("{error}: {finished:?}"));
    (finished.status.code().expect("an exit code"), report)
}

/// Checks the members of a report that `expected` names.
#[track_caller]
fn expect(part: &Value, expected: Value) {
    for (name, value) in expected.as_object().expect("an object") {
        assert_eq!(&part[name], value, "{name} in {part:#}");
    }
}
