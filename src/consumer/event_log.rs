//! The event log, the rejected events and the checkpoint as one thing that is always consistent on the disk.
//!
//! Order: append, fsync, checkpoint; only then are offsets covered. Any step may fail and be called again.
//! Knows nothing of Kafka; how lines look is `lines`, how a start finds its place is `recovery`.

use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::broker::Trails;
use crate::config::Fsync;

use super::checkpoint::{Checkpoint, Offsets};
use super::durable_file::{DurableFile, Place};
use super::paths::Paths;
use super::rotation::{closed_name, next_number};
use super::storage::{Storage, replace};

/// With `interval`, bytes kept in memory until they are on the disk; more forces them earlier.
pub const UNSYNCED_MAX_BYTES: usize = 8 << 20;

/// So often a write is repeated because another program renamed the file meanwhile.
const WRITES_MAX: usize = 10;

/// An error and the file it is about.
#[derive(Debug)]
pub struct LogError {
    /// What was being done, with the path.
    pub doing: String,
    /// What the system said.
    pub source: io::Error,
}

impl std::fmt::Display for LogError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.doing, self.source)?;
        match self.source.kind() {
            io::ErrorKind::FileTooLarge => f.write_str(
                "; raise the limit (`ulimit -f`, systemd's LimitFSIZE), or close the log earlier with LOG_ROTATE_BYTES",
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

/// Names what was being done when `result` failed.
pub fn doing<T>(what: &str, path: &Path, result: io::Result<T>) -> Result<T, LogError> {
    result.map_err(|source| LogError { doing: format!("{what} {}", path.display()), source })
}

/// Next offsets, and what was read before them.
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
    /// What was read up to the end of everything staged.
    staged: Read,
    /// What was read up to the end of everything that both files keep.
    kept: Read,
    /// The checkpoint that belongs to the sure bytes; `saved` is the one on the disk.
    covered: Checkpoint,
    saved: Option<Checkpoint>,
    /// What the last fsync of log and rejected file took.
    synced_in: Option<Duration>,
}

impl<S: Storage> EventLog<S> {
    /// Puts together what `recovery` found; `checkpoint` is what the disk holds or shall hold.
    ///
    /// # Errors
    /// When the first checkpoint cannot be written.
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

    /// Takes over finished lines and the offsets and trails that belong to them; nothing is on the disk yet.
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

    /// Writes what is staged; with `cover` (or when too much waits) also fsyncs it and moves the checkpoint.
    ///
    /// # Errors
    /// What failed; call again until it succeeds. Nothing is lost or doubled by that.
    pub fn settle(&mut self, cover: bool) -> Result<(), LogError> {
        self.finish_rotation()?;
        self.write()?;
        if !cover && self.log.pending() + self.rejected.pending() < UNSYNCED_MAX_BYTES {
            return Ok(());
        }
        self.prove([Place::There; 2])?;
        self.save()
    }

    /// Closes the log under a name made of `now_millis` and begins an empty one. Everything must be settled.
    ///
    /// # Errors
    /// What failed; [`Self::settle`] goes on with it.
    pub fn rotate(&mut self, now_millis: i64) -> Result<(), LogError> {
        assert!(self.log.pending() == 0, "only a settled log is closed");
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

    /// Covers everything and marks the end as orderly.
    ///
    /// # Errors
    /// What failed; nothing is lost or doubled by leaving it at that.
    pub fn close(&mut self) -> Result<(), LogError> {
        self.settle(true)?;
        self.covered.stopped = true;
        self.save()
    }

    /// What the fsync of log and rejected file took the last time; `None` without.
    pub fn synced_in(&self) -> Option<Duration> {
        self.synced_in
    }

    /// Offsets that are covered by the checkpoint on the disk.
    pub fn offsets(&self) -> &Offsets {
        &self.saved.as_ref().unwrap_or(&self.covered).offsets
    }

    /// What was read before these offsets.
    pub fn trails(&self) -> &Trails {
        &self.saved.as_ref().unwrap_or(&self.covered).trails
    }

    /// Identity of the topic that the offsets belong to.
    pub fn topic_id(&self) -> Option<&str> {
        self.covered.topic_id.as_deref()
    }

    /// Bytes of the log with those staged.
    pub fn bytes(&self) -> u64 {
        self.log.bytes()
    }

    /// UTC day of the log's first line, in days since the epoch.
    pub fn first_day(&self) -> i64 {
        self.covered.day
    }

    /// True if something staged is not covered.
    pub fn is_behind(&self) -> bool {
        self.log.pending() + self.rejected.pending() > 0 || self.staged.offsets != *self.offsets()
    }

    /// Writes what is staged to files that are at their paths, before and after.
    ///
    /// A program that renamed a file may have read it to its end before the write. So a write that did not find
    /// the file in place is cut off again and repeated in the next file.
    fn write(&mut self) -> Result<(), LogError> {
        for _ in 0..WRITES_MAX {
            self.follow_moves()?;
            doing("append to", &self.paths.log, self.log.write())?;
            if !doing("look at", &self.paths.log, self.log.in_place(&self.storage))? {
                continue;
            }
            doing("append to", &self.paths.rejected, self.rejected.write())?;
            if !doing("look at", &self.paths.rejected, self.rejected.in_place(&self.storage))? {
                continue;
            }
            self.log.keep();
            self.rejected.keep();
            self.kept.clone_from(&self.staged);
            return Ok(());
        }
        let error = io::Error::other("other programs rename its files faster than they can be written");
        doing("append to", &self.paths.log, Err(error))
    }

    /// Counts what both files keep as sure; `save` covers it then.
    fn prove(&mut self, places: [Place; 2]) -> Result<(), LogError> {
        let sync = self.fsync != Fsync::Never;
        let began = Instant::now();
        let files = [(&mut self.log, &self.paths.log), (&mut self.rejected, &self.paths.rejected)];
        for ((file, path), place) in files.into_iter().zip(places) {
            // A deleted file has only the readers that it had.
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

    /// A file that was renamed or deleted by somebody else is followed by an empty one at the same path.
    fn follow_moves(&mut self) -> Result<(), LogError> {
        let places = [
            doing("look at", &self.paths.log, self.log.place(&self.storage))?,
            doing("look at", &self.paths.rejected, self.rejected.place(&self.storage))?,
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
            // Their rename must not be undone by a power cut after the checkpoint speaks of the new file.
            doing("fsync", self.paths.dir(), self.storage.sync_dir(self.paths.dir()))?;
            doing("begin a new", path, file.start_anew(&self.storage))?;
            log::warn!("{} was moved or deleted by somebody else; going on in a new one", path.display());
        }
        self.save()
    }

    /// Covers what the files keep where it is: gzip, or a program that follows the log, may have read it there,
    /// so it must not be written again.
    fn finish_moved(&mut self, places: [Place; 2]) -> Result<(), LogError> {
        if self.log.lacks() || self.rejected.lacks() {
            // A failing disk took it out. Readers of the file may have seen it or not, and a duplicate is better
            // than a lost event.
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
        // Tried again after a failure, the file in place may be the new one already.
        let closed = doing("look at", &to, self.storage.stat(&to))?.is_some();
        if !closed && doing("look at", &self.paths.log, self.log.in_place(&self.storage))? {
            doing("close to", &to, self.storage.rename(&self.paths.log, &to))?;
        }
        doing("fsync", self.paths.dir(), self.storage.sync_dir(self.paths.dir()))?;
        doing("begin a new", &self.paths.log, self.log.start_anew(&self.storage))?;
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

/// How long lines may wait for the disk.
pub fn cover_within(fsync: Fsync) -> Duration {
    match fsync {
        Fsync::Interval(limit) => limit,
        Fsync::Batch | Fsync::Never => Duration::ZERO,
    }
}
