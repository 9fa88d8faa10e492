//! Hands closed logs to another place, and removes a log only once it is proven to be there.
//!
//! A log that was handed over halfway is handed over again: the place must make the same of it, however often it gets it.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::consumer::failure::Failure;
use crate::consumer::log::forms;
use crate::consumer::log::paths::Paths;
use crate::consumer::log::recovery::read_checkpoint;
use crate::consumer::log::storage::{Disk, Storage, beside};

/// Why a place does not have a log.
#[derive(Debug, PartialEq, Eq)]
#[cfg_attr(not(feature = "lake"), allow(dead_code, reason = "all places are features"))]
pub enum ForwardError {
    /// This log cannot be taken; others may.
    Log(String),
    /// No log can be taken at present.
    Place(String),
    /// The consumer stops.
    Stopped,
}

impl fmt::Display for ForwardError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Log(reason) | Self::Place(reason) => f.write_str(reason),
            Self::Stopped => f.write_str("the consumer stops"),
        }
    }
}

impl std::error::Error for ForwardError {}

/// A place to which closed logs go. A log is named by its path without `.gz`; either form of it may exist.
pub trait Forward: Send {
    /// Prepares the place, and removes what an interrupted attempt has left there.
    ///
    /// # Errors
    /// The place cannot be used.
    fn prepare(&mut self) -> Result<(), ForwardError>;

    /// True if the log of this name is there as a whole, durably.
    ///
    /// # Errors
    /// The place cannot be used, or has another log of this name.
    fn has(&mut self, log: &Path) -> Result<bool, ForwardError>;

    /// Brings `log` there; all of its lines are there, durably, afterwards. Ends early once `stop` is true.
    ///
    /// # Errors
    /// See [`ForwardError`]. Nothing is lost or duplicated, and another call continues.
    fn forward(&mut self, log: &Path, stop: &dyn Fn() -> bool) -> Result<(), ForwardError>;

    /// Proves that what the place has under this name are the lines of `log`, which is about to be removed.
    ///
    /// # Errors
    /// They are not, or it cannot be found out.
    fn confirm(&mut self, log: &Path) -> Result<(), ForwardError>;

    /// Shows how many logs are not there yet.
    fn set_behind(&self, logs: usize);

    /// Reports what a pass over all logs could not do, if anything.
    fn report(&self, problem: Option<&str>);
}

/// Opens a place, at each attempt to open the log.
pub type NewPlace = Box<dyn Fn() -> Box<dyn Forward>>;

/// What becomes of closed logs.
pub struct Forwarding {
    /// Where they go.
    pub place: Box<dyn Forward>,
    /// They stay here as well.
    pub keeps_logs: bool,
    /// How much older than the newest log one has to be before it is removed, in milliseconds.
    pub min_age_millis: i64,
}

/// What a pass over the closed logs found.
pub struct Passed {
    /// The logs that are at the place and stay here, in their order.
    pub kept: Vec<PathBuf>,
    /// Something is left to be done that another pass may succeed in.
    pub has_failed: bool,
}

/// A pass over the closed logs.
struct Pass<'a> {
    forwarding: &'a mut Forwarding,
    paths: &'a Paths,
    stop: &'a dyn Fn() -> bool,
    /// Number of logs that are not there.
    waiting: usize,
    kept: Vec<PathBuf>,
    problem: Option<ForwardError>,
    /// No log can be handed over any more.
    is_over: bool,
}

impl Forwarding {
    /// Hands over all logs in `closed` that are not there yet, oldest first, and removes those that are not kept. Of those
    /// that are, at most `keep` stay; 0 keeps all.
    pub fn pass(
        &mut self,
        paths: &Paths,
        closed: Vec<PathBuf>,
        keep: usize,
        stop: &dyn Fn() -> bool,
    ) -> Passed {
        let waiting = closed.len();
        let mut pass =
            Pass { forwarding: self, paths, stop, waiting, kept: Vec::new(), problem: None, is_over: false };
        pass.run(closed);
        pass.remove_excess(keep);
        let Pass { waiting, kept, problem, .. } = pass;
        self.place.set_behind(waiting);
        match &problem {
            Some(ForwardError::Stopped) => {}
            Some(problem) => self.place.report(Some(&problem.to_string())),
            None => self.place.report(None),
        }
        Passed { kept, has_failed: problem.is_some() }
    }

    /// Removes a log, if it is proven to be there.
    ///
    /// # Errors
    /// It is not, or it cannot be removed.
    fn remove_one(&mut self, log: &Path) -> Result<(), ForwardError> {
        forms::check(log).map_err(ForwardError::Log)?;
        self.place.confirm(log)?;
        remove_log(log)
            .map_err(|error| ForwardError::Log(format!("cannot remove {}: {error}", log.display())))
    }

    /// False for a log that a start after a crash may still look for: the checkpoint says that it is being closed, or
    /// the ids of its events may have to be read again.
    fn may_go(&self, paths: &Paths, log: &Path) -> io::Result<bool> {
        let checkpoint = read_checkpoint(&Disk, paths);
        let checkpoint = checkpoint.map_err(|error| io::Error::other(Failure::from(error).to_string()))?;
        let closing = checkpoint.and_then(|checkpoint| checkpoint.files.rotate_to);
        if closing.is_some_and(|name| log.file_name().is_some_and(|file| *file == *name)) {
            return Ok(false);
        }
        if self.min_age_millis > 0 {
            let modified = |path: &Path| fs::metadata(path)?.modified();
            let this = modified(log).or_else(|_| modified(&beside(log, ".gz")))?;
            // The newest of all logs is the open one.
            let newest = modified(&paths.log).unwrap_or(this);
            let min_age = Duration::from_millis(self.min_age_millis.unsigned_abs());
            if newest.duration_since(this).unwrap_or_default() <= min_age {
                return Ok(false);
            }
        }
        // So that no power cut brings back an older checkpoint, which would miss the log.
        Disk.sync_dir(paths.dir())?;
        Ok(true)
    }
}

impl Pass<'_> {
    fn run(&mut self, closed: Vec<PathBuf>) {
        // So that no power cut takes back the names of logs that are handed over now: they would be closed again, under
        // other names.
        let durable = Disk.sync_dir(self.paths.dir()).map_err(|error| {
            ForwardError::Place(format!("cannot fsync {}: {error}", self.paths.dir().display()))
        });
        if let Err(error) = durable.and_then(|()| self.forwarding.place.prepare()) {
            return self.failed(error);
        }
        self.waiting = 0;
        let mut logs = Vec::new();
        for log in closed {
            let is_there = self.forwarding.place.has(&log);
            self.waiting += usize::from(!matches!(is_there, Ok(true)));
            match is_there {
                Ok(is_there) => logs.push((log, is_there)),
                Err(error) => self.failed(error),
            }
        }
        for (log, is_there) in logs {
            if is_there || self.hand_over(&log) {
                self.keep_or_remove(log);
            }
        }
    }

    /// Returns true if the log is there.
    fn hand_over(&mut self, log: &Path) -> bool {
        if self.is_over {
            return false;
        }
        self.forwarding.place.set_behind(self.waiting);
        let checked = forms::check(log).map_err(ForwardError::Log);
        match checked.and_then(|()| self.forwarding.place.forward(log, self.stop)) {
            Ok(()) => {
                self.waiting -= 1;
                true
            }
            Err(error) => {
                self.failed(error);
                false
            }
        }
    }

    fn keep_or_remove(&mut self, log: PathBuf) {
        let may_go = !self.forwarding.keeps_logs && !self.is_over;
        let removed = match may_go.then(|| self.forwarding.may_go(self.paths, &log)) {
            None | Some(Ok(false)) => return self.kept.push(log),
            Some(Ok(true)) => self.forwarding.remove_one(&log),
            Some(Err(error)) => Err(ForwardError::Log(format!("cannot inspect {}: {error}", log.display()))),
        };
        if let Err(error) = removed {
            self.failed(error);
            self.kept.push(log);
        }
    }

    /// Removes the oldest of the logs that stay, except `keep`; 0 keeps all. One that cannot go holds up none of them.
    fn remove_excess(&mut self, keep: usize) {
        let excess = if keep == 0 { 0 } else { self.kept.len().saturating_sub(keep) };
        for log in self.kept.drain(..excess).collect::<Vec<_>>() {
            if let Err(error) = self.forwarding.remove_one(&log) {
                self.failed(error);
            }
        }
    }

    /// Of several errors, what concerns all logs is reported, else the first one.
    fn failed(&mut self, error: ForwardError) {
        let is_over = !matches!(error, ForwardError::Log(_));
        if is_over || self.problem.is_none() {
            self.problem = Some(error);
        }
        self.is_over |= is_over;
    }
}

/// Removes both forms of a log.
///
/// # Errors
/// A file cannot be removed.
pub fn remove_log(log: &Path) -> io::Result<()> {
    for path in [log.to_owned(), beside(log, ".gz")] {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "tests/forward.rs"]
mod tests;
