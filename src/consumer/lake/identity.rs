//! Notices when another directory is in the place of the lake, for example because its file system is not mounted.
//!
//! A lake has an id, in its file `_lake`. The file `events.log.lake` beside the log says to which lake logs have gone.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::consumer::lake::fault;
use crate::consumer::log::forward::ForwardError;
use crate::consumer::log::storage::{Disk, beside, replace};

/// Where the two ids are.
#[derive(Clone, Debug)]
pub struct Identity {
    root: PathBuf,
    /// The id of the lake.
    own: PathBuf,
    /// The id of the lake that logs have gone to, and its directory.
    used: PathBuf,
}

impl Identity {
    /// Of the lake in `root`, for the closed logs of `log`.
    pub fn new(root: &Path, log: &Path) -> Self {
        Self { root: root.to_owned(), own: root.join("_lake"), used: beside(log, ".lake") }
    }

    /// True if logs have gone to a lake in this directory before, so that it must be there.
    ///
    /// # Errors
    /// The file beside the log cannot be read.
    pub fn is_used(&self) -> Result<bool, ForwardError> {
        self.used_id().map(|id| id.is_some())
    }

    /// Compares the two ids, and writes those that are missing in a lake that is used for the first time.
    ///
    /// # Errors
    /// Logs have gone to another lake in this directory, or a file cannot be read or written.
    pub fn check(&self) -> Result<(), ForwardError> {
        let (used, own) = (self.used_id()?, self.own_id()?);
        match (&used, &own) {
            (Some(used), Some(own)) if used == own => Ok(()),
            (Some(_), own) => {
                let what = if own.is_some() { "is another lake than the one" } else { "is not the lake" };
                Err(ForwardError::Place(format!(
                    "LAKE_DIR={} {what} that logs have gone to: is its file system mounted? If a new lake is meant, \
                     remove {}",
                    self.root.display(),
                    self.used.display()
                )))
            }
            (None, own) => self.begin(own.as_deref()),
        }
    }

    /// Begins to use the lake whose id is `own`; one without an id gets one.
    fn begin(&self, own: Option<&str>) -> Result<(), ForwardError> {
        if own.is_none() {
            let id = format!("{:032x}\n", fastrand::u128(..));
            replace(&Disk, &self.own, id.as_bytes(), true)
                .map_err(|error| fault::of_lake("write", &self.own, &error))?;
        }
        // Another consumer may have begun at the same time.
        let Some(id) = self.own_id()? else { return Ok(()) };
        let text = format!("{id} {}\n", self.root.display());
        replace(&Disk, &self.used, text.as_bytes(), true)
            .map_err(|error| fault::of_lake("write", &self.used, &error))
    }

    fn own_id(&self) -> Result<Option<String>, ForwardError> {
        read(&self.own)
    }

    /// A change of LAKE_DIR is meant, so what is known of another directory does not count.
    fn used_id(&self) -> Result<Option<String>, ForwardError> {
        let text = read(&self.used)?;
        let of_this = text.as_ref().and_then(|text| text.split_once(' '));
        let of_this = of_this.filter(|(_, dir)| *dir == self.root.display().to_string());
        Ok(of_this.map(|(id, _)| id.to_owned()))
    }
}

/// The only line of a file; `None` if there is no file.
fn read(path: &Path) -> Result<Option<String>, ForwardError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text.trim_end_matches('\n').to_owned())),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(None)
        }
        Err(error) => Err(fault::of_lake("read", path, &error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lake_that_is_not_there_any_more_is_not_replaced_by_an_empty_directory() {
        let dir = tempfile::tempdir().expect("directory");
        let (root, log) = (dir.path().join("lake"), dir.path().join("events.log"));
        let identity = Identity::new(&root, &log);
        fs::create_dir(&root).expect("created");
        assert_eq!(identity.is_used(), Ok(false));
        for _ in 0..2 {
            assert_eq!((identity.check(), identity.is_used()), (Ok(()), Ok(true)));
        }
        // Another consumer, whose log has another name, shares it.
        assert_eq!(Identity::new(&root, &dir.path().join("events-1.log")).check(), Ok(()));
        let mounted = fs::read(root.join("_lake")).expect("read");
        fs::remove_file(root.join("_lake")).expect("removed");
        for own in [None, Some("of another\n")] {
            own.iter().for_each(|own| fs::write(root.join("_lake"), own).expect("written"));
            let Err(ForwardError::Place(reason)) = identity.check() else { panic!("taken for the lake") };
            assert!(
                reason.contains("is its file system mounted") && reason.contains("events.log.lake"),
                "{reason}"
            );
        }
        fs::write(root.join("_lake"), mounted).expect("written");
        assert_eq!(identity.check(), Ok(()));
    }

    #[test]
    fn another_directory_is_meant() {
        let dir = tempfile::tempdir().expect("directory");
        let log = dir.path().join("events.log");
        for root in ["one", "two", "one"].map(|name| dir.path().join(name)) {
            fs::create_dir_all(&root).expect("created");
            assert_eq!(Identity::new(&root, &log).check(), Ok(()));
        }
    }
}
