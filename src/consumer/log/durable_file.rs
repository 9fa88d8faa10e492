//! An append-only file that always knows how many of its bytes can be relied on.
//!
//! Bytes that are not on disk yet are also kept in memory: after an error the file is cut back to its
//! confirmed bytes, and the rest is written again. A write that completed while the file was at its path
//! stays in that file even if another program renames it, since readers may have seen it there.

use std::io;
use std::path::{Path, PathBuf};

use crate::consumer::log::checkpoint::{FileMark, TAIL_BYTES, tail_crc};
use crate::consumer::log::storage::{AppendFile, Stat, Storage};

/// Most memory of an empty buffer.
const BUFFER_MAX_BYTES: usize = 16 << 20;

/// An empty buffer with less memory is not made smaller.
const BUFFER_MIN_BYTES: usize = 64 << 10;

/// Where the open file is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// At its path.
    AtPath,
    /// Another program renamed it.
    Moved,
    /// It has no name any more: it was deleted, or moved to another file system, which copies and deletes it.
    Deleted,
}

/// An open file, its confirmed length, and the bytes still to be written.
pub struct DurableFile<F> {
    path: PathBuf,
    file: F,
    inode: u64,
    /// Number of confirmed bytes: on disk, or (without fsync) handed to the kernel.
    confirmed: u64,
    /// The last [`TAIL_BYTES`] confirmed bytes.
    tail: Vec<u8>,
    /// Bytes that follow the confirmed ones.
    pending: Vec<u8>,
    /// How many pending bytes have been written to the file.
    written: usize,
    /// How many pending bytes belong to this file, even if it is renamed.
    kept: usize,
    /// An error left the file's length unknown; anything past the confirmed and written bytes must be cut
    /// off.
    length_unknown: bool,
    /// Kept bytes were cut off after an error and have not been rewritten while the file was in place.
    lost_kept: bool,
}

impl<F: AppendFile> DurableFile<F> {
    /// Opens `path` and treats its whole content as confirmed.
    ///
    /// # Errors
    /// A file operation failed.
    pub fn open<S: Storage<File = F>>(storage: &S, path: &Path) -> io::Result<Self> {
        let file = storage.open_append(path)?;
        let Stat { len, inode, .. } = file.stat()?;
        let tail = storage.read_range(path, len.saturating_sub(TAIL_BYTES), TAIL_BYTES)?;
        Ok(Self {
            path: path.to_path_buf(),
            file,
            inode,
            confirmed: len,
            tail,
            pending: Vec::new(),
            written: 0,
            kept: 0,
            length_unknown: false,
            lost_kept: false,
        })
    }

    /// Appends `bytes` to the pending bytes and leaves an empty buffer in exchange.
    pub fn push(&mut self, bytes: &mut Vec<u8>) {
        if self.pending.is_empty() {
            std::mem::swap(&mut self.pending, bytes);
        } else {
            self.pending.append(bytes);
        }
        // The buffer is reused, so give back the memory of a huge record, and of a backlog once it is gone.
        bytes.shrink_to((4 * self.pending.len()).clamp(BUFFER_MIN_BYTES, BUFFER_MAX_BYTES));
    }

    /// Hands all pending bytes to the kernel.
    ///
    /// # Errors
    /// The write failed. The file is cut back to its previous content, now or at the next call; the pending
    /// bytes stay in memory.
    pub fn write(&mut self) -> io::Result<()> {
        self.repair_length()?;
        if self.written == self.pending.len() {
            return Ok(());
        }
        let result = self.file.append(&self.pending[self.written..]);
        self.settle(result)?;
        self.written = self.pending.len();
        Ok(())
    }

    /// Declares that the written bytes belong to this file from now on.
    pub fn keep(&mut self) {
        (self.kept, self.lost_kept) = (self.written, false);
    }

    /// True if bytes that belong to this file were cut off after an error.
    pub fn has_lost_kept(&self) -> bool {
        self.lost_kept
    }

    /// Declares that no unconfirmed bytes belong to this file any more.
    pub fn disown(&mut self) {
        (self.kept, self.lost_kept) = (0, false);
    }

    /// Verifies that all bytes that belong to this file are in it: on disk with `sync`, otherwise in the
    /// kernel.
    ///
    /// # Errors
    /// The fsync failed, or another program changed the file. After a failed fsync the kernel may have
    /// dropped the bytes, so the file is cut back to the confirmed bytes and all others are written again.
    pub fn verify(&mut self, sync: bool) -> io::Result<()> {
        if self.kept == 0 {
            return Ok(());
        }
        assert!(self.written >= self.kept, "only written bytes can be verified");
        if sync {
            let result = self.file.sync().inspect_err(|_| self.discard_unconfirmed());
            self.settle(result)?;
        }
        // A second writer, or a tool that truncates the file (logrotate's copytruncate), would invalidate
        // every later mark. Better to notice that here than at the next start.
        let (len, expected) = (self.file.stat()?.len, self.confirmed + self.written as u64);
        if len != expected {
            self.discard_unconfirmed();
            return Err(io::Error::other(format!(
                "it has {len} bytes instead of {expected}: another program writes to it or truncates it \
                 (use rename and SIGHUP instead of copytruncate)"
            )));
        }
        Ok(())
    }

    /// Marks the verified bytes as confirmed.
    pub fn confirm(&mut self) {
        self.remember_tail();
        self.confirmed += self.kept as u64;
        self.pending.drain(..self.kept);
        self.written -= self.kept;
        self.kept = 0;
    }

    /// Continues in a new file at the same path. Pending bytes are cut off the old file and will be written
    /// to the new one.
    ///
    /// # Errors
    /// A file operation failed, or the file at the path is not empty. The old file stays in use.
    pub fn start_new<S: Storage<File = F>>(&mut self, storage: &S) -> io::Result<()> {
        if self.written > 0 {
            self.discard_unconfirmed();
        }
        self.repair_length()?;
        let mut next = Self::open(storage, &self.path)?;
        if next.confirmed > 0 {
            return Err(io::Error::other(format!(
                "another file with {} bytes is in its place: move it away, or put the right one back",
                next.confirmed
            )));
        }
        next.pending = std::mem::take(&mut self.pending);
        *self = next;
        Ok(())
    }

    /// Where the open file is now.
    ///
    /// # Errors
    /// A system call failed.
    pub fn place<S: Storage<File = F>>(&self, storage: &S) -> io::Result<Place> {
        Ok(match self.in_place(storage)? {
            true => Place::AtPath,
            false if self.file.stat()?.links == 0 => Place::Deleted,
            false => Place::Moved,
        })
    }

    /// True if the open file is still the one at its path.
    ///
    /// # Errors
    /// A system call failed.
    pub fn in_place<S: Storage<File = F>>(&self, storage: &S) -> io::Result<bool> {
        Ok(storage.stat(&self.path)?.is_some_and(|stat| stat.inode == self.inode))
    }

    /// The confirmed state, for the checkpoint.
    pub fn mark(&self) -> FileMark {
        FileMark {
            name: self.path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            bytes: self.confirmed,
            inode: self.inode,
            tail_crc: tail_crc(&self.tail),
        }
    }

    /// Where it is, unless another program moved it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Number of confirmed and pending bytes.
    pub fn bytes(&self) -> u64 {
        self.confirmed + self.pending.len() as u64
    }

    /// Number of bytes that are not confirmed yet.
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    /// Forces everything written to disk, including bytes that were confirmed without fsync.
    ///
    /// # Errors
    /// The fsync failed.
    pub fn sync(&mut self) -> io::Result<()> {
        self.file.sync()
    }

    fn settle(&mut self, result: io::Result<()>) -> io::Result<()> {
        if result.is_err() {
            self.length_unknown = true;
            // Report the first error; if cutting the file fails too, it is retried before the next write.
            let _ = self.repair_length();
        }
        result
    }

    /// Discards all unconfirmed bytes from the file, now or before the next write.
    fn discard_unconfirmed(&mut self) {
        self.lost_kept |= self.kept > 0;
        (self.length_unknown, self.written) = (true, 0);
    }

    fn repair_length(&mut self) -> io::Result<()> {
        if !self.length_unknown {
            return Ok(());
        }
        let len = self.file.stat()?.len;
        if len < self.confirmed {
            return Err(io::Error::other(format!(
                "it has {len} bytes, but {} were confirmed: another program truncated it; put them back, or \
                 stop the consumer, move the file and its checkpoint away, and start again",
                self.confirmed
            )));
        }
        if len < self.confirmed + self.written as u64 {
            self.discard_unconfirmed();
        }
        self.file.set_len(self.confirmed + self.written as u64)?;
        self.length_unknown = false;
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
