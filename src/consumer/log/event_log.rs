//! Writes the event log, the rejected file, the file of event ids and the checkpoint so that they are always
//! consistent on disk.
//!
//! The order is append, fsync, checkpoint; offsets are covered only after that. Every step may fail and be
//! retried. `lines` formats the lines, and `recovery` finds the place to continue at startup.

use std::io;
use std::time::{Duration, Instant};

use crate::config::Fsync;
use crate::consumer::destination::DestinationError;
use crate::consumer::log::checkpoint::{Checkpoint, GenerationMark, LogMarks};
use crate::consumer::log::durable_file::{DurableFile, Place};
use crate::consumer::log::file_set::{FILES_MAX, FileSet, IDS, LOG, Places, doing_to};
use crate::consumer::log::id_files::{new_generation, remove_others};
use crate::consumer::log::ids::Window;
use crate::consumer::log::paths::Paths;
use crate::consumer::log::rotation::{closed_name, next_number};
use crate::consumer::log::storage::{Storage, doing, is_closed, replace};
use crate::consumer::progress::Progress;

/// With `LOG_FSYNC` set to an interval, the most bytes kept in memory before they are forced to disk early.
const UNSYNCED_MAX_BYTES: usize = 8 << 20;

/// Most attempts at one write while other programs keep renaming the file.
const WRITES_MAX: usize = 10;

/// The open files and what they cover.
pub struct EventLog<S: Storage> {
    storage: S,
    paths: Paths,
    fsync: Fsync,
    boot: Option<String>,
    files: FileSet<S::File>,
    /// The progress after everything staged.
    staged: Progress,
    /// The progress after the bytes that the files keep.
    kept: Progress,
    /// The checkpoint for the confirmed bytes; `saved` is the one on disk.
    covered: Checkpoint,
    saved: Option<Checkpoint>,
    /// Duration of the last fsync of the files.
    synced_in: Option<Duration>,
}

impl<S: Storage> EventLog<S> {
    /// Assembles the log from what `recovery` found and writes a checkpoint.
    ///
    /// # Errors
    /// The checkpoint cannot be written.
    pub fn new(
        storage: S,
        paths: Paths,
        fsync: Fsync,
        boot: &str,
        files: FileSet<S::File>,
        progress: Progress,
        marks: LogMarks,
    ) -> Result<Self, DestinationError> {
        let was_unsynced = marks.unsynced_boot.is_some();
        let mut this = Self {
            storage,
            paths,
            fsync,
            boot: (fsync == Fsync::Never).then(|| boot.to_owned()),
            files,
            staged: progress.clone(),
            kept: progress.clone(),
            covered: Checkpoint::new(progress, LogMarks { stopped: false, ..marks }),
            saved: None,
            synced_in: None,
        };
        if was_unsynced && fsync != Fsync::Never {
            // The next checkpoint says that every byte before it is on the disk.
            this.files.sync()?;
        }
        this.save()?;
        remove_others(&this.storage, &this.paths, this.covered.files.ids.as_ref())?;
        Ok(this)
    }

    /// Queues what is to be appended to each file; `read` is the progress after it. Nothing is written to disk yet.
    /// `window` is what the ids are after it.
    pub fn stage(
        &mut self,
        appended: &mut [&mut Vec<u8>],
        read: &Progress,
        today: i64,
        window: Option<&Window>,
    ) {
        if self.bytes() == 0 {
            self.covered.files.day = today;
        }
        if let (Some(window), Some(ids)) = (window, &mut self.covered.files.ids) {
            ids.time = window.time();
            ids.current_mut().began = window.current().began;
        }
        self.files.push(appended);
        self.staged.clone_from(read);
    }

    /// Writes what is staged. With `cover`, or when too much is pending, also fsyncs it and updates the
    /// checkpoint.
    ///
    /// # Errors
    /// A file operation failed; call again until it succeeds. Retrying neither loses nor duplicates anything.
    pub fn settle(&mut self, cover: bool) -> Result<(), DestinationError> {
        self.finish_rotation()?;
        self.write()?;
        if !cover && self.files.pending() < UNSYNCED_MAX_BYTES {
            return Ok(());
        }
        self.verify([Place::AtPath; FILES_MAX])?;
        self.save()
    }

    /// Closes the log under a name that contains `now_millis` and starts an empty one. Everything must be
    /// settled.
    ///
    /// # Errors
    /// A file operation failed; [`Self::settle`] resumes the rotation.
    pub fn rotate(&mut self, now_millis: i64) -> Result<(), DestinationError> {
        assert!(self.files.get(LOG).pending() == 0, "only a settled log can be closed");
        if self.covered.files.rotate_to.is_none() {
            if self.bytes() == 0 {
                return self.save();
            }
            let names = doing("list", self.paths.dir(), self.storage.names(self.paths.dir()))?;
            let name = self.covered.files.log.name.clone();
            let number = next_number(&name, self.covered.files.sequence, names.iter().map(String::as_str));
            let number =
                number.ok_or_else(|| io::Error::other("a closed log has the highest number: move it away"));
            let number = doing("number the closed logs of", &self.paths.log, number)?;
            if self.fsync == Fsync::Never {
                doing_to(self.files.get(LOG), "fsync", DurableFile::sync)?;
            }
            self.covered.files.sequence = number;
            self.covered.files.rotate_to = Some(closed_name(&name, number, now_millis));
        }
        self.finish_rotation()
    }

    /// Continues the ids in a new file, for the current generation of `window`. Everything must be settled.
    ///
    /// # Errors
    /// A file operation failed; call it again until it succeeds.
    pub fn begin_generation(&mut self, window: &Window) -> Result<(), DestinationError> {
        let ids = self.covered.files.ids.as_mut().expect("only ids that are kept have generations");
        let number = window.current().number;
        if ids.current_mut().number != number {
            assert!(self.files.get(IDS).pending() == 0, "only settled ids can be left");
            let file = new_generation(&self.storage, &self.paths, number)?;
            ids.generations.retain(|mark| window.generations().any(|kept| kept.number == mark.number));
            ids.generations.push(GenerationMark { number, began: window.time(), file: file.mark() });
            *self.files.get(IDS) = file;
        }
        self.save()?;
        remove_others(&self.storage, &self.paths, self.covered.files.ids.as_ref())
    }

    /// Covers everything and marks the shutdown as clean.
    ///
    /// # Errors
    /// A file operation failed. Giving up then neither loses nor duplicates anything.
    pub fn close(&mut self) -> Result<(), DestinationError> {
        self.settle(true)?;
        self.covered.files.stopped = true;
        self.save()
    }

    /// Duration of the last fsync of the files; `None` if there was none.
    pub fn synced_in(&self) -> Option<Duration> {
        self.synced_in
    }

    /// The progress of the checkpoint on disk.
    pub fn covered(&self) -> &Progress {
        &self.saved.as_ref().unwrap_or(&self.covered).progress
    }

    /// The progress after everything staged.
    pub fn staged(&self) -> &Progress {
        &self.staged
    }

    /// Bytes of the log, including staged ones.
    pub fn bytes(&self) -> u64 {
        self.files.log_bytes()
    }

    /// UTC day of the log's first line, in days since the epoch.
    pub fn first_day(&self) -> i64 {
        self.covered.files.day
    }

    /// True if something staged is not covered yet.
    pub fn is_behind(&self) -> bool {
        self.files.pending() > 0 || self.staged.offsets != self.covered().offsets
    }

    /// Writes what is staged to files that are at their paths both before and after the write.
    ///
    /// A program that renames a file may have read it to its end before our write. So if the file was moved
    /// meanwhile, the write is cut off again and repeated in the next file.
    fn write(&mut self) -> Result<(), DestinationError> {
        for _ in 0..WRITES_MAX {
            self.follow_moves()?;
            if self.files.write_in_place(&self.storage)? {
                self.kept.clone_from(&self.staged);
                return Ok(());
            }
        }
        let error = io::Error::other("other programs rename the files faster than they can be written");
        doing("append to", &self.paths.log, Err(error))
    }

    /// Verifies the bytes that the files keep and marks them as confirmed; `save` then covers them.
    fn verify(&mut self, places: Places) -> Result<(), DestinationError> {
        let sync = self.fsync != Fsync::Never;
        let began = Instant::now();
        self.files.verify(places, sync)?;
        self.synced_in = sync.then(|| began.elapsed());
        self.covered.progress.clone_from(&self.kept);
        Ok(())
    }

    /// Starts an empty file at the same path if another program renamed or deleted the old one.
    fn follow_moves(&mut self) -> Result<(), DestinationError> {
        let places = self.files.places(&self.storage)?;
        if places == [Place::AtPath; FILES_MAX] {
            return self.save();
        }
        self.finish_moved(places)?;
        for (at, _) in places.iter().enumerate().filter(|(_, place)| **place != Place::AtPath) {
            // A power cut must not undo the rename once the checkpoint refers to the new file.
            doing("fsync", self.paths.dir(), self.storage.sync_dir(self.paths.dir()))?;
            let file = self.files.get(at);
            doing_to(file, "start a new", |file| file.start_new(&self.storage))?;
            log::warn!(
                "another program moved or deleted {}; continuing in a new file",
                file.path().display()
            );
            if let (IDS, Some(ids)) = (at, &mut self.covered.files.ids) {
                ids.damaged = true;
            }
        }
        self.save()
    }

    /// Covers the bytes that the moved files keep. gzip or a program that follows the log may already have
    /// read them there, so they must not be written again.
    fn finish_moved(&mut self, places: Places) -> Result<(), DestinationError> {
        if self.files.has_lost_kept() {
            // Bytes were cut off after a disk error. Readers may or may not have seen them, and a duplicate
            // is better than a lost event.
            self.files.disown();
            self.kept.clone_from(&self.covered.progress);
        }
        self.verify(places)?;
        // A full disk may have no room for the checkpoint until the deleted file is closed.
        if places.contains(&Place::Deleted) { Ok(()) } else { self.save() }
    }

    fn finish_rotation(&mut self) -> Result<(), DestinationError> {
        let Some(to) = &self.covered.files.rotate_to else { return Ok(()) };
        let to = self.paths.log.with_file_name(to);
        if self.saved.as_ref().is_none_or(|saved| saved.files.rotate_to.is_none()) {
            self.save()?;
        }
        // On a retry after a failure, the file in place may already be the new one.
        let closed = is_closed(&self.storage, &to)?;
        let log = self.files.get(LOG);
        if !closed && doing_to(log, "inspect", |log| log.in_place(&self.storage))? {
            doing("rename the log to", &to, self.storage.rename(&self.paths.log, &to))?;
        }
        doing("fsync", self.paths.dir(), self.storage.sync_dir(self.paths.dir()))?;
        doing_to(log, "start a new", |log| log.start_new(&self.storage))?;
        doing("fsync", self.paths.dir(), self.storage.sync_dir(self.paths.dir()))?;
        self.covered.files.rotate_to = None;
        self.save()
    }

    fn save(&mut self) -> Result<(), DestinationError> {
        self.files.mark(&mut self.covered.files);
        self.covered.files.unsynced_boot.clone_from(&self.boot);
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
