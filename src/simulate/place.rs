//! The places where the audit looks for events: logs with their rotated files, or lakes.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

#[cfg(feature = "lake")]
use crate::simulate::lake_files;
use crate::simulate::log_files::{self, Mark, Seen};
use crate::simulate::piece::Piece;

/// Logs and lakes, of which each event should be in exactly one.
pub struct Places(Vec<Place>);

impl Places {
    /// Everything that is at `paths`.
    ///
    /// # Errors
    /// Text for the user: one of the paths is part of another one.
    pub fn whole(paths: &[PathBuf]) -> Result<Self, String> {
        check(paths)?;
        Ok(Self(paths.iter().map(|path| Place::whole(path)).collect()))
    }

    /// What comes to `paths` from now on.
    ///
    /// # Errors
    /// Text for the user: one of the paths is part of another one, or cannot be read.
    pub fn from_now_on(paths: &[PathBuf]) -> Result<Self, String> {
        check(paths)?;
        let places = paths.iter().map(|path| {
            Place::from_now_on(path).map_err(|error| format!("--verify {}: {error}", path.display()))
        });
        places.collect::<Result<_, _>>().map(Self)
    }

    /// The files that there are now; the same as before if nothing has changed.
    ///
    /// # Errors
    /// A directory cannot be read.
    pub fn list(&self) -> io::Result<Vec<Seen>> {
        let lists = self.0.iter().map(Place::list).collect::<io::Result<Vec<_>>>()?;
        Ok(lists.into_iter().flatten().collect())
    }

    /// Passes everything that is new to `take`, one place after the other.
    ///
    /// # Errors
    /// A file cannot be read or decompressed.
    pub fn read(&self, mut take: impl FnMut(Piece<'_>)) -> io::Result<()> {
        self.0.iter().try_for_each(|place| {
            take(Piece::Begin);
            place.read(&mut take)
        })
    }
}

impl fmt::Display for Places {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let paths: Vec<_> = self.0.iter().map(|place| place.path.display().to_string()).collect();
        f.write_str(&paths.join(", "))
    }
}

/// Checks that no path is another one, or one of its rotated files: every event there would be counted twice.
fn check(paths: &[PathBuf]) -> Result<(), String> {
    let is_part_of = |one: &Path, other: &Path| one == other || log_files::is_file_of(other, one);
    for (index, one) in paths.iter().enumerate() {
        let mut others = paths[..index].iter();
        if let Some(other) = others.find(|other| is_part_of(one, other) || is_part_of(other, one)) {
            return Err(format!(
                "--verify {} and --verify {} have the same events; name each log once",
                other.display(),
                one.display()
            ));
        }
    }
    Ok(())
}

/// A log, or the directory of a lake.
struct Place {
    path: PathBuf,
    log: Mark,
    #[cfg(feature = "lake")]
    lake: lake_files::Mark,
}

impl Place {
    /// Everything that is at `path`.
    fn whole(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            log: Mark::default(),
            #[cfg(feature = "lake")]
            lake: lake_files::Mark::default(),
        }
    }

    /// What comes to `path` from now on.
    fn from_now_on(path: &Path) -> io::Result<Self> {
        let mut place = Self::whole(path);
        #[cfg(feature = "lake")]
        if path.is_dir() {
            place.lake = lake_files::Mark::take(path)?;
            return Ok(place);
        }
        place.log = Mark::take(path)?;
        Ok(place)
    }

    fn list(&self) -> io::Result<Vec<Seen>> {
        #[cfg(feature = "lake")]
        if self.path.is_dir() {
            return lake_files::list(&self.path);
        }
        log_files::list(&self.path)
    }

    fn read(&self, take: impl FnMut(Piece<'_>)) -> io::Result<()> {
        #[cfg(feature = "lake")]
        if self.path.is_dir() {
            return lake_files::read(&self.path, &self.lake, take);
        }
        log_files::read(&self.path, &self.log, take)
    }
}
