//! One append-only file of which we always know how many bytes can be relied on.
//!
//! Bytes that are not yet on the disk stay in memory as well: after an error the file is cut back to what it
//! holds for certain, and the rest is written again. What the file got whole while it was at its path stays in
//! it when another program renames it, since readers may have seen it there. Knows nothing of offsets.

use std::io;
use std::path::{Path, PathBuf};

use super::checkpoint::{FileMark, TAIL_BYTES, tail_crc};
use super::storage::{AppendFile, Stat, Storage};

/// Where the open file is by now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// At its path.
    There,
    /// Somebody renamed it.
    Moved,
    /// No name leads to it: it was deleted, or moved to another file system, which is a copy and a deletion.
    Deleted,
}

/// An open file, its sure length, and what is to follow.
pub struct DurableFile<F> {
    path: PathBuf,
    file: F,
    inode: u64,
    /// Bytes that are sure: on the disk, or (without fsync) handed to the kernel.
    sure: u64,
    /// The last [`TAIL_BYTES`] of them.
    tail: Vec<u8>,
    /// Bytes to follow the sure ones.
    pending: Vec<u8>,
    /// How many of the pending ones the file has got.
    written: usize,
    /// How many of the pending ones belong to this file, whatever becomes of its name.
    kept: usize,
    /// An error left the file's length unknown; more than the sure and the written bytes is cut off.
    uncertain: bool,
    /// What was kept was cut off after an error and is not known to be back while the file is in place.
    lacking: bool,
}

impl<F: AppendFile> DurableFile<F> {
    /// Opens `path`, whose whole content is taken as sure.
    ///
    /// # Errors
    /// As the system says.
    pub fn open<S: Storage<File = F>>(storage: &S, path: &Path) -> io::Result<Self> {
        let file = storage.open_append(path)?;
        let Stat { len, inode, .. } = file.stat()?;
        let tail = storage.read_range(path, len.saturating_sub(TAIL_BYTES), TAIL_BYTES)?;
        Ok(Self {
            path: path.to_path_buf(),
            file,
            inode,
            sure: len,
            tail,
            pending: Vec::new(),
            written: 0,
            kept: 0,
            uncertain: false,
            lacking: false,
        })
    }

    /// Puts `bytes` behind what is pending and leaves an empty buffer in exchange.
    pub fn push(&mut self, bytes: &mut Vec<u8>) {
        if self.pending.is_empty() {
            std::mem::swap(&mut self.pending, bytes);
        } else {
            self.pending.append(bytes);
        }
    }

    /// Hands everything pending to the kernel.
    ///
    /// # Errors
    /// The file is cut back to what it had before, now or at the next call; nothing is forgotten.
    pub fn write(&mut self) -> io::Result<()> {
        self.make_certain()?;
        if self.written == self.pending.len() {
            return Ok(());
        }
        let result = self.file.append(&self.pending[self.written..]);
        self.settle(result)?;
        self.written = self.pending.len();
        Ok(())
    }

    /// What is written belongs to this file from now on.
    pub fn keep(&mut self) {
        (self.kept, self.lacking) = (self.written, false);
    }

    /// True if an error took out what belongs to this file.
    pub fn lacks(&self) -> bool {
        self.lacking
    }

    /// Nothing that is not sure belongs to this file any more.
    pub fn release(&mut self) {
        (self.kept, self.lacking) = (0, false);
    }

    /// Proves that what belongs to this file is all there: on the disk with `sync`, else in the kernel's hands.
    ///
    /// # Errors
    /// After a failed fsync the kernel may have dropped the bytes, so the file is cut back to the sure ones and
    /// all others are written again.
    pub fn prove(&mut self, sync: bool) -> io::Result<()> {
        if self.kept == 0 {
            return Ok(());
        }
        assert!(self.written >= self.kept, "only written bytes can be proved");
        if sync {
            let result = self.file.sync().inspect_err(|_| self.take_out());
            self.settle(result)?;
        }
        // Two writers, or a tool that cuts the file under us (logrotate's copytruncate), would shift every
        // later mark: better to notice here than at the next start.
        let (len, expected) = (self.file.stat()?.len, self.sure + self.written as u64);
        if len != expected {
            self.take_out();
            return Err(io::Error::other(format!(
                "it has {len} bytes instead of {expected}: another program writes to it or cuts it \
                 (use rename and SIGHUP instead of copytruncate)"
            )));
        }
        Ok(())
    }

    /// Counts what was proved as sure.
    pub fn accept(&mut self) {
        self.remember_tail();
        self.sure += self.kept as u64;
        self.pending.drain(..self.kept);
        self.written -= self.kept;
        self.kept = 0;
    }

    /// Goes on in a new file at the same path; what is pending is cut off the old one and moves there.
    ///
    /// # Errors
    /// The old file stays in use then. A file with content at the path is refused.
    pub fn start_anew<S: Storage<File = F>>(&mut self, storage: &S) -> io::Result<()> {
        if self.written > 0 {
            self.take_out();
        }
        self.make_certain()?;
        let mut next = Self::open(storage, &self.path)?;
        if next.sure > 0 {
            return Err(io::Error::other(format!(
                "another file with {} bytes stands in its place: move it away, or put the right one back",
                next.sure
            )));
        }
        next.pending = std::mem::take(&mut self.pending);
        *self = next;
        Ok(())
    }

    /// Where the open file is.
    ///
    /// # Errors
    /// As the system says.
    pub fn place<S: Storage<File = F>>(&self, storage: &S) -> io::Result<Place> {
        Ok(match self.in_place(storage)? {
            true => Place::There,
            false if self.file.stat()?.links == 0 => Place::Deleted,
            false => Place::Moved,
        })
    }

    /// True if the path still leads to the open file.
    ///
    /// # Errors
    /// As the system says.
    pub fn in_place<S: Storage<File = F>>(&self, storage: &S) -> io::Result<bool> {
        Ok(storage.stat(&self.path)?.is_some_and(|stat| stat.inode == self.inode))
    }

    /// What is sure now, for the checkpoint.
    pub fn mark(&self) -> FileMark {
        FileMark {
            name: self.path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            bytes: self.sure,
            inode: self.inode,
            tail_crc: tail_crc(&self.tail),
        }
    }

    /// Sure and pending bytes.
    pub fn bytes(&self) -> u64 {
        self.sure + self.pending.len() as u64
    }

    /// Bytes that are not sure yet.
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    /// Forces everything written to the disk, also what was declared sure without it.
    ///
    /// # Errors
    /// As the system says.
    pub fn sync(&mut self) -> io::Result<()> {
        self.file.sync()
    }

    fn settle(&mut self, result: io::Result<()>) -> io::Result<()> {
        if result.is_err() {
            self.uncertain = true;
            // The first error is what the operator needs; a failing cut is met again before the next write.
            let _ = self.make_certain();
        }
        result
    }

    /// All that is not sure is cut off, now or before the next write.
    fn take_out(&mut self) {
        self.lacking |= self.kept > 0;
        (self.uncertain, self.written) = (true, 0);
    }

    fn make_certain(&mut self) -> io::Result<()> {
        if !self.uncertain {
            return Ok(());
        }
        let len = self.file.stat()?.len;
        if len < self.sure {
            return Err(io::Error::other(format!(
                "it has {len} bytes, {} were sure: another program cut it; put them back, or stop the \
                 consumer, move the file and its checkpoint away, and start again",
                self.sure
            )));
        }
        if len < self.sure + self.written as u64 {
            self.take_out();
        }
        self.file.set_len(self.sure + self.written as u64)?;
        self.uncertain = false;
        Ok(())
    }

    fn remember_tail(&mut self) {
        let keep = TAIL_BYTES as usize;
        let from_pending = self.kept.min(keep);
        let excess = (self.tail.len() + from_pending).saturating_sub(keep);
        self.tail.drain(..excess.min(self.tail.len()));
        self.tail.extend_from_slice(&self.pending[self.kept - from_pending..self.kept]);
    }
}
