//! The lake as a place to which closed logs go: the steps for one log, in an order that allows a stop between any two.
//!
//! | a stop after | what the next attempt finds | what it does |
//! | --- | --- | --- |
//! | a file was begun | its part | removes the part, and starts again |
//! | some files have their names | these files, and no manifest | makes all files again, finds the same bytes in these |
//! | the manifest has its name | the manifest, and the log | compares the log with the manifest, and removes the log |
//!
//! So the manifest comes last: whatever else has to happen to the files of a log, such as a copy in S3, comes before it.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use crate::config::{Column, LakeConfig};
use crate::consumer::failure::Failure;
use crate::consumer::lake::convert::Conversion;
use crate::consumer::lake::fault;
use crate::consumer::lake::file::{Layout, Origin};
use crate::consumer::lake::identity::Identity;
use crate::consumer::lake::manifest::{Entry, Manifest};
use crate::consumer::lake::metrics::LakeMetrics;
use crate::consumer::lake::paths::{LakePaths, log_of_part};
use crate::consumer::lake::publish::{Complete, Part, create_durably};
use crate::consumer::lake::remote::{Copies, Object, Remote};
use crate::consumer::lake::survey::{Survey, checksum, survey};
use crate::consumer::log::forward::{Forward, ForwardError};
use crate::consumer::log::rotation::closed;
use crate::consumer::log::storage::{Disk, Storage};
use crate::consumer::state::State;

/// What the lake is called in problems.
const NAME: &str = "lake";

/// A lake in a directory.
#[derive(Clone)]
pub struct Lake {
    paths: LakePaths,
    layout: Arc<Layout>,
    columns: String,
    /// Name of the open log, from which the names of closed ones follow.
    log: String,
    copies: Copies,
    identity: Identity,
    state: Arc<State>,
    metrics: LakeMetrics,
    /// Parts of interrupted attempts were removed.
    is_clean: bool,
    /// Logs that are here and were not removed yet.
    known: BTreeSet<String>,
    /// Those of them that were brought here since the start: their checksums need not be computed again.
    proven: BTreeSet<String>,
}

impl Lake {
    /// The lake that `config` describes, for the closed logs of `log`, whose files are copied to `remote`; `None` if
    /// there is none.
    ///
    /// # Errors
    /// A column cannot have its name.
    pub fn new(
        config: &LakeConfig,
        log: &Path,
        state: &Arc<State>,
        remote: Option<Arc<dyn Remote>>,
    ) -> Result<Option<Self>, Failure> {
        let Some(root) = &config.dir else { return Ok(None) };
        let columns: &[Column] = config.columns();
        let layout = Layout::new(columns).map_err(|error| {
            Failure::bad_config(format!("LAKE_COLUMNS={}: {error}", config.columns_in_force()))
        })?;
        log::info!("closed logs go to the lake in {}", root.display());
        let paths = LakePaths { root: root.clone() };
        let metrics = LakeMetrics::new(&state.metrics.registry);
        let copies = Copies::new(remote, config.s3.keep_files, paths.clone(), metrics.clone());
        Ok(Some(Self {
            paths,
            layout: Arc::new(layout),
            columns: config.columns_in_force(),
            log: log.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            copies,
            identity: Identity::new(root, log),
            state: state.clone(),
            metrics,
            is_clean: false,
            known: BTreeSet::new(),
            proven: BTreeSet::new(),
        }))
    }

    /// Removes parts that an interrupted attempt for a log of ours has left. Other consumers may be writing theirs.
    fn remove_parts(&self) -> Result<(), ForwardError> {
        let parts = self.paths.parts();
        let named =
            |error: io::Error| fault::of_lake("remove what an interrupted attempt left in", &parts, &error);
        for entry in fs::read_dir(&parts).map_err(named)? {
            let entry = entry.map_err(named)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if log_of_part(&name).is_none_or(|log| closed(&self.log, log).is_none()) {
                continue;
            }
            fs::remove_file(entry.path()).map_err(named)?;
        }
        Ok(())
    }

    /// Reads what is in `log`, and writes its lines that are not events into a file of their own.
    fn survey(
        &self,
        log: &Path,
        name: &str,
        stop: &dyn Fn() -> bool,
    ) -> Result<(Survey, Option<Entry>), ForwardError> {
        let path = LakePaths::rejected(name);
        let part = self.paths.part(&path);
        let named = |error: io::Error| fault::of_lake("write", &part, &error);
        let mut rejects: Option<Part> = None;
        let found = survey(log, stop, |line| {
            if rejects.is_none() {
                rejects = Some(Part::create(part.clone()).map_err(named)?);
            }
            rejects.iter_mut().try_for_each(|file| file.write_all(line)).map_err(named)
        })?;
        let complete = rejects.map(Part::finish).transpose().map_err(named)?;
        let entry = complete.map(|file| self.publish(file, path, found.rejected)).transpose()?;
        if let Some(Entry { path, rows, .. }) = &entry {
            log::warn!(
                "{rows} lines of {} are not lines of events; they are in {}",
                log.display(),
                self.paths.root.join(path).display()
            );
        }
        Ok((found, entry))
    }

    /// Gives its name to a file that is not Parquet.
    fn publish(&self, file: Complete, path: String, rows: u64) -> Result<Entry, ForwardError> {
        let (bytes, sha256) = (file.bytes, file.sha256.clone());
        file.publish(&self.paths.root.join(&path), |_| Ok(false))?;
        Ok(Entry { path, rows, bytes, sha256, first_logged_at: None, last_logged_at: None })
    }

    fn read_manifest(&self, name: &str) -> Result<Manifest, ForwardError> {
        let path = self.paths.manifest(name);
        Manifest::read(&path).map_err(|error| {
            ForwardError::Log(format!("cannot read the manifest {}: {error}", path.display()))
        })
    }

    /// Writes the manifest, after which the log may be removed.
    fn write_manifest(&self, manifest: &Manifest, stop: &dyn Fn() -> bool) -> Result<(), ForwardError> {
        let path = self.paths.manifest(&manifest.log);
        let part = self.paths.part(&path.to_string_lossy());
        let written = Part::create(part.clone()).and_then(|mut file| {
            file.write_all(&manifest.encode())?;
            file.finish()
        });
        let file = written.map_err(|error| fault::of_lake("write", &part, &error))?;
        let below = path.strip_prefix(&self.paths.root).unwrap_or(&path).to_string_lossy();
        let (bytes, sha256) = (file.bytes, &file.sha256);
        let log_sha256 = &manifest.log_sha256;
        let object = Object { file: file.path(), path: &below, bytes, sha256, log_sha256 };
        self.copies.add(&object, stop)?;
        self.copies.replace_files(manifest)?;
        file.publish(&path, |_| Ok(false))
    }
}

impl Forward for Lake {
    fn prepare(&mut self) -> Result<(), ForwardError> {
        let root = &self.paths.root;
        let named = |what: &'static str| move |error: io::Error| fault::of_lake(what, root, &error);
        self.copies.check()?;
        if !self.is_clean && !self.identity.is_used()? {
            create_durably(root).map_err(named("create"))?;
        }
        self.identity.check()?;
        for dir in [self.paths.parts(), self.paths.manifests()] {
            match fs::create_dir(&dir) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(fault::of_lake("create", &dir, &error));
                }
                _ => {}
            }
        }
        if !self.is_clean {
            self.remove_parts()?;
            Disk.sync_dir(root).map_err(named("fsync"))?;
            self.is_clean = true;
        }
        Ok(())
    }

    fn has(&mut self, log: &Path) -> Result<bool, ForwardError> {
        let name = name_of(log);
        let path = self.paths.manifest(&name);
        if self.known.contains(&name) {
            return Ok(true);
        }
        if !path.try_exists().map_err(|error| fault::of_lake("inspect", &path, &error))? {
            return Ok(false);
        }
        // The checksum is compared before the log is removed; until then its length has to do.
        let manifest = self.read_manifest(&name)?;
        if fs::metadata(log).is_ok_and(|log| log.len() != manifest.log_bytes) {
            return Err(of_another(&path, log));
        }
        self.known.insert(name);
        Ok(true)
    }

    fn forward(&mut self, log: &Path, stop: &dyn Fn() -> bool) -> Result<(), ForwardError> {
        let name = name_of(log);
        let (found, rejected) = self.survey(log, &name, stop)?;
        let origin = Origin { log: &name, sha256: &found.sha256 };
        let conversion = Conversion { log, origin, paths: &self.paths, layout: &self.layout, stop };
        let files = found.hours.iter().map(|(hour, span)| conversion.make(*hour, span));
        let mut files = files.collect::<Result<Vec<_>, _>>()?;
        let (rows, count) = (files.iter().map(|file| file.rows).sum::<u64>(), files.len() as u64);
        if rows + found.rejected != found.lines {
            return Err(ForwardError::Log(format!(
                "the files of {} have {rows} rows and {} rejected lines, but it has {} lines: report this",
                log.display(),
                found.rejected,
                found.lines
            )));
        }
        files.extend(rejected);
        let manifest = Manifest::new(&name, &found, &self.columns, files);
        self.copies.add_all(&manifest, stop)?;
        self.write_manifest(&manifest, stop)?;
        self.metrics.rows.inc_by(rows);
        self.metrics.files.inc_by(count);
        self.metrics.rejected.inc_by(found.rejected);
        self.known.insert(name.clone());
        self.proven.insert(name);
        Ok(())
    }

    fn confirm(&mut self, log: &Path) -> Result<(), ForwardError> {
        let name = name_of(log);
        if !self.proven.contains(&name) && self.read_manifest(&name)?.log_sha256 != checksum(log)? {
            return Err(of_another(&self.paths.manifest(&name), log));
        }
        self.known.remove(&name);
        self.proven.remove(&name);
        Ok(())
    }

    fn set_behind(&self, logs: usize) {
        self.metrics.behind.set(i64::try_from(logs).unwrap_or(i64::MAX));
    }

    fn report(&self, problem: Option<&str>) {
        match problem {
            None => self.state.solved(NAME),
            Some(reason) => {
                self.metrics.errors.inc();
                self.state.problem(
                    NAME,
                    &format!("{reason}. Closed logs stay until they are in the lake; retrying"),
                );
            }
        }
    }
}

fn of_another(manifest: &Path, log: &Path) -> ForwardError {
    ForwardError::Log(format!(
        "{} is the manifest of another log than {}: move the log away, or the manifest and its files; consumers that \
         share LAKE_DIR need different LOG_FILE names",
        manifest.display(),
        log.display()
    ))
}

fn name_of(log: &Path) -> String {
    log.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
