//! Load simulator: sends events to the producer from many threads, measures the responses, and checks that
//! every acknowledged event is in the log.
//!
//! It depends only on the HTTP contract and the format of the log lines, so that it tests both programs from
//! the outside. `live` also uses `ureq`.

pub mod answer;
pub mod audit;
pub mod client;
mod findings;
mod hint;
pub mod journal;
#[cfg(feature = "lake")]
mod lake_files;
pub mod ledger;
pub mod load;
pub mod log_files;
pub mod log_names;
pub mod long_line;
pub mod piece;
pub mod place;
pub mod progress;
pub mod report;
pub mod route;
pub mod schedule;
pub mod shared;
pub mod tally;
pub mod transport;
pub mod verify;
pub mod worker;
pub mod workload;

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::config::{LoadConfig, Output, SimulateConfig};
use crate::linux;
use crate::shutdown::Shutdown;
use crate::simulate::client::Target;
use crate::simulate::findings::Findings;
use crate::simulate::journal::Journal;
use crate::simulate::ledger::Ledger;
use crate::simulate::load::Outcome;
use crate::simulate::place::Places;
use crate::simulate::progress::Progress;
use crate::simulate::report::Report;
use crate::simulate::schedule::Phase;
use crate::simulate::shared::Plan;
use crate::simulate::workload::Workload;

/// File descriptors that a run needs in addition to one per thread and URL.
const SPARE_FILES: u64 = 64;

/// Why a run could not start or did not succeed.
#[derive(Debug)]
pub enum SimulateError {
    /// A setting that turned out to be unusable on this machine or network; nothing was sent.
    Setting(String),
    /// The run failed, or a threshold or the audit did.
    Failed(String),
}

/// Runs the load or the audit that `config` asks for and writes the report to `out`.
///
/// # Errors
/// The reason why the exit code must not be 0, as text for the user.
pub fn run(config: &SimulateConfig, shutdown: &Shutdown, out: &mut dyn Write) -> Result<(), SimulateError> {
    let mut out = Teller { out, output: config.report.output, json: Value::Null, failures: Vec::new() };
    match &config.audit.audit {
        Some(record) => audit_record(record, &config.audit.verify, &mut out)?,
        None => run_load(config, shutdown, &mut out)?,
    }
    out.finish()
}

/// Audits the record of an earlier run against the current logs.
fn audit_record(record: &Path, logs: &[PathBuf], out: &mut Teller<'_>) -> Result<(), SimulateError> {
    let start = Instant::now();
    let places = Places::whole(logs).map_err(SimulateError::Setting)?;
    let ledger = journal::read_record(record).map_err(SimulateError::Setting)?;
    let look = verify::look(&ledger, &places)
        .map_err(|error| SimulateError::Failed(format!("--verify {places}: {error}")))?;
    out.findings(&ledger, &places, &look.end(), start.elapsed())
}

fn run_load(config: &SimulateConfig, shutdown: &Shutdown, out: &mut Teller<'_>) -> Result<(), SimulateError> {
    let plan = plan(&config.load).map_err(SimulateError::Setting)?;
    let places = Places::from_now_on(&config.audit.verify).map_err(SimulateError::Setting)?;
    let journal = journal(config, &plan.workload.run).map_err(SimulateError::Setting)?;
    let start = Instant::now();
    out.text(&headline(&config.load))?;
    out.text(&hint::where_to_watch(config.report.live_addr).unwrap_or_default())?;
    let mut progress = Progress::new(&plan.phases);
    let outcome = load::run(&plan, shutdown, journal.as_ref(), |sight| progress.show(sight));
    progress.finish();
    let outcome = outcome.map_err(SimulateError::Failed)?;
    let report = Report::new(config, &outcome);
    out.text(&report.text())?;
    out.json = report.json();
    out.json["run"] = plan.workload.run.as_str().into();
    out.failures.extend(report.failures());
    out.failures.extend(write_histogram(config, &outcome).err());
    let was_cut = shutdown.requested();
    if was_cut {
        out.failures.push("interrupted by a signal".into());
    }
    let ledger = match journal.map(Journal::finish) {
        Some(Err(error)) => return Err(SimulateError::Failed(format!("--record: {error}"))),
        kept => kept.and_then(Result::ok).flatten(),
    };
    let Some(ledger) = ledger.filter(|_| !config.audit.verify.is_empty()) else { return Ok(()) };
    let findings = verify::wait(&ledger, &places, config.audit.verify_timeout, shutdown)
        .map_err(|error| SimulateError::Failed(format!("--verify {places}: {error}")))?;
    if shutdown.requested() && !was_cut {
        out.failures.push("interrupted by a signal before the log had caught up".into());
    }
    out.findings(&ledger, &places, &findings, start.elapsed())
}

fn plan(config: &LoadConfig) -> Result<Plan, String> {
    let files = linux::raise_open_files_limit().map_err(|error| format!("limit of open files: {error}"))?;
    let needed = u64::from(config.threads) * config.urls.len() as u64 + SPARE_FILES;
    if files < needed {
        return Err(format!(
            "--threads {} needs {needed} open files, but the limit is {files}; use fewer, or raise `ulimit -n`",
            config.threads
        ));
    }
    let mut random = fastrand::Rng::new();
    let workload = Workload::new(config, workload::new_run_id(&mut random), random.u64(..));
    let (kind, keys) = (workload.content_type(), config.keys()?);
    let target = |url: &String| Target::resolve(url, kind, &config.headers, &keys, config.timeout);
    let targets = config.urls.iter().map(target).collect::<Result<_, String>>()?;
    let warmup =
        config.warmup.map(|warmup| Phase { requests: None, duration: Some(warmup), rate: config.rate });
    let measured = Phase { requests: config.request_limit(), duration: config.duration, rate: config.rate };
    let phases = warmup.into_iter().chain([measured]).collect();
    Ok(Plan { threads: config.threads, phases, retries: config.retry, workload, targets })
}

fn journal(config: &SimulateConfig, run: &str) -> Result<Option<Journal>, String> {
    let (record, keep) = (config.audit.record.as_deref(), !config.audit.verify.is_empty());
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

/// Writes the report: text immediately, JSON as a single object at the end.
struct Teller<'a> {
    out: &'a mut dyn Write,
    output: Output,
    json: Value,
    failures: Vec<String>,
}

impl Teller<'_> {
    fn text(&mut self, text: &str) -> Result<(), SimulateError> {
        if self.output == Output::Text { self.write(text) } else { Ok(()) }
    }

    fn findings(
        &mut self,
        ledger: &Ledger,
        places: &Places,
        findings: &Findings,
        elapsed: Duration,
    ) -> Result<(), SimulateError> {
        self.failures.extend(findings.faults());
        self.json["audit"] = findings.json(&ledger.run, elapsed);
        self.text(&findings.text(&ledger.run, &places.to_string(), elapsed))
    }

    fn finish(mut self) -> Result<(), SimulateError> {
        if self.output == Output::Json {
            self.json["failures"] = self.failures.clone().into();
            let text = format!("{:#}\n", self.json);
            self.write(&text)?;
        }
        if self.failures.is_empty() { Ok(()) } else { Err(SimulateError::Failed(self.failures.join("; "))) }
    }

    /// Ignores a closed pipe: a reader that has gone away does not make the run fail.
    fn write(&mut self, text: &str) -> Result<(), SimulateError> {
        match self.out.write_all(text.as_bytes()).and_then(|()| self.out.flush()) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                Err(SimulateError::Failed(format!("stdout: {error}")))
            }
            _ => Ok(()),
        }
    }
}
