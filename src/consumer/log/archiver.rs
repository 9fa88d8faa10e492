//! Sends closed logs elsewhere, compresses them, and removes the oldest ones. Never touches the open log.
//!
//! Runs in a thread of its own, since each of these takes longer than a batch may wait.

use std::fs::{self, File};
use std::io;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, bounded};
use flate2::Compression;
use flate2::write::GzEncoder;

use crate::consumer::log::forward::{Forwarding, remove_log};
use crate::consumer::log::paths::Paths;
use crate::consumer::log::rotation::{self, Closed};
use crate::consumer::log::storage::{beside, parent};
use crate::retry::Backoff;
use crate::thread::{join_until, spawn};

/// First and longest wait after an attempt to send logs elsewhere that failed.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const MAX_WAIT: Duration = Duration::from_secs(60);

/// How long a stop waits for a log that is being sent elsewhere.
const STOP_LIMIT: Duration = Duration::from_secs(3);

/// What becomes of closed logs.
pub struct Archive {
    /// The open log and its files; closed logs are in the same directory.
    pub paths: Paths,
    /// Number of closed logs to keep; 0 keeps all.
    pub keep: usize,
    /// Compress closed logs with gzip.
    pub gzip: bool,
    /// Where closed logs go before anything else is done with them.
    pub forwarding: Option<Forwarding>,
}

/// The running thread. Dropping it waits until the thread has finished its work, except that logs which were not sent
/// elsewhere yet are left to the next start.
pub struct Archiver {
    /// Taken when this is dropped.
    running: Option<(Sender<()>, JoinHandle<()>)>,
    stop: Arc<AtomicBool>,
    /// How long dropping may take, if there is a limit.
    limit: Option<Duration>,
}

impl Archiver {
    /// Wakes the thread after a log was closed.
    pub fn log_closed(&self) {
        // If the channel is full, the thread will run anyway.
        self.running.iter().for_each(|(closed_logs, _)| _ = closed_logs.try_send(()));
    }
}

impl Drop for Archiver {
    fn drop(&mut self) {
        // If it panicked, that was logged, and the next start completes its work.
        if let Some((closed_logs, thread)) = self.running.take() {
            self.stop.store(true, Ordering::SeqCst);
            drop(closed_logs);
            match self.limit {
                Some(limit) => join_until([thread], Instant::now() + limit),
                None => _ = thread.join(),
            }
        }
    }
}

impl Archive {
    /// Starts a thread that calls [`Self::tidy`] now and after each closed log.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn start(self) -> io::Result<Archiver> {
        let (send, closed_logs) = bounded(1);
        let stop = Arc::new(AtomicBool::new(false));
        let is_stopped = stop.clone();
        // Another file system may hang, and must not hold up the stop.
        let limit = self.forwarding.is_some().then_some(STOP_LIMIT);
        let thread =
            spawn("archiver", move || self.run(&closed_logs, &|| is_stopped.load(Ordering::SeqCst)))?;
        Ok(Archiver { running: Some((send, thread)), stop, limit })
    }

    fn run(mut self, closed_logs: &Receiver<()>, stop: &dyn Fn() -> bool) {
        let mut backoff = Backoff::new(FIRST_WAIT, MAX_WAIT);
        loop {
            // A fault in a package that makes files must not end this thread without being noticed.
            let tidied = panic::catch_unwind(AssertUnwindSafe(|| self.tidy(stop)))
                .unwrap_or_else(|_| Err(io::Error::other("a panic; see the log above")));
            let is_behind = tidied.unwrap_or_else(|error| self.failed(&error));
            let woken = if is_behind {
                closed_logs.recv_timeout(backoff.next_wait(fastrand::f64()))
            } else {
                backoff.reset();
                closed_logs.recv().map_err(RecvTimeoutError::from)
            };
            if woken == Err(RecvTimeoutError::Disconnected) {
                return;
            }
        }
    }

    /// Says why closed logs could not be tidied. Returns true if that is tried again before the next rotation.
    fn failed(&self, error: &io::Error) -> bool {
        let what = format!("tidying the closed logs of {} failed: {error}", self.paths.log.display());
        match &self.forwarding {
            Some(forwarding) => forwarding.place.report(Some(&what)),
            None => log::warn!("{what}; will retry after the next rotation"),
        }
        self.forwarding.is_some()
    }

    /// Sends closed logs elsewhere if that is wanted. Of those that stay here, removes the oldest and compresses the
    /// others. After a crash, the next call completes the work. Returns true if logs have to be sent again.
    ///
    /// # Errors
    /// A file operation failed.
    pub fn tidy(&mut self, stop: &dyn Fn() -> bool) -> io::Result<bool> {
        let mut closed = self.closed()?;
        let mut is_behind = false;
        if let Some(forwarding) = &mut self.forwarding {
            let passed = forwarding.pass(&self.paths, closed, self.keep, stop);
            (closed, is_behind) = (passed.kept, passed.has_failed);
        } else if self.keep > 0 {
            let excess = closed.len().saturating_sub(self.keep);
            closed.drain(..excess).try_for_each(|path| remove_log(&path))?;
        }
        if self.gzip {
            for path in closed.iter().filter(|path| path.exists()) {
                pack(path)?;
            }
        }
        Ok(is_behind)
    }

    /// Lists the closed logs in the order in which they were closed, without the extension `.gz`.
    fn closed(&self) -> io::Result<Vec<PathBuf>> {
        let log = &self.paths.log;
        let name = log.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut found: Vec<(Closed, String)> = Vec::new();
        for entry in fs::read_dir(self.paths.dir())? {
            let entry = entry?;
            let candidate = entry.file_name().to_string_lossy().into_owned();
            let Some(order) = rotation::closed(&name, &candidate) else { continue };
            if entry.file_type()?.is_file() {
                found.push((order, candidate.strip_suffix(".gz").unwrap_or(&candidate).to_owned()));
            }
        }
        found.sort_unstable();
        found.dedup();
        Ok(found.into_iter().map(|(_, name)| log.with_file_name(name)).collect())
    }
}

/// Replaces `path` with its compressed form. A complete copy exists at every moment.
fn pack(path: &Path) -> io::Result<()> {
    let (packed, part) = (beside(path, ".gz"), beside(path, ".gz.part"));
    let mut encoder = GzEncoder::new(File::create(&part)?, Compression::fast());
    io::copy(&mut File::open(path)?, &mut encoder)?;
    encoder.finish()?.sync_all()?;
    fs::rename(&part, &packed)?;
    File::open(parent(path))?.sync_all()?;
    fs::remove_file(path)
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use flate2::read::GzDecoder;

    use super::*;

    #[test]
    fn the_newest_are_kept_and_packed_and_foreign_files_left_alone() {
        let dir = tempfile::tempdir().expect("directory");
        let path = |name: &str| dir.path().join(name);
        let closed = |number: u64| rotation::closed_name("events.log", number, -(number as i64) * 86_400_000);
        for number in 2..=4 {
            fs::write(path(&closed(number)), format!("number {number}\n")).expect("write");
        }
        fs::write(path("events-20990101T000000000Z-000.log"), "of an older version").expect("write");
        let directory = closed(5);
        fs::create_dir(path(&directory)).expect("create");
        for name in ["events.log", "events-0.log", "events.rejected"] {
            fs::write(path(name), "open\n").expect("write");
        }
        // Simulates a crash between the rename of the compressed file and the removal of the original.
        fs::write(path(&format!("{}.gz", closed(3))), "half").expect("write");
        let paths = Paths::of(&path("events.log"));
        let mut archive = Archive { paths, keep: 2, gzip: true, forwarding: None };
        for _ in 0..2 {
            assert!(!archive.tidy(&|| false).expect("tidy"));
        }
        let mut names: Vec<String> = fs::read_dir(dir.path())
            .expect("list")
            .map(|entry| entry.expect("entry").file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        let packed = [format!("{}.gz", closed(3)), format!("{}.gz", closed(4))];
        let expected = ["events-0.log", &packed[0], &packed[1], &directory, "events.log", "events.rejected"];
        assert_eq!(names, expected);
        let mut text = String::new();
        GzDecoder::new(File::open(path(&packed[0])).expect("open")).read_to_string(&mut text).expect("gzip");
        assert_eq!(text, "number 3\n");
    }
}
