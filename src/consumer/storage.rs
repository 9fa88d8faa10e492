//! The file operations that the promise rests on, as a seam: the power-cut test stops after each of them.
//!
//! Knows nothing of events, offsets or checkpoints.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// What a directory entry is. Links are not followed: renaming one would leave its file where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// Bytes in the file.
    pub len: u64,
    /// Inode number: two names with the same one are the same file at that moment.
    pub inode: u64,
    /// Names that lead to it.
    pub links: u64,
    /// A regular file, not a directory, pipe or link.
    pub is_file: bool,
}

impl Stat {
    fn of(meta: &fs::Metadata) -> Self {
        Self { len: meta.len(), inode: meta.ino(), links: meta.nlink(), is_file: meta.is_file() }
    }
}

/// A file open for appending. Its writer is the only one.
pub trait AppendFile: Send {
    /// Appends all of `bytes`.
    ///
    /// # Errors
    /// Any part of `bytes` may be in the file then.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Returns when the content is on the disk.
    ///
    /// # Errors
    /// Nothing that was appended since the last success may be relied on then, and a second call proves nothing.
    fn sync(&mut self) -> io::Result<()>;

    /// Cuts the file.
    ///
    /// # Errors
    /// The length is unknown then.
    fn set_len(&mut self, len: u64) -> io::Result<()>;

    /// What is open, wherever it stands by now.
    ///
    /// # Errors
    /// As the system says.
    fn stat(&self) -> io::Result<Stat>;
}

/// A file system. Only `sync_dir` makes creations, renames and removals durable.
pub trait Storage: Send {
    /// An open file.
    type File: AppendFile;

    /// Opens the regular file at `path` for appending; creates it when missing.
    ///
    /// # Errors
    /// As the system says; so for all the others.
    fn open_append(&self, path: &Path) -> io::Result<Self::File>;

    /// What is at `path`, if anything is.
    fn stat(&self, path: &Path) -> io::Result<Option<Stat>>;

    /// Up to `len` bytes of `path` from `from` on.
    fn read_range(&self, path: &Path, from: u64, len: u64) -> io::Result<Vec<u8>>;

    /// Makes `path` hold exactly `bytes`, and with `sync` waits until they are on the disk.
    fn write(&self, path: &Path, bytes: &[u8], sync: bool) -> io::Result<()>;

    /// Renames a file over any that stands at `to`.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Makes the entries of `dir` durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// Names of the files in `dir`.
    fn names(&self, dir: &Path) -> io::Result<Vec<String>>;
}

/// Replaces `path` by `bytes` so that a crash leaves the old or the new content, never a mixture.
///
/// # Errors
/// The old or the new content stands there then.
pub fn replace<S: Storage>(storage: &S, path: &Path, bytes: &[u8], durably: bool) -> io::Result<()> {
    let temporary = beside(path, ".tmp");
    storage.write(&temporary, bytes, durably)?;
    storage.rename(&temporary, path)?;
    if durably {
        storage.sync_dir(parent(path))?;
    }
    Ok(())
}

/// `path` with `suffix` at the end of its name.
pub fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// The directory that holds `path`.
pub fn parent(path: &Path) -> &Path {
    path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// The real file system.
#[derive(Clone, Copy, Debug, Default)]
pub struct Disk;

impl Storage for Disk {
    type File = File;

    fn open_append(&self, path: &Path) -> io::Result<File> {
        // Without NONBLOCK a pipe would wait for a reader.
        let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
        let file = OpenOptions::new().append(true).create(true).custom_flags(flags).open(path)?;
        if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("it is not a regular file")) }
    }

    fn stat(&self, path: &Path) -> io::Result<Option<Stat>> {
        match fs::symlink_metadata(path) {
            Ok(meta) => Ok(Some(Stat::of(&meta))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn read_range(&self, path: &Path, from: u64, len: u64) -> io::Result<Vec<u8>> {
        let file = File::open(path)?;
        let have = file.metadata()?.len().saturating_sub(from).min(len);
        let mut bytes = vec![0; usize::try_from(have).map_err(io::Error::other)?];
        file.read_exact_at(&mut bytes, from)?;
        Ok(bytes)
    }

    fn write(&self, path: &Path, bytes: &[u8], sync: bool) -> io::Result<()> {
        let mut file = File::create(path)?;
        file.write_all(bytes)?;
        if sync { file.sync_all() } else { Ok(()) }
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }

    fn names(&self, dir: &Path) -> io::Result<Vec<String>> {
        let entries = fs::read_dir(dir)?.collect::<io::Result<Vec<_>>>()?;
        Ok(entries.iter().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect())
    }
}

impl AppendFile for File {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write_all(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }

    fn set_len(&mut self, len: u64) -> io::Result<()> {
        File::set_len(self, len)
    }

    fn stat(&self) -> io::Result<Stat> {
        self.metadata().map(|meta| Stat::of(&meta))
    }
}
