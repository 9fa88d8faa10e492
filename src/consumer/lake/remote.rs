//! A copy of the lake in another place, which gets each file before its log may be removed.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::consumer::lake::fault;
use crate::consumer::lake::manifest::{Entry, Manifest};
use crate::consumer::lake::metrics::LakeMetrics;
use crate::consumer::lake::paths::LakePaths;
use crate::consumer::log::forward::ForwardError;

/// A complete file that is to be copied.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(not(feature = "s3"), allow(dead_code, reason = "all places are features"))]
pub struct Object<'a> {
    /// Where it is.
    pub file: &'a Path,
    /// Its path below the root of the lake.
    pub path: &'a str,
    /// Its size.
    pub bytes: u64,
    /// SHA-256 of its content, in hexadecimal digits.
    pub sha256: &'a str,
    /// SHA-256 of the lines of the log that it is made of.
    pub log_sha256: &'a str,
}

/// A place that has a copy of each file.
pub trait Remote: Send + Sync {
    /// Finds out whether files can be brought there.
    ///
    /// # Errors
    /// They cannot.
    fn check(&self, stop: &dyn Fn() -> bool) -> Result<(), ForwardError>;

    /// Brings a file there, and proves that it is there.
    ///
    /// # Errors
    /// It could not be brought there, or there is another file in its place.
    fn put(&self, object: &Object<'_>, stop: &dyn Fn() -> bool) -> Result<(), ForwardError>;
}

/// The copies of a lake's files, if there is a place for them.
#[derive(Clone)]
pub struct Copies {
    remote: Option<Arc<dyn Remote>>,
    /// Files that were copied stay here too.
    keeps_files: bool,
    paths: LakePaths,
    metrics: LakeMetrics,
}

impl Copies {
    /// The copies at `remote` of the files in `paths`.
    pub fn new(
        remote: Option<Arc<dyn Remote>>,
        keeps_files: bool,
        paths: LakePaths,
        metrics: LakeMetrics,
    ) -> Self {
        Self { remote, keeps_files, paths, metrics }
    }

    /// Finds out whether files can be copied, before a log is converted for nothing.
    ///
    /// # Errors
    /// They cannot.
    pub fn check(&self) -> Result<(), ForwardError> {
        self.remote.iter().try_for_each(|remote| remote.check(&|| false))
    }

    /// Copies a file, and proves that the copy is there.
    ///
    /// # Errors
    /// It is not.
    pub fn add(&self, object: &Object<'_>, stop: &dyn Fn() -> bool) -> Result<(), ForwardError> {
        let Some(remote) = &self.remote else { return Ok(()) };
        remote.put(object, stop)?;
        self.metrics.uploads.inc();
        self.metrics.upload_bytes.inc_by(object.bytes);
        Ok(())
    }

    /// The same for all files of a log.
    ///
    /// # Errors
    /// One of them is not there.
    pub fn add_all(&self, manifest: &Manifest, stop: &dyn Fn() -> bool) -> Result<(), ForwardError> {
        for Entry { path, bytes, sha256, .. } in &manifest.files {
            let file = self.paths.root.join(path);
            let log_sha256 = &manifest.log_sha256;
            self.add(&Object { file: &file, path, bytes: *bytes, sha256, log_sha256 }, stop)?;
        }
        Ok(())
    }

    /// Removes the files of a log, all of whose copies are there, unless they are to stay.
    ///
    /// # Errors
    /// One cannot be removed.
    pub fn replace_files(&self, manifest: &Manifest) -> Result<(), ForwardError> {
        if self.remote.is_none() || self.keeps_files {
            return Ok(());
        }
        for entry in &manifest.files {
            let file = self.paths.root.join(&entry.path);
            match fs::remove_file(&file) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(fault::of_lake("remove", &file, &error));
                }
                _ => {}
            }
            // The directories of hour and day, unless they have other files.
            let _ = file.ancestors().skip(1).take(2).try_for_each(fs::remove_dir);
        }
        Ok(())
    }
}
