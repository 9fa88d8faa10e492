//! The place where the audit looks for events: a log with its rotated files, or a lake.

use std::io;
use std::path::{Path, PathBuf};

#[cfg(feature = "lake")]
use crate::simulate::lake_files;
use crate::simulate::log_files::{self, Mark, Seen};
use crate::simulate::piece::Piece;

/// A log, or the directory of a lake.
pub struct Place {
    path: PathBuf,
    log: Mark,
    #[cfg(feature = "lake")]
    lake: lake_files::Mark,
}

impl Place {
    /// Everything that is at `path`.
    pub fn whole(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            log: Mark::default(),
            #[cfg(feature = "lake")]
            lake: lake_files::Mark::default(),
        }
    }

    /// What comes to `path` from now on.
    ///
    /// # Errors
    /// A file or directory cannot be read.
    pub fn from_now_on(path: &Path) -> io::Result<Self> {
        let mut place = Self::whole(path);
        #[cfg(feature = "lake")]
        if path.is_dir() {
            place.lake = lake_files::Mark::take(path)?;
            return Ok(place);
        }
        place.log = Mark::take(path)?;
        Ok(place)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The files that there are now; the same as before if nothing has changed.
    ///
    /// # Errors
    /// A directory cannot be read.
    pub fn list(&self) -> io::Result<Vec<Seen>> {
        #[cfg(feature = "lake")]
        if self.path.is_dir() {
            return lake_files::list(&self.path);
        }
        log_files::list(&self.path)
    }

    /// Passes everything that is new to `take`.
    ///
    /// # Errors
    /// A file cannot be read or decompressed.
    pub fn read(&self, take: impl FnMut(Piece<'_>)) -> io::Result<()> {
        #[cfg(feature = "lake")]
        if self.path.is_dir() {
            return lake_files::read(&self.path, &self.lake, take);
        }
        log_files::read(&self.path, &self.log, take)
    }
}
