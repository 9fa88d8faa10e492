//! The files that one checkpoint covers together: what is done to one of them is done to all.

use std::io;

use crate::consumer::destination::DestinationError;
use crate::consumer::log::checkpoint::LogMarks;
use crate::consumer::log::durable_file::{DurableFile, Place};
use crate::consumer::log::storage::{AppendFile, Storage, doing};

/// Positions in the set: the log, the rejected file, and the ids of the logged events.
pub const LOG: usize = 0;
pub const REJECTED: usize = 1;
pub const IDS: usize = 2;

/// Most files in a set.
pub const FILES_MAX: usize = 3;

/// Where each file is.
pub type Places = [Place; FILES_MAX];

/// At least the log and the rejected file; the ids if repeated events are dropped.
pub struct FileSet<F>(Vec<DurableFile<F>>);

impl<F: AppendFile> FileSet<F> {
    /// These files, in the order of their positions.
    pub fn new(files: Vec<DurableFile<F>>) -> Self {
        assert!(
            (REJECTED + 1..=FILES_MAX).contains(&files.len()),
            "the log and the rejected file are always there"
        );
        Self(files)
    }

    /// The file at `position`, which must be in the set.
    pub fn get(&mut self, position: usize) -> &mut DurableFile<F> {
        &mut self.0[position]
    }

    /// Bytes of the log, including pending ones.
    pub fn log_bytes(&self) -> u64 {
        self.0[LOG].bytes()
    }

    /// Bytes of all files that are not confirmed yet.
    pub fn pending(&self) -> usize {
        self.0.iter().map(DurableFile::pending).sum()
    }

    /// Appends to the pending bytes of each file, in the order of the positions.
    pub fn push(&mut self, appended: &mut [&mut Vec<u8>]) {
        self.0.iter_mut().zip(appended).for_each(|(file, bytes)| file.push(bytes));
    }

    /// Writes all pending bytes. Returns false if a file was moved meanwhile; otherwise the bytes belong to these files
    /// from now on.
    ///
    /// # Errors
    /// A file operation failed. The same applies to all other methods.
    pub fn write_in_place<S: Storage<File = F>>(&mut self, storage: &S) -> Result<bool, DestinationError> {
        for file in &mut self.0 {
            doing_to(file, "append to", DurableFile::write)?;
            if !doing_to(file, "inspect", |file| file.in_place(storage))? {
                return Ok(false);
            }
        }
        self.0.iter_mut().for_each(DurableFile::keep);
        Ok(true)
    }

    /// Where each file is now; one that is not in the set counts as at its path.
    pub fn places<S: Storage<File = F>>(&mut self, storage: &S) -> Result<Places, DestinationError> {
        let mut places = [Place::AtPath; FILES_MAX];
        for (file, place) in self.0.iter_mut().zip(&mut places) {
            *place = doing_to(file, "inspect", |file| file.place(storage))?;
        }
        Ok(places)
    }

    /// Verifies the bytes that belong to the files and marks them as confirmed.
    pub fn verify(&mut self, places: Places, sync: bool) -> Result<(), DestinationError> {
        for (file, place) in self.0.iter_mut().zip(places) {
            // Only programs that already have a deleted file open can read it, so fsync is pointless.
            if place != Place::Deleted {
                doing_to(file, "fsync", |file| file.verify(sync))?;
            }
        }
        self.0.iter_mut().for_each(DurableFile::confirm);
        Ok(())
    }

    /// Forces everything written to disk.
    pub fn sync(&mut self) -> Result<(), DestinationError> {
        self.0.iter_mut().try_for_each(|file| doing_to(file, "fsync", DurableFile::sync))
    }

    /// True if bytes that belong to a file were cut off after an error.
    pub fn has_lost_kept(&self) -> bool {
        self.0.iter().any(DurableFile::has_lost_kept)
    }

    /// Declares that no unconfirmed bytes belong to these files any more.
    pub fn disown(&mut self) {
        self.0.iter_mut().for_each(DurableFile::disown);
    }

    /// Puts how far they are confirmed into `marks`.
    pub fn mark(&self, marks: &mut LogMarks) {
        marks.log = self.0[LOG].mark();
        marks.rejected = self.0[REJECTED].mark();
        if let (Some(file), Some(ids)) = (self.0.get(IDS), &mut marks.ids) {
            ids.current_mut().file = file.mark();
        }
    }
}

/// Calls `action` on `file` and adds to an error what was being done to which file.
///
/// # Errors
/// That of the action.
pub fn doing_to<F: AppendFile, T>(
    file: &mut DurableFile<F>,
    what: &str,
    action: impl FnOnce(&mut DurableFile<F>) -> io::Result<T>,
) -> Result<T, DestinationError> {
    let result = action(file);
    doing(what, file.path(), result)
}
