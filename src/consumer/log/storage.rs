//! Abstracts the file operations that durability depends on, so that tests can cut the power after each one.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::consumer::destination::DestinationError;

/// Metadata of a directory entry. Links are not followed, because renaming a link would not move its target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// Bytes in the file.
    pub len: u64,
    /// Inode number: two names with the same number are the same file at that moment.
    pub inode: u64,
    /// Number of names (hard links) of the file.
    pub links: u64,
    /// True for a regular file, false for a directory, pipe or link.
    pub is_file: bool,
    /// Time of the last change of its content, in milliseconds since the epoch.
    pub modified: i64,
}

impl Stat {
    fn of(meta: &fs::Metadata) -> Self {
        Self {
            len: meta.len(),
            inode: meta.ino(),
            links: meta.nlink(),
            is_file: meta.is_file(),
            modified: meta.mtime().saturating_mul(1000),
        }
    }
}

/// A file open for appending, with a single writer.
pub trait AppendFile: Send {
    /// Appends all of `bytes`.
    ///
    /// # Errors
    /// The write failed; any part of `bytes` may be in the file.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Waits until the content is on disk.
    ///
    /// # Errors
    /// The sync failed. Nothing appended since the last successful sync can be relied on, even if a later
    /// call succeeds.
    fn sync(&mut self) -> io::Result<()>;

    /// Truncates the file to `len` bytes.
    ///
    /// # Errors
    /// The operation failed; the length is unknown.
    fn set_len(&mut self, len: u64) -> io::Result<()>;

    /// Metadata of the open file, even if it has been renamed or deleted.
    ///
    /// # Errors
    /// The system call failed.
    fn stat(&self) -> io::Result<Stat>;
}

/// A file system. Creations, renames and removals become durable only with `sync_dir`.
pub trait Storage: Send {
    /// An open file.
    type File: AppendFile;

    /// Opens the regular file at `path` for appending and creates it if it is missing.
    ///
    /// # Errors
    /// The system call failed. The same applies to all other methods.
    fn open_append(&self, path: &Path) -> io::Result<Self::File>;

    /// Metadata of the entry at `path`; `None` if there is none.
    fn stat(&self, path: &Path) -> io::Result<Option<Stat>>;

    /// Reads up to `len` bytes of `path`, starting at `from`.
    fn read_range(&self, path: &Path, from: u64, len: u64) -> io::Result<Vec<u8>>;

    /// Replaces the content of `path` with `bytes`; with `sync`, waits until they are on disk.
    fn write(&self, path: &Path, bytes: &[u8], sync: bool) -> io::Result<()>;

    /// Renames a file, replacing any file at `to`.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes changes to the entries of `dir` durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// Lists the names in `dir`.
    fn names(&self, dir: &Path) -> io::Result<Vec<String>>;
}

/// True if the log was closed under the name `to`, which the archiver may have compressed already.
///
/// # Errors
/// A file operation failed.
pub fn is_closed<S: Storage>(storage: &S, to: &Path) -> Result<bool, DestinationError> {
    let packed = beside(to, ".gz");
    Ok(doing("inspect", to, storage.stat(to))?.is_some()
        || doing("inspect", &packed, storage.stat(&packed))?.is_some())
}

/// Replaces the content of `path` with `bytes`, so that a crash leaves the old or the new content, never a
/// mixture.
///
/// # Errors
/// A file operation failed; `path` has the old or the new content.
pub fn replace<S: Storage>(storage: &S, path: &Path, bytes: &[u8], durably: bool) -> io::Result<()> {
    let temporary = beside(path, ".tmp");
    storage.write(&temporary, bytes, durably)?;
    storage.rename(&temporary, path)?;
    if durably {
        storage.sync_dir(parent(path))?;
    }
    Ok(())
}

/// Cuts the file at `path` to `len` bytes, durably.
///
/// # Errors
/// A file operation failed.
pub fn cut<S: Storage>(storage: &S, path: &Path, len: u64) -> Result<(), DestinationError> {
    let mut file = doing("open", path, storage.open_append(path))?;
    doing("cut", path, file.set_len(len))?;
    doing("fsync", path, file.sync())
}

/// Adds to an error what was being done to which file. It is worth a retry.
pub fn doing<T>(what: &str, path: &Path, result: io::Result<T>) -> Result<T, DestinationError> {
    result.map_err(|error| {
        let hint = match error.kind() {
            io::ErrorKind::FileTooLarge => {
                "; raise the limit (`ulimit -f`, LimitFSIZE= of systemd), or rotate earlier with LOG_ROTATE_BYTES"
            }
            _ => "",
        };
        DestinationError::Retryable(format!("{what} {}: {error}{hint}", path.display()))
    })
}

/// `path` with `suffix` appended to its name.
pub fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// The directory that contains `path`.
pub fn parent(path: &Path) -> &Path {
    path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// The real file system.
#[derive(Clone, Copy, Debug, Default)]
pub struct Disk;

impl Storage for Disk {
    type File = File;

    fn open_append(&self, path: &Path) -> io::Result<File> {
        // Without O_NONBLOCK, opening a pipe would wait for a reader.
        let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
        let file = OpenOptions::new().append(true).create(true).custom_flags(flags).open(path)?;
        if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("not a regular file")) }
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

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
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
