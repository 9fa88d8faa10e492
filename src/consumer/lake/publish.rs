//! Gives a file its name in the lake once it is complete and on the disk, so that readers see all of it or nothing.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::consumer::lake::fault;
use crate::consumer::log::forward::ForwardError;
use crate::consumer::log::storage::{Disk, Storage, parent};
use crate::{hex, sha256};

/// Write buffer of a file, in bytes.
const BUFFER_BYTES: usize = 256 << 10;

/// A file without its name, which is removed when this is dropped.
#[derive(Debug)]
struct Unnamed(PathBuf);

impl Drop for Unnamed {
    fn drop(&mut self) {
        // Once it has its name, there is nothing here.
        let _ = fs::remove_file(&self.0);
    }
}

/// A file that is being written, under a name that readers skip.
pub struct Part {
    path: Unnamed,
    file: BufWriter<File>,
    digest: Sha256,
    bytes: u64,
}

impl Part {
    /// Begins the file at `path`, and replaces what an earlier attempt has left there.
    ///
    /// # Errors
    /// The file cannot be created.
    pub fn create(path: PathBuf) -> io::Result<Self> {
        let file = BufWriter::with_capacity(BUFFER_BYTES, File::create(&path)?);
        Ok(Self { path: Unnamed(path), file, digest: Sha256::new(), bytes: 0 })
    }

    /// Completes the file: forces it to the disk, and reads it back.
    ///
    /// # Errors
    /// It cannot be written, or what is read is not what was written.
    pub fn finish(mut self) -> io::Result<Complete> {
        self.file.flush()?;
        self.file.get_ref().sync_all()?;
        let written = hex::encode(&self.digest.finalize());
        let read = sha256::of_file(&self.path.0)?;
        if read != written {
            return Err(io::Error::other("what is read back is not what was written: check the disk"));
        }
        Ok(Complete { path: self.path, bytes: self.bytes, sha256: written })
    }
}

impl Write for Part {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_all(bytes).map(|()| bytes.len())
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.digest.update(bytes);
        self.bytes += bytes.len() as u64;
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// A complete file without its name.
#[derive(Debug)]
pub struct Complete {
    path: Unnamed,
    /// Its size.
    pub bytes: u64,
    /// SHA-256 of its content.
    pub sha256: String,
}

impl Complete {
    /// Where it is as long as it has no name.
    pub fn path(&self) -> &Path {
        &self.path.0
    }

    /// Names the file `target`, durably. A file that is there already stays if it has the same bytes, and is replaced if
    /// `is_ours` says that it has the same events.
    ///
    /// # Errors
    /// There is another file, or the file system fails.
    pub fn publish(
        self,
        target: &Path,
        is_ours: impl FnOnce(&Path) -> io::Result<bool>,
    ) -> Result<(), ForwardError> {
        let named = |what: &'static str| move |error: io::Error| fault::of_lake(what, target, &error);
        fs::create_dir_all(parent(target)).map_err(named("create the directory of"))?;
        let is_there = fs::symlink_metadata(target).is_ok();
        // What cannot be read, such as a directory, is not a file of ours either.
        let is_same = is_there && sha256::of_file(target).is_ok_and(|sum| sum == self.sha256);
        if is_there && !is_same && !is_ours(target).unwrap_or(false) {
            return Err(ForwardError::Log(format!(
                "{} exists and has other content than the closed log of this name: move it away, or give each \
                 consumer another LOG_FILE name if they share LAKE_DIR",
                target.display()
            )));
        }
        if !is_same {
            fs::rename(&self.path.0, target).map_err(named("rename a file to"))?;
        }
        sync_up(target).map_err(named("fsync the directories of"))
    }
}

/// Creates a directory with all that are missing above it, durably.
///
/// # Errors
/// One cannot be created, or forced to the disk.
pub fn create_durably(dir: &Path) -> io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    create_durably(parent(dir))?;
    match fs::create_dir(dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Disk.sync_dir(parent(dir)),
    }
}

/// Forces the entries of a file, of its directory, and of the directory above it to the disk.
fn sync_up(path: &Path) -> io::Result<()> {
    let dirs = path.ancestors().skip(1).take(3);
    // What is above a relative path is the current directory.
    dirs.map(|dir| if dir.as_os_str().is_empty() { Path::new(".") } else { dir })
        .try_for_each(|dir| Disk.sync_dir(dir))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complete(dir: &Path, text: &str) -> Complete {
        let mut part = Part::create(dir.join("new.part")).expect("created");
        part.write_all(text.as_bytes()).expect("written");
        part.finish().expect("complete")
    }

    #[test]
    fn a_name_is_given_once_and_other_content_is_never_replaced() {
        let dir = tempfile::tempdir().expect("directory");
        let target = dir.path().join("dt=2025-07-08/hour=00/a");
        let publish =
            |text: &str, is_ours: bool| complete(dir.path(), text).publish(&target, |_| Ok(is_ours));
        for _ in 0..2 {
            publish("one", false).expect("the same bytes");
        }
        let Err(ForwardError::Log(reason)) = publish("two", false) else { panic!("replaced") };
        assert!(reason.contains("hour=00/a exists"), "{reason}");
        assert_eq!(fs::read_to_string(&target).expect("read"), "one");
        publish("two", true).expect("replaced");
        assert_eq!(fs::read_to_string(&target).expect("read"), "two");
        assert_eq!(fs::read_dir(dir.path()).expect("list").count(), 1, "no part is left");
        assert!(sha256::of_file(&target).expect("read").starts_with("3fc4ccfe"));
    }
}
