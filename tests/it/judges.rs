//! How `scripts/soak.sh` and `scripts/capacity.sh` judge what they measured, with measurements that are made up.

use std::fs;
use std::process::Command;

use crate::support::process::{Finished, Program};
use crate::support::wait::secs;

/// Samples of two hours: memory in KiB, descriptors and threads of each program at a second.
fn judged(of: impl Fn(u64, &str) -> (u64, u64, u64)) -> Finished {
    let dir = tempfile::tempdir().expect("directory");
    let path = dir.path().join("samples");
    let line = |second: u64, program: &str| {
        let (memory, descriptors, threads) = of(second, program);
        format!("{second} {program} {memory} {descriptors} {threads}\n")
    };
    let samples = (0..7200).step_by(60);
    let text: String =
        samples.flat_map(|second| ["producer", "consumer"].map(|program| line(second, program))).collect();
    fs::write(&path, text).expect("written");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/soak.sh");
    Program::new("soak.sh", script).args(&["--judge", path.to_str().expect("UTF-8")]).run(secs(60))
}

#[test]
fn a_soak_run_fails_for_what_grows_and_not_for_what_only_varies() {
    // It fills in the first fifth, then varies, and has an outlier.
    let steady = |second: u64| {
        let outlier = if second == 3600 { 90_000 } else { 0 };
        (20_000.min(10_000 + second * 8) + second * 7919 % 800 + outlier, 40 + second / 60 % 3, 12)
    };
    let flat = judged(|second, _| steady(second));
    assert_eq!(flat.status.code(), Some(0), "{flat:?}");
    assert_eq!(flat.stdout.matches("| flat |").count(), 6, "{flat:?}");
    for (grown, series) in [((1, 0, 0), "memory, KiB"), ((0, 1, 0), "descriptors"), ((0, 0, 1), "threads")] {
        let leaks = judged(|second, program| {
            let ((memory, descriptors, threads), minute) = (steady(second), second / 60);
            let leak = if program == "consumer" { grown } else { (0, 0, 0) };
            (
                memory + leak.0 * minute * 25,
                descriptors + leak.1 * minute / 20,
                threads + leak.2 * minute / 20,
            )
        });
        assert_eq!(leaks.status.code(), Some(1), "{series}: {leaks:?}");
        let rows: Vec<_> = leaks.stdout.lines().filter(|line| line.contains("| grows |")).collect();
        assert!(rows.len() == 1 && rows[0].starts_with(&format!("| consumer | {series} |")), "{leaks:?}");
    }
}

/// Points that are made of known costs give these costs back, and predict any other point exactly.
#[test]
fn the_capacity_model_finds_the_costs_that_points_were_made_of() {
    let check = r#"
import capacity_model as model
def seconds(batch, size, scale):
    return scale * (9.0 / batch + 0.5 + 0.001 * size)
keys = model.FITTED + model.HELD_OUT
points = {key: {name: seconds(*key, number + 1) for number, name in enumerate(model.PROGRAMS)} for key in keys}
costs = model.fit(points)
for number, name in enumerate(model.PROGRAMS):
    found = costs[name]
    for value, real in ((found.per_request, 9.0), (found.per_event, 0.5), (found.per_byte, 0.001)):
        assert abs(value - real * (number + 1)) < 1e-9, (name, value, real)
rows, worst = model.check_table(points, costs)
assert worst < 1e-9, rows
points[model.HELD_OUT[0]]["producer"] *= 20
assert model.check_table(points, costs)[1] > 0.4
assert len(model.sizing_table(costs, {1: 2.5, 100: 4.0})) == 2 + len(model.TARGETS) * len(model.PATTERNS)
"#;
    let mut python = Command::new("python3");
    python.args(["-B", "-c", check]).env("PYTHONPATH", concat!(env!("CARGO_MANIFEST_DIR"), "/benches/bench"));
    let output = python.output().expect("python3 runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
