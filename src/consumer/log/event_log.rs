//! Writes the event log, the rejected file and the checkpoint so that they are always consistent on disk.
//!
//! The order is append, fsync, checkpoint; offsets are covered only after that. Every step may fail and be
//! retried. `lines` formats the lines, and `recovery` finds the place to continue at startup.

use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::broker::Trails;
use crate::config::Fsync;
use crate::consumer::log::checkpoint::{Checkpoint, Offsets};
use crate::consumer::log::durable_file::{DurableFile, Place};
use crate::consumer::log::paths::Paths;
use crate::consumer::log::rotation::{closed_name, next_number};
use crate::consumer::log::storage::{Storage, replace};

/// With `LOG_FSYNC` set to an interval, the most bytes kept in memory before they are forced to disk early.
pub const UNSYNCED_MAX_BYTES: usize = 8 << 20;

/// Most attempts at one write while other programs keep renaming the file.
const WRITES_MAX: usize = 10;

/// An I/O error with the operation and file that it concerns.
#[derive(Debug)]
pub struct LogError {
    /// What was being done, with the path.
    pub doing: String,
    /// The error of the operating system.
    pub source: io::Error,
}

impl std::fmt::Display for LogError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.doing, self.source)?;
        match self.source.kind() {
            io::ErrorKind::FileTooLarge => f.write_str(
                "; raise the limit (`ulimit -f`, LimitFSIZE= of systemd), or rotate earlier with \
                 LOG_ROTATE_BYTES",
            ),
            _ => Ok(()),
        }
    }
}

impl std::error::Error for LogError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

/// Adds to an error what was being done to which file.
pub fn doing<T>(what: &str, path: &Path, result: io::Result<T>) -> Result<T, LogError> {
    result.map_err(|source| LogError { doing: format!("{what} {}", path.display()), source })
}

/// Next offsets and the trails of what was read before them.
#[derive(Clone, Default)]
struct Read {
    offsets: Offsets,
    trails: Trails,
}

impl Read {
    fn of(checkpoint: &Checkpoint) -> Self {
        Self { offsets: checkpoint.offsets.clone(), trails: checkpoint.trails.clone() }
    }
}

/// The open files and what they cover.
pub struct EventLog<S: Storage> {
    storage: S,
    paths: Paths,
    fsync: Fsync,
    boot: Option<String>,
    log: DurableFile<S::File>,
    rejected: DurableFile<S::File>,
    /// Offsets and trails after everything staged.
    staged: Read,
    /// Offsets and trails after the bytes that both files keep.
    kept: Read,
    /// The checkpoint for the confirmed bytes; `saved` is the one on disk.
    covered: Checkpoint,
    saved: Option<Checkpoint>,
    /// Duration of the last fsync of the log and the rejected file.
    synced_in: Option<Duration>,
}

impl<S: Storage> EventLog<S> {
    /// Assembles the log from what `recovery` found and writes `checkpoint`.
    ///
    /// # Errors
    /// The checkpoint cannot be written.
    pub fn new(
        storage: S,
        paths: Paths,
        fsync: Fsync,
        boot: &str,
        files: (DurableFile<S::File>, DurableFile<S::File>),
        mut checkpoint: Checkpoint,
    ) -> Result<Self, LogError> {
        checkpoint.stopped = false;
        let (log, rejected) = files;
        let mut this = Self {
            storage,
            paths,
            fsync,
            boot: (fsync == Fsync::Never).then(|| boot.to_owned()),
            log,
            rejected,
            staged: Read::of(&checkpoint),
            kept: Read::of(&checkpoint),
            covered: checkpoint,
            saved: None,
            synced_in: None,
        };
        this.save()?;
        Ok(this)
    }

    /// Queues finished lines with their offsets and trails. Nothing is written to disk yet.
    pub fn stage(
        &mut self,
        lines: &mut Vec<u8>,
        rejected: &mut Vec<u8>,
        (offsets, trails): (&Offsets, &Trails),
        today: i64,
    ) {
        if self.log.bytes() == 0 {
            self.covered.day = today;
        }
        self.log.push(lines);
        self.rejected.push(rejected);
        self.staged.offsets.clone_from(offsets);
        self.staged.trails.clone_from(trails);
    }

    /// Writes what is staged. With `cover`, or when too much is pending, also fsyncs it and updates the
    /// checkpoint.
    ///
    /// # Errors
    /// A file operation failed; call again until it succeeds. Retrying neither loses nor duplicates anything.
    pub fn settle(&mut self, cover: bool) -> Result<(), LogError> {
        self.finish_rotation()?;
        self.write()?;
        if !cover && self.log.pending() + self.rejected.pending() < UNSYNCED_MAX_BYTES {
            return Ok(());
        }
        self.prove([Place::There; 2])?;
        self.save()
    }

    /// Closes the log under a name that contains `now_millis` and starts an empty one. Everything must be
    /// settled.
    ///
    /// # Errors
    /// A file operation failed; [`Self::settle`] resumes the rotation.
    pub fn rotate(&mut self, now_millis: i64) -> Result<(), LogError> {
        assert!(self.log.pending() == 0, "only a settled log can be closed");
        if self.covered.rotate_to.is_none() && self.log.bytes() == 0 {
            return self.save();
        }
        if self.covered.rotate_to.is_none() {
            let names = doing("list", self.paths.dir(), self.storage.names(self.paths.dir()))?;
            let name = self.covered.log.name.clone();
            let number = next_number(&name, self.covered.sequence, names.iter().map(String::as_str));
            let number =
                number.ok_or_else(|| io::Error::other("a closed log has the highest number: move it away"));
            let number = doing("number the closed logs of", &self.paths.log, number)?;
            if self.fsync == Fsync::Never {
                doing("fsync", &self.paths.log, self.log.sync())?;
            }
            self.covered.sequence = number;
            self.covered.rotate_to = Some(closed_name(&name, number, now_millis));
        }
        self.finish_rotation()
    }

    /// Covers everything and marks the shutdown as clean.
    ///
    /// # Errors
    /// A file operation failed. Giving up then neither loses nor duplicates anything.
    pub fn close(&mut self) -> Result<(), LogError> {
        self.settle(true)?;
        self.covered.stopped = true;
        self.save()
    }

    /// Duration of the last fsync of the log and the rejected file; `None` if there was none.
    pub fn synced_in(&self) -> Option<Duration> {
        self.synced_in
    }

    /// Offsets covered by the checkpoint on disk.
    pub fn offsets(&self) -> &Offsets {
        &self.saved.as_ref().unwrap_or(&self.covered).offsets
    }

    /// The trails of what was read before these offsets.
    pub fn trails(&self) -> &Trails {
        &self.saved.as_ref().unwrap_or(&self.covered).trails
    }

    /// Identity of the topic that the offsets belong to.
    pub fn topic_id(&self) -> Option<&str> {
        self.covered.topic_id.as_deref()
    }

    /// Bytes of the log, including staged ones.
    pub fn bytes(&self) -> u64 {
        self.log.bytes()
    }

    /// UTC day of the log's first line, in days since the epoch.
    pub fn first_day(&self) -> i64 {
        self.covered.day
    }

    /// True if something staged is not covered yet.
    pub fn is_behind(&self) -> bool {
        self.log.pending() + self.rejected.pending() > 0 || self.staged.offsets != *self.offsets()
    }

    /// Writes what is staged to files that are at their paths both before and after the write.
    ///
    /// A program that renames a file may have read it to its end before our write. So if the file was moved
    /// meanwhile, the write is cut off again and repeated in the next file.
    fn write(&mut self) -> Result<(), LogError> {
        for _ in 0..WRITES_MAX {
            self.follow_moves()?;
            doing("append to", &self.paths.log, self.log.write())?;
            if !doing("inspect", &self.paths.log, self.log.in_place(&self.storage))? {
                continue;
            }
            doing("append to", &self.paths.rejected, self.rejected.write())?;
            if !doing("inspect", &self.paths.rejected, self.rejected.in_place(&self.storage))? {
                continue;
            }
            self.log.keep();
            self.rejected.keep();
            self.kept.clone_from(&self.staged);
            return Ok(());
        }
        let error = io::Error::other("other programs rename the files faster than they can be written");
        doing("append to", &self.paths.log, Err(error))
    }

    /// Verifies the bytes that both files keep and marks them as confirmed; `save` then covers them.
    fn prove(&mut self, places: [Place; 2]) -> Result<(), LogError> {
        let sync = self.fsync != Fsync::Never;
        let began = Instant::now();
        let files = [(&mut self.log, &self.paths.log), (&mut self.rejected, &self.paths.rejected)];
        for ((file, path), place) in files.into_iter().zip(places) {
            // Only programs that already have a deleted file open can read it, so fsync is pointless.
            if place != Place::Deleted {
                doing("fsync", path, file.prove(sync))?;
            }
        }
        self.synced_in = sync.then(|| began.elapsed());
        self.log.accept();
        self.rejected.accept();
        self.covered.offsets.clone_from(&self.kept.offsets);
        self.covered.trails.clone_from(&self.kept.trails);
        Ok(())
    }

    /// Starts an empty file at the same path if another program renamed or deleted the old one.
    fn follow_moves(&mut self) -> Result<(), LogError> {
        let places = [
            doing("inspect", &self.paths.log, self.log.place(&self.storage))?,
            doing("inspect", &self.paths.rejected, self.rejected.place(&self.storage))?,
        ];
        if places == [Place::There; 2] {
            return self.save();
        }
        self.finish_moved(places)?;
        let files = [(&mut self.log, &self.paths.log), (&mut self.rejected, &self.paths.rejected)];
        for ((file, path), place) in files.into_iter().zip(places) {
            if place == Place::There {
                continue;
            }
            // A power cut must not undo the rename once the checkpoint refers to the new file.
            doing("fsync", self.paths.dir(), self.storage.sync_dir(self.paths.dir()))?;
            doing("start a new", path, file.start_anew(&self.storage))?;
            log::warn!("another program moved or deleted {}; continuing in a new file", path.display());
        }
        self.save()
    }

    /// Covers the bytes that the moved files keep. gzip or a program that follows the log may already have
    /// read them there, so they must not be written again.
    fn finish_moved(&mut self, places: [Place; 2]) -> Result<(), LogError> {
        if self.log.lacks() || self.rejected.lacks() {
            // Bytes were cut off after a disk error. Readers may or may not have seen them, and a duplicate
            // is better than a lost event.
            self.log.release();
            self.rejected.release();
            self.kept = Read::of(&self.covered);
        }
        self.prove(places)?;
        // A full disk may have no room for the checkpoint until the deleted file is closed.
        if places.contains(&Place::Deleted) { Ok(()) } else { self.save() }
    }

    fn finish_rotation(&mut self) -> Result<(), LogError> {
        let Some(to) = &self.covered.rotate_to else { return Ok(()) };
        let to = self.paths.log.with_file_name(to);
        if self.saved.as_ref().is_none_or(|saved| saved.rotate_to.is_none()) {
            self.save()?;
        }
        // On a retry after a failure, the file in place may already be the new one.
        let closed = doing("inspect", &to, self.storage.stat(&to))?.is_some();
        if !closed && doing("inspect", &self.paths.log, self.log.in_place(&self.storage))? {
            doing("rename the log to", &to, self.storage.rename(&self.paths.log, &to))?;
        }
        doing("fsync", self.paths.dir(), self.storage.sync_dir(self.paths.dir()))?;
        doing("start a new", &self.paths.log, self.log.start_anew(&self.storage))?;
        doing("fsync", self.paths.dir(), self.storage.sync_dir(self.paths.dir()))?;
        self.covered.rotate_to = None;
        self.save()
    }

    fn save(&mut self) -> Result<(), LogError> {
        self.covered.log = self.log.mark();
        self.covered.rejected = self.rejected.mark();
        self.covered.unsynced_boot.clone_from(&self.boot);
        if self.saved.as_ref() == Some(&self.covered) {
            return Ok(());
        }
        let durably = self.fsync != Fsync::Never;
        let text = self.covered.encode();
        doing(
            "write",
            &self.paths.checkpoint,
            replace(&self.storage, &self.paths.checkpoint, &text, durably),
        )?;
        self.saved = Some(self.covered.clone());
        Ok(())
    }
}

/// The longest time that lines may wait before they are forced to disk.
pub fn cover_within(fsync: Fsync) -> Duration {
    match fsync {
        Fsync::Interval(limit) => limit,
        Fsync::Batch | Fsync::Never => Duration::ZERO,
    }
}
