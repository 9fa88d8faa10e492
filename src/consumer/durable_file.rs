//! One append-only file of which we always know how many bytes can be relied on.
//!
//! Bytes that are not yet on the disk stay in memory as well: after any error the file is cut back to what is
//! sure and they are written again. Knows nothing of offsets.

use std::io;
use std::path::{Path, PathBuf};

use super::checkpoint::{FileMark, TAIL_BYTES, tail_crc};
use super::storage::{AppendFile, Stat, Storage};

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
    /// An error left the file's length unknown.
    uncertain: bool,
}

impl<F: AppendFile> DurableFile<F> {
    /// Opens `path`, whose whole content is taken as sure.
    ///
    /// # Errors
    /// As the system says.
    pub fn open<S: Storage<File = F>>(storage: &S, path: &Path) -> io::Result<Self> {
        let file = storage.open_append(path)?;
        let Stat { len, inode } = file.stat()?;
        let tail = storage.read_range(path, len.saturating_sub(TAIL_BYTES), TAIL_BYTES)?;
        Ok(Self {
            path: path.to_path_buf(),
            file,
            inode,
            sure: len,
            tail,
            pending: Vec::new(),
            written: 0,
            uncertain: false,
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
    /// The file is cut back to the sure bytes, now or at the next call; nothing is forgotten.
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

    /// Proves that what was written is all there: on the disk with `sync`, else in the kernel's hands.
    ///
    /// # Errors
    /// As for [`Self::write`]: after a failed fsync the kernel may have dropped the bytes, so they are
    /// written again.
    pub fn prove(&mut self, sync: bool) -> io::Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        assert_eq!(self.written, self.pending.len(), "only written bytes can be proved");
        if sync {
            let result = self.file.sync();
            self.settle(result)?;
        }
        // Two writers, or a tool that cuts the file under us (logrotate's copytruncate), would shift every
        // later mark: better to notice here than at the next start.
        let len = self.file.stat()?.len;
        if len != self.bytes() {
            self.uncertain = true;
            return Err(io::Error::other(format!(
                "it has {len} bytes instead of {}: another program writes to it or cuts it \
                 (use rename and SIGHUP instead of copytruncate)",
                self.bytes()
            )));
        }
        Ok(())
    }

    /// Counts what was proved as sure.
    pub fn accept(&mut self) {
        self.sure = self.bytes();
        self.remember_tail();
        self.pending.clear();
        self.written = 0;
    }

    /// Cuts off what is not sure; it will be written again.
    ///
    /// # Errors
    /// As the system says; tried again before the next write.
    pub fn roll_back(&mut self) -> io::Result<()> {
        if self.written > 0 {
            self.uncertain = true;
        }
        self.make_certain()
    }

    /// Goes on in a new file at the same path; what is pending moves there.
    ///
    /// # Errors
    /// The old file stays in use then. A file with content at the path is refused.
    pub fn start_anew<S: Storage<File = F>>(&mut self, storage: &S) -> io::Result<()> {
        self.roll_back()?;
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

    fn make_certain(&mut self) -> io::Result<()> {
        if !self.uncertain {
            return Ok(());
        }
        self.written = 0;
        let len = self.file.stat()?.len;
        if len < self.sure {
            return Err(io::Error::other(format!(
                "it has {len} bytes, {} were sure: another program cut it; put them back, or stop the \
                 consumer, move the file and its checkpoint away, and start again",
                self.sure
            )));
        }
        self.file.set_len(self.sure)?;
        self.uncertain = false;
        Ok(())
    }

    fn remember_tail(&mut self) {
        let keep = TAIL_BYTES as usize;
        let from_pending = self.pending.len().min(keep);
        let excess = (self.tail.len() + from_pending).saturating_sub(keep);
        self.tail.drain(..excess.min(self.tail.len()));
        self.tail.extend_from_slice(&self.pending[self.pending.len() - from_pending..]);
    }
}
