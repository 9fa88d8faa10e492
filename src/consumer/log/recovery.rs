//! Recovers the files at startup, after any kind of stop, and opens an [`EventLog`] that continues from
//! there.
//!
//! Only the checkpoint is trusted: bytes past it are cut off and their records are read again. If the files
//! do not match the checkpoint, the start is refused with a message that lists the options.

use std::path::{Path, PathBuf};

use crate::config::Fsync;
use crate::consumer::destination::{DestinationError, Recalled};
use crate::consumer::log::checkpoint::{Checkpoint, FileMark, IdMarks, LogMarks, TAIL_BYTES, tail_crc};
use crate::consumer::log::dedup::Dedup;
use crate::consumer::log::durable_file::DurableFile;
use crate::consumer::log::event_log::EventLog;
use crate::consumer::log::file_set::{FileSet, LOG, REJECTED};
use crate::consumer::log::id_files;
use crate::consumer::log::ids::Settings;
use crate::consumer::log::paths::Paths;
use crate::consumer::log::storage::{Stat, Storage, beside, cut, doing, is_closed};
use crate::consumer::progress::Progress;

/// Files with lines that were cut off that are kept for each log; the oldest is replaced.
const MAX_TORN_FILES: u32 = 8;

/// Block size when searching for the last line break in a log without a checkpoint.
const BLOCK_BYTES: u64 = 1 << 20;

/// Reads the log's checkpoint, if there is one.
///
/// # Errors
/// The file cannot be read, or its content is not a valid checkpoint (refused).
pub fn read_checkpoint<S: Storage>(
    storage: &S,
    paths: &Paths,
) -> Result<Option<Checkpoint>, DestinationError> {
    let path = &paths.checkpoint;
    if doing("inspect", path, storage.stat(path))?.is_none() {
        return Ok(None);
    }
    // Another thread may replace it between the two calls by one that is longer.
    let text = doing("read", path, storage.read_range(path, 0, u64::MAX))?;
    Checkpoint::decode(&text).map(Some).map_err(|reason| {
        DestinationError::Refused(format!(
            "{} cannot be read: {reason}. Restore a good copy; or move the log and its checkpoint away to \
             continue from the offsets that the group has committed",
            path.display()
        ))
    })
}

/// Brings the files to the state that `marks` describe and opens them at `progress`. With `ids`, repeated events are
/// dropped, also those of events that other logs have.
///
/// # Errors
/// See [`DestinationError`]. After a retryable one, calling it again resumes the recovery.
pub fn recover<S: Storage>(
    storage: S,
    paths: &Paths,
    marks: Option<LogMarks>,
    progress: Progress,
    fsync: Fsync,
    boot: &str,
    ids: Option<(&Settings, &[Recalled])>,
) -> Result<Recovered<S>, DestinationError> {
    let stopped = marks.as_ref().is_some_and(|marks| marks.stopped);
    let power_was_lost = marks.as_ref().is_some_and(|marks| marks.lost_power(boot));
    let mut recovery = Recovery { storage: &storage, paths, notes: Vec::new(), stopped, power_was_lost };
    let (mut files, mut marks) = match marks {
        Some(marks) => recovery.by_marks(marks)?,
        None => recovery.without_marks()?,
    };
    let mut notes = recovery.notes;
    let stored = marks.ids.take();
    let dedup = match ids {
        None => None,
        Some((settings, recalled)) => {
            let stored = stored.map(|ids| IdMarks { damaged: ids.damaged || power_was_lost, ..ids });
            let (window, ids, file) =
                id_files::open(&storage, paths, settings, (stored, recalled), &mut notes)?;
            let dedup = Dedup::new(ids.key.clone(), window);
            files.push(file);
            marks.ids = Some(ids);
            Some(dedup)
        }
    };
    let log = EventLog::new(storage, paths.clone(), fsync, boot, FileSet::new(files), progress, marks)?;
    Ok(Recovered { log, dedup, notes })
}

/// What a start continues with.
pub struct Recovered<S: Storage> {
    /// The open files.
    pub log: EventLog<S>,
    /// Drops repeated events, if there are settings for it.
    pub dedup: Option<Dedup>,
    /// Messages for the operator, one sentence each.
    pub notes: Vec<String>,
}

type Files<S> = Vec<DurableFile<<S as Storage>::File>>;

struct Recovery<'a, S> {
    storage: &'a S,
    paths: &'a Paths,
    notes: Vec<String>,
    /// The consumer shut down cleanly.
    stopped: bool,
    /// The bytes were never forced to disk and the machine has rebooted since.
    power_was_lost: bool,
}

impl<S: Storage> Recovery<'_, S> {
    fn by_marks(&mut self, mut marks: LogMarks) -> Result<(Files<S>, LogMarks), DestinationError> {
        if let Some(to) = marks.rotate_to.take() {
            self.finish_rotation(&mut marks.log, &to)?;
        }
        self.place(&self.paths.log, &marks.log)?;
        self.place(&self.paths.rejected, &marks.rejected)?;
        Ok((self.open()?, marks))
    }

    /// Resolves an interrupted rotation: if the log already has its new name, its mark becomes that of an
    /// empty log.
    fn finish_rotation(&mut self, mark: &mut FileMark, to: &str) -> Result<(), DestinationError> {
        let (log, dir) = (&self.paths.log, self.paths.dir());
        if is_closed(self.storage, &log.with_file_name(to))? {
            let follower = doing("inspect", log, self.storage.stat(log))?;
            let inode = follower.map_or(0, |stat| stat.inode);
            *mark = FileMark { name: std::mem::take(&mut mark.name), inode, ..FileMark::default() };
        }
        doing("fsync", dir, self.storage.sync_dir(dir))
    }

    fn without_marks(&mut self) -> Result<(Files<S>, LogMarks), DestinationError> {
        for path in [&self.paths.log, &self.paths.rejected] {
            self.cut_open_line(path)?;
        }
        let files = self.open()?;
        if files[LOG].bytes() > 0 {
            self.notes.push(format!(
                "{} has {} bytes and no checkpoint: new lines are appended; events that were logged but not \
                 committed to the group are duplicated",
                self.paths.log.display(),
                files[LOG].bytes()
            ));
        }
        let marks =
            LogMarks { log: files[LOG].mark(), rejected: files[REJECTED].mark(), ..LogMarks::default() };
        Ok((files, marks))
    }

    fn open(&self) -> Result<Files<S>, DestinationError> {
        let open = |path| doing("open", path, DurableFile::open(self.storage, path));
        Ok(vec![open(&self.paths.log)?, open(&self.paths.rejected)?])
    }

    /// Truncates the file at `path` to `mark`. If it was moved away, leaves room for an empty one.
    fn place(&mut self, path: &Path, mark: &FileMark) -> Result<(), DestinationError> {
        match doing("inspect", path, self.storage.stat(path))? {
            Some(stat) if self.matches_mark(path, stat, mark)? => self.cut(path, stat.len, mark.bytes),
            Some(stat) if stat.len == 0 => self.find_moved(path, mark),
            None => self.find_moved(path, mark),
            Some(stat) => Err(self.refused(path, mark, &format!("it has {} unrelated bytes", stat.len))),
        }
    }

    fn matches_mark(&self, path: &Path, stat: Stat, mark: &FileMark) -> Result<bool, DestinationError> {
        if mark.bytes == 0 {
            return Ok(stat.len == 0 || stat.inode == mark.inode);
        }
        if stat.len < mark.bytes {
            return Ok(false);
        }
        let from = mark.bytes.saturating_sub(TAIL_BYTES);
        let tail = doing("read", path, self.storage.read_range(path, from, mark.bytes - from))?;
        Ok(tail_crc(&tail) == mark.tail_crc)
    }

    /// Finds a file that was renamed, for example by logrotate, and cuts off its uncovered tail under its new
    /// name.
    fn find_moved(&mut self, path: &Path, mark: &FileMark) -> Result<(), DestinationError> {
        let dir = self.paths.dir();
        let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let mut names = doing("list", dir, self.storage.names(dir))?;
        names.sort_unstable();
        for name in names.iter().filter(|name| name.starts_with(&stem)) {
            let candidate = path.with_file_name(name);
            let Some(stat) = doing("inspect", &candidate, self.storage.stat(&candidate))? else { continue };
            if !stat.is_file {
                continue;
            }
            // If nothing is covered, only the inode number identifies the file.
            if mark.bytes == 0 && stat.inode != mark.inode {
                continue;
            }
            if candidate != path && self.matches_mark(&candidate, stat, mark)? {
                self.notes.push(format!("{} was moved to {name}; continuing in a new file", path.display()));
                return self.cut(&candidate, stat.len, mark.bytes);
            }
        }
        if mark.bytes == 0 {
            return Ok(());
        }
        if self.stopped {
            self.notes.push(format!(
                "{} with {} bytes was moved or deleted since the consumer stopped; continuing in a new file",
                path.display(),
                mark.bytes
            ));
            return Ok(());
        }
        Err(self.refused(path, mark, "it does not exist"))
    }

    /// Cuts off what no checkpoint covers, and keeps it in a file beside: Kafka may have lost those records.
    fn cut(&self, path: &Path, len: u64, bytes: u64) -> Result<(), DestinationError> {
        if len == bytes {
            return Ok(());
        }
        let torn = self.free_torn_name(path)?;
        let excess = doing("read", path, self.storage.read_range(path, bytes, len - bytes))?;
        doing("write", &torn, self.storage.write(&torn, &excess, true))?;
        doing("fsync", self.paths.dir(), self.storage.sync_dir(self.paths.dir()))?;
        log::info!(
            "moved {} bytes of {} that no checkpoint covers to {}; their records are read again unless Kafka has \
             lost them, so the file can be deleted once the consumer has caught up and the log has these lines",
            len - bytes,
            path.display(),
            torn.display()
        );
        cut(self.storage, path, bytes)
    }

    /// Returns the name with number 0, after it has moved the files that have the first numbers up by one.
    fn free_torn_name(&self, path: &Path) -> Result<PathBuf, DestinationError> {
        let torn = |number: u32| beside(path, &format!(".{number:03}.torn"));
        let mut free = 0;
        while free < MAX_TORN_FILES - 1 && doing("inspect", path, self.storage.stat(&torn(free)))?.is_some() {
            free += 1;
        }
        for number in (0..free).rev() {
            doing("rename", &torn(number), self.storage.rename(&torn(number), &torn(number + 1)))?;
        }
        Ok(torn(0))
    }

    /// Cuts off an incomplete last line of a log without a checkpoint; the first new line would be appended
    /// to it.
    fn cut_open_line(&mut self, path: &Path) -> Result<(), DestinationError> {
        let len = doing("inspect", path, self.storage.stat(path))?.map_or(0, |stat| stat.len);
        if len == 0 {
            return Ok(());
        }
        let mut end = len;
        while end > 0 {
            let start = end.saturating_sub(BLOCK_BYTES);
            let block = doing("read", path, self.storage.read_range(path, start, end - start))?;
            if let Some(at) = block.iter().rposition(|&byte| byte == b'\n') {
                end = start + at as u64 + 1;
                break;
            }
            end = start;
        }
        self.cut(path, len, end)
    }

    fn refused(&self, path: &Path, mark: &FileMark, found: &str) -> DestinationError {
        let cause = if self.power_was_lost {
            "the machine went down with LOG_FSYNC=never, so lines that were never forced to disk are lost"
        } else {
            "the file was replaced, truncated or deleted"
        };
        DestinationError::Refused(format!(
            "{} does not match its checkpoint: {} bytes are covered, but {found}: {cause}. Options: put the \
             right file back; or move the checkpoint (and this file) away to continue in a new log from the \
             offsets that the group has committed; or do so and set a new KAFKA_GROUP to log everything that the \
             topic still has",
            path.display(),
            mark.bytes
        ))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::thread;

    use super::*;
    use crate::consumer::log::storage::Disk;
    use crate::consumer::progress::Progress;

    #[test]
    fn a_checkpoint_can_be_read_while_it_is_replaced() {
        let dir = tempfile::tempdir().expect("directory");
        let paths = Paths::of(&dir.path().join("events.log"));
        let replace = |id: &str| {
            let marks = LogMarks { rotate_to: Some(id.into()), ..LogMarks::default() };
            let new = dir.path().join("new");
            fs::write(&new, Checkpoint::new(Progress::default(), marks).encode()).expect("written");
            fs::rename(&new, &paths.checkpoint).expect("renamed");
        };
        replace("short");
        thread::scope(|scope| {
            let writer = scope.spawn(|| (0..2000).for_each(|n| replace(["a longer one", "short"][n % 2])));
            while !writer.is_finished() {
                assert!(read_checkpoint(&Disk, &paths).expect("a whole one").is_some());
            }
        });
    }
}
