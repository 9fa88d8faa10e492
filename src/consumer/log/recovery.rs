//! Recovers the files at startup, after any kind of stop, and opens an [`EventLog`] that continues from
//! there.
//!
//! Only the checkpoint is trusted: bytes past it are cut off and their records are read again. If the files
//! do not match the checkpoint, the start is refused with a message that lists the options.

use std::path::Path;

use crate::broker::{Bounds, Compared, Found, Parting, Trail};
use crate::config::{Fsync, OffsetReset};
use crate::consumer::log::checkpoint::{Checkpoint, FileMark, Offsets, TAIL_BYTES, tail_crc};
use crate::consumer::log::durable_file::DurableFile;
use crate::consumer::log::event_log::{EventLog, LogError, doing};
use crate::consumer::log::paths::Paths;
use crate::consumer::log::storage::{AppendFile, Stat, Storage, beside};
use crate::consumer::start::{Start, decide, from_the_beginning};

/// Block size when searching for the last line break in a log without a checkpoint.
const BLOCK_BYTES: u64 = 1 << 20;

/// The state of the topic and the group at startup.
#[derive(Clone, Debug)]
pub struct Topic<'a> {
    /// Name of the topic.
    pub name: &'a str,
    /// The topic's identity, if the broker has one.
    pub id: Option<String>,
    /// Our shard of the topic, `i/n`.
    pub shard: String,
    /// Identity of our log.
    pub log_id: String,
    /// The number of this start.
    pub claim: u64,
    /// Our partitions, without those that cannot be asked now.
    pub bounds: Vec<Bounds>,
    /// Our partitions without a leader, or whose leader does not answer.
    pub unread: Vec<i32>,
    /// Next offsets according to the group.
    pub committed: Offsets,
    /// Next offsets where other logs went on from ours: what the files have past the checkpoint may be in those.
    pub taken_over: Offsets,
    /// What it has of what was read up to the checkpoint, for partitions of which that is known.
    pub compared: Vec<Compared>,
    /// What to do if offsets are gone.
    pub reset: OffsetReset,
}

/// Why recovery failed.
#[derive(Debug)]
pub enum RecoveryError {
    /// The file system failed; worth a retry.
    Io(LogError),
    /// An operator has to decide; the text lists the options.
    Refused(String),
}

impl From<LogError> for RecoveryError {
    fn from(error: LogError) -> Self {
        Self::Io(error)
    }
}

/// The result of a successful recovery.
pub struct Recovered<S: Storage> {
    /// The open log.
    pub log: EventLog<S>,
    /// Messages for the operator, one sentence each.
    pub notes: Vec<String>,
}

/// Reads the log's checkpoint, if there is one.
///
/// # Errors
/// The file cannot be read, or its content is not a valid checkpoint (refused).
pub fn read_checkpoint<S: Storage>(storage: &S, paths: &Paths) -> Result<Option<Checkpoint>, RecoveryError> {
    let path = &paths.checkpoint;
    let Some(stat) = doing("inspect", path, storage.stat(path))? else { return Ok(None) };
    let text = doing("read", path, storage.read_range(path, 0, stat.len))?;
    Checkpoint::decode(&text).map(Some).map_err(|reason| {
        RecoveryError::Refused(format!(
            "{} cannot be read: {reason}. Restore a good copy; or move the log and its checkpoint away to \
             continue from the offsets that the group has committed",
            path.display()
        ))
    })
}

/// Brings the files to the state that `checkpoint` describes and opens them.
///
/// # Errors
/// See [`RecoveryError`]. After an I/O error, calling it again resumes the recovery.
pub fn recover<S: Storage>(
    storage: S,
    paths: &Paths,
    checkpoint: Option<Checkpoint>,
    topic: &Topic<'_>,
    fsync: Fsync,
    boot: &str,
) -> Result<Recovered<S>, RecoveryError> {
    if let Some(checkpoint) = &checkpoint {
        same_source(checkpoint, topic, paths)?;
    }
    let start = start_of(checkpoint.as_ref(), topic).map_err(RecoveryError::Refused)?;
    let mut place = Placing { storage: &storage, paths, notes: start.warnings.clone() };
    let (files, checkpoint) = match checkpoint {
        Some(checkpoint) => place.by_checkpoint(checkpoint, topic, &start, boot)?,
        None => place.without_checkpoint(topic, &start)?,
    };
    let notes = place.notes;
    let log = EventLog::new(storage, paths.clone(), fsync, boot, files, checkpoint)?;
    Ok(Recovered { log, notes })
}

/// Chooses the first offsets. If the topic was deleted and created again, old offsets mean nothing even if
/// they are in range.
fn start_of(checkpoint: Option<&Checkpoint>, topic: &Topic<'_>) -> Result<Start, String> {
    if checkpoint.is_some_and(|checkpoint| checkpoint.is_of_another(topic.id.as_deref())) {
        return from_the_beginning(topic.name, &topic.bounds, &topic.taken_over, topic.reset);
    }
    let known = checkpoint.map(|checkpoint| &checkpoint.offsets);
    let bounds = (&topic.bounds[..], &topic.unread[..]);
    let mut start = decide(topic.name, known, &topic.committed, bounds, &topic.compared, topic.reset)?;
    start.rereadable &= topic.taken_over.is_empty();
    Ok(start)
}

fn same_source(checkpoint: &Checkpoint, topic: &Topic<'_>, paths: &Paths) -> Result<(), RecoveryError> {
    if checkpoint.topic == topic.name && checkpoint.shard == topic.shard {
        return Ok(());
    }
    Err(RecoveryError::Refused(format!(
        "{} belongs to topic {} shard {}, but KAFKA_TOPIC={} and CONSUMER_SHARD={}. Options: set them back; or give \
         another LOG_FILE; or, for another number of shards, stop all of them with SIGTERM and wait for exit code 0 \
         (one that was killed: start it once more as it was, then stop it) and move the old logs and checkpoints \
         away: each new shard continues exactly where the old logs end",
        paths.checkpoint.display(),
        checkpoint.topic,
        checkpoint.shard,
        topic.name,
        topic.shard
    )))
}

type Files<S> = (DurableFile<<S as Storage>::File>, DurableFile<<S as Storage>::File>);

struct Placing<'a, S> {
    storage: &'a S,
    paths: &'a Paths,
    notes: Vec<String>,
}

impl<S: Storage> Placing<'_, S> {
    fn by_checkpoint(
        &mut self,
        mut checkpoint: Checkpoint,
        topic: &Topic<'_>,
        start: &Start,
        boot: &str,
    ) -> Result<(Files<S>, Checkpoint), RecoveryError> {
        if let Some(to) = checkpoint.rotate_to.take() {
            self.finish_rotation(&mut checkpoint, &to)?;
        }
        let power_was_lost = checkpoint.lost_power(boot);
        let keep = !start.rereadable || checkpoint.stopped;
        let check = Check { keep, stopped: checkpoint.stopped, power_was_lost };
        self.place(&self.paths.log, &checkpoint.log, &check)?;
        self.place(&self.paths.rejected, &checkpoint.rejected, &check)?;
        let files = (self.open(&self.paths.log)?, self.open(&self.paths.rejected)?);
        if checkpoint.is_of_another(topic.id.as_deref()) {
            checkpoint.trails.clear();
        }
        for (partition, trail) in &mut checkpoint.trails {
            let Some(&offset) = start.offsets.get(partition) else { continue };
            let compared = topic.compared.iter().find(|compared| compared.partition == *partition);
            match compared.map(|compared| compared.found) {
                // What is read next does not follow what is remembered.
                Some(Found::Parted(parting)) if parting != Parting::At(offset) => *trail = Trail::default(),
                _ => trail.back_to(offset),
            }
        }
        checkpoint.offsets.clone_from(&start.offsets);
        checkpoint.topic_id.clone_from(&topic.id);
        checkpoint.log_id = Some(topic.log_id.clone());
        checkpoint.claim = Some(topic.claim);
        Ok((files, checkpoint))
    }

    /// Resolves an interrupted rotation: if the log already has its new name, the checkpoint's mark becomes
    /// that of an empty log.
    fn finish_rotation(&mut self, checkpoint: &mut Checkpoint, to: &str) -> Result<(), LogError> {
        let (log, dir) = (&self.paths.log, self.paths.dir());
        let to = log.with_file_name(to);
        if doing("inspect", &to, self.storage.stat(&to))?.is_some() {
            let follower = doing("inspect", log, self.storage.stat(log))?;
            let inode = follower.map_or(0, |stat| stat.inode);
            checkpoint.log = FileMark { name: checkpoint.log.name.clone(), inode, ..FileMark::default() };
        }
        doing("fsync", dir, self.storage.sync_dir(dir))
    }

    fn without_checkpoint(
        &mut self,
        topic: &Topic<'_>,
        start: &Start,
    ) -> Result<(Files<S>, Checkpoint), RecoveryError> {
        for path in [&self.paths.log, &self.paths.rejected] {
            self.cut_open_line(path)?;
        }
        let files = (self.open(&self.paths.log)?, self.open(&self.paths.rejected)?);
        if files.0.bytes() > 0 {
            self.notes.push(format!(
                "{} has {} bytes and no checkpoint: new lines are appended; events that were logged but not \
                 committed to the group are duplicated",
                self.paths.log.display(),
                files.0.bytes()
            ));
        }
        let (log, rejected) = (files.0.mark(), files.1.mark());
        let mut checkpoint = Checkpoint::new(topic.name, &topic.shard, start.offsets.clone(), log, rejected);
        checkpoint.topic_id.clone_from(&topic.id);
        checkpoint.log_id = Some(topic.log_id.clone());
        checkpoint.claim = Some(topic.claim);
        Ok((files, checkpoint))
    }

    fn open(&self, path: &Path) -> Result<DurableFile<S::File>, LogError> {
        doing("open", path, DurableFile::open(self.storage, path))
    }

    /// Truncates the file at `path` to `mark`. If it was moved away, leaves room for an empty one.
    fn place(&mut self, path: &Path, mark: &FileMark, check: &Check) -> Result<(), RecoveryError> {
        match doing("inspect", path, self.storage.stat(path))? {
            Some(stat) if self.fits(path, stat, mark)? => {
                Ok(self.cut(path, stat.len, mark.bytes, check.keep)?)
            }
            Some(stat) if stat.len == 0 => self.find_moved(path, mark, check),
            None => self.find_moved(path, mark, check),
            Some(stat) => Err(refused(path, mark, check, &format!("it has {} unrelated bytes", stat.len))),
        }
    }

    fn fits(&self, path: &Path, stat: Stat, mark: &FileMark) -> Result<bool, LogError> {
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
    fn find_moved(&mut self, path: &Path, mark: &FileMark, check: &Check) -> Result<(), RecoveryError> {
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
            // If nothing is covered, only the inode number identifies the file. Inode numbers are reused, so
            // keep the bytes that are cut off.
            let only_inode = mark.bytes == 0;
            if only_inode && stat.inode != mark.inode {
                continue;
            }
            if candidate != path && self.fits(&candidate, stat, mark)? {
                self.notes.push(format!("{} was moved to {name}; continuing in a new file", path.display()));
                return Ok(self.cut(&candidate, stat.len, mark.bytes, check.keep || only_inode)?);
            }
        }
        if mark.bytes == 0 {
            return Ok(());
        }
        if check.stopped {
            self.notes.push(format!(
                "{} with {} bytes was moved or deleted since the consumer stopped; continuing in a new file",
                path.display(),
                mark.bytes
            ));
            return Ok(());
        }
        Err(refused(path, mark, check, "it does not exist"))
    }

    fn cut(&mut self, path: &Path, len: u64, bytes: u64, keep: bool) -> Result<(), LogError> {
        if len == bytes {
            return Ok(());
        }
        if keep {
            let torn = self.torn_name(path)?;
            let excess = doing("read", path, self.storage.read_range(path, bytes, len - bytes))?;
            doing("write", &torn, self.storage.write(&torn, &excess, true))?;
            doing("fsync", self.paths.dir(), self.storage.sync_dir(self.paths.dir()))?;
            self.notes.push(format!(
                "moved {} bytes of {} that no checkpoint covers to {}",
                len - bytes,
                path.display(),
                torn.display()
            ));
        }
        let mut file = doing("open", path, self.storage.open_append(path))?;
        doing("cut", path, file.set_len(bytes))?;
        doing("fsync", path, file.sync())
    }

    fn torn_name(&self, path: &Path) -> Result<std::path::PathBuf, LogError> {
        for number in 0.. {
            let torn = beside(path, &format!(".{number:03}.torn"));
            if doing("inspect", &torn, self.storage.stat(&torn))?.is_none() {
                return Ok(torn);
            }
        }
        unreachable!("some number is free")
    }

    /// Cuts off an incomplete last line of a log without a checkpoint; the first new line would be appended
    /// to it.
    fn cut_open_line(&mut self, path: &Path) -> Result<(), LogError> {
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
        self.cut(path, len, end, true)
    }
}

struct Check {
    /// Keep the bytes that are cut off in a file next to it.
    keep: bool,
    /// The consumer shut down cleanly.
    stopped: bool,
    /// The bytes were never forced to disk and the machine has rebooted since.
    power_was_lost: bool,
}

fn refused(path: &Path, mark: &FileMark, check: &Check, found: &str) -> RecoveryError {
    let cause = if check.power_was_lost {
        "the machine went down with LOG_FSYNC=never, so lines that were never forced to disk are lost"
    } else {
        "the file was replaced, truncated or deleted"
    };
    RecoveryError::Refused(format!(
        "{} does not match its checkpoint: {} bytes are covered, but {found}: {cause}. Options: put the \
         right file back; or move the checkpoint (and this file) away to continue in a new log from the \
         offsets that the group has committed; or do so and set a new KAFKA_GROUP to log everything that the \
         topic still has",
        path.display(),
        mark.bytes
    ))
}
