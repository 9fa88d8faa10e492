//! The outside world: sends events to the producer from many threads, measures the answers, and checks that
//! what was acknowledged stands in the log.
//!
//! It knows the producer by its HTTP contract and the consumer by its log lines, and imports neither. The only
//! room that names `ureq`.

pub mod answer;
pub mod audit;
pub mod client;
pub mod journal;
pub mod ledger;
pub mod load;
pub mod log_files;
pub mod progress;
pub mod report;
pub mod schedule;
pub mod tally;
pub mod transport;
pub mod verify;
pub mod worker;
pub mod workload;

use std::fs;
use std::io::{self, Write};

use serde_json::{Map, Value};

use crate::config::{LoadConfig, Output, SimulateConfig};
use crate::linux;
use crate::shutdown::Shutdown;
use crate::simulate::client::Target;
use crate::simulate::journal::Journal;
use crate::simulate::load::{Outcome, Plan};
use crate::simulate::progress::Progress;
use crate::simulate::report::Report;
use crate::simulate::schedule::Phase;
use crate::simulate::workload::Workload;

/// Descriptors that a run needs besides one a thread.
const SPARE_FILES: u64 = 64;

/// Why a run did not start or did not end well.
#[derive(Debug)]
pub enum SimulateError {
    /// A setting that only the machine or the network could refuse; nothing was sent.
    Setting(String),
    /// The run failed, or something did not hold.
    Failed(String),
}

/// Does what `config` asks for and writes the report to `out`.
///
/// # Errors
/// Why the exit code shall not be 0, in words for the user.
pub fn run(config: &SimulateConfig, shutdown: &Shutdown, out: &mut dyn Write) -> Result<(), SimulateError> {
    let plan = plan(&config.load).map_err(SimulateError::Setting)?;
    let journal = journal(config, plan.workload.run()).map_err(SimulateError::Setting)?;
    let text = config.report.output == Output::Text;
    if text {
        tell(out, &headline(&config.load))?;
    }
    let mut progress = Progress::new(&plan.phases);
    let outcome = load::run(&plan, shutdown, journal.as_ref(), |sight| progress.show(sight));
    progress.finish();
    let outcome = outcome.map_err(SimulateError::Failed)?;
    let report = Report::new(config, &outcome);
    let mut failures = report.failures();
    if text {
        tell(out, &report.text())?;
    }
    failures.extend(write_histogram(config, &outcome).err());
    if shutdown.requested() {
        failures.push("interrupted by a signal".into());
    }
    if let Some(journal) = journal {
        journal.finish().map_err(|error| SimulateError::Failed(format!("--record: {error}")))?;
    }
    if !text {
        tell_json(out, report.json(), &failures)?;
    }
    if failures.is_empty() { Ok(()) } else { Err(SimulateError::Failed(failures.join("; "))) }
}

fn plan(config: &LoadConfig) -> Result<Plan, String> {
    let files = linux::raise_open_files_limit().map_err(|error| format!("limit of open files: {error}"))?;
    if files < u64::from(config.threads) + SPARE_FILES {
        return Err(format!(
            "--threads {} needs {} open files, the limit is {files}; use fewer, or raise `ulimit -n`",
            config.threads,
            u64::from(config.threads) + SPARE_FILES
        ));
    }
    let mut random = fastrand::Rng::new();
    let workload = Workload::new(config, workload::new_run_id(&mut random), random.u64(..));
    let target = Target::resolve(&config.url, workload.content_type(), &config.headers, config.timeout)?;
    let warmup =
        config.warmup.map(|warmup| Phase { requests: None, duration: Some(warmup), rate: config.rate });
    let measured = Phase { requests: config.request_limit(), duration: config.duration, rate: config.rate };
    let phases = warmup.into_iter().chain([measured]).collect();
    Ok(Plan { threads: config.threads, phases, retries: config.retry, workload, target })
}

fn journal(config: &SimulateConfig, run: &str) -> Result<Option<Journal>, String> {
    let (record, keep) = (config.audit.record.as_deref(), config.audit.verify.is_some());
    if record.is_none() && !keep {
        return Ok(None);
    }
    Journal::create(run, keep, record).map(Some).map_err(|error| {
        let path = record.map_or("".into(), |path| path.to_string_lossy());
        format!("--record {path}: {error}; name a file that does not exist yet")
    })
}

fn headline(config: &LoadConfig) -> String {
    let what = match (config.request_limit(), config.duration) {
        (Some(requests), None) => format!("{requests} requests"),
        (Some(requests), Some(duration)) => format!("{requests} requests for at most {duration:?}"),
        (None, duration) => format!("requests for {:?}", duration.unwrap_or_default()),
    };
    format!("🚀 Sending {what} with {} threads...\n", config.threads)
}

fn write_histogram(config: &SimulateConfig, outcome: &Outcome) -> Result<(), String> {
    let Some(path) = &config.report.histogram else { return Ok(()) };
    fs::write(path, report::distribution(&outcome.measured.latency))
        .map_err(|error| format!("--histogram {}: {error}", path.display()))
}

fn tell(out: &mut dyn Write, text: &str) -> Result<(), SimulateError> {
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .or_else(|error| if error.kind() == io::ErrorKind::BrokenPipe { Ok(()) } else { Err(error) })
        .map_err(|error| SimulateError::Failed(format!("stdout: {error}")))
}

fn tell_json(
    out: &mut dyn Write,
    mut report: Map<String, Value>,
    failures: &[String],
) -> Result<(), SimulateError> {
    report.insert("failures".into(), failures.into());
    tell(out, &format!("{:#}\n", Value::Object(report)))
}
