//! From what a stop of any kind left on the disk to an [`EventLog`] that goes on exactly there.
//!
//! Trusts the checkpoint alone: what stands past it is cut off and read again. Where the files do not fit it,
//! it refuses and names the ways out. Knows Kafka only as offsets.

use std::path::Path;

use crate::broker::{Bounds, Compared, Found, Parting, Trail};
use crate::config::{Fsync, OffsetReset};

use super::checkpoint::{Checkpoint, FileMark, Offsets, TAIL_BYTES, tail_crc};
use super::durable_file::DurableFile;
use super::event_log::{EventLog, LogError, doing};
use super::paths::Paths;
use super::start::{Start, decide, from_the_beginning};
use super::storage::{AppendFile, Stat, Storage, beside};

/// How much is read at once to find the last line end of a log without checkpoint.
const BLOCK_BYTES: u64 = 1 << 20;

/// What the topic looks like at the start.
#[derive(Clone, Debug)]
pub struct Topic<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its identity, if the broker has one.
    pub id: Option<String>,
    /// Our share of it, `i/n`.
    pub shard: String,
    /// Identity of our log.
    pub log_id: String,
    /// The number of this start.
    pub claim: u64,
    /// Our partitions, without those that cannot be asked now.
    pub bounds: Vec<Bounds>,
    /// Our partitions that have no leader, or one that does not answer.
    pub unread: Vec<i32>,
    /// Where the group goes on.
    pub committed: Offsets,
    /// Next offsets where other logs went on from ours: what the files have past the checkpoint may be in those.
    pub taken_over: Offsets,
    /// What it has of what was read up to the checkpoint, for partitions of which that is known.
    pub compared: Vec<Compared>,
    /// What to do about offsets that are gone.
    pub reset: OffsetReset,
}

/// Why there is no start.
#[derive(Debug)]
pub enum RecoveryError {
    /// The file system failed; worth another try.
    Io(LogError),
    /// Somebody has to decide; the text names the ways out.
    Refused(String),
}

impl From<LogError> for RecoveryError {
    fn from(error: LogError) -> Self {
        Self::Io(error)
    }
}

/// A place to go on from.
pub struct Recovered<S: Storage> {
    /// The open log.
    pub log: EventLog<S>,
    /// What the operator must know, one sentence each.
    pub notes: Vec<String>,
}

/// Reads the checkpoint beside the log, if there is one.
///
/// # Errors
/// Refused when it cannot be understood.
pub fn read_checkpoint<S: Storage>(storage: &S, paths: &Paths) -> Result<Option<Checkpoint>, RecoveryError> {
    let path = &paths.checkpoint;
    let Some(stat) = doing("look at", path, storage.stat(path))? else { return Ok(None) };
    let text = doing("read", path, storage.read_range(path, 0, stat.len))?;
    Checkpoint::decode(&text).map(Some).map_err(|reason| {
        RecoveryError::Refused(format!(
            "{} cannot be read: {reason}. Put a good one back; or move the log and its checkpoint away, then \
             reading goes on from the offsets that the group committed",
            path.display()
        ))
    })
}

/// Brings the files to the state that `checkpoint` describes and opens them.
///
/// # Errors
/// As [`RecoveryError`] says. Called again after an I/O error, it does what is left.
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

/// Offsets of a topic that was deleted and created again mean nothing in the new one, even if they are in range.
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
        "{} belongs to topic {} shard {}, but KAFKA_TOPIC={} and CONSUMER_SHARD={}. Ways out: set them back; or give \
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

    /// The log is closed under its new name, if it is not yet; what follows is empty.
    fn finish_rotation(&mut self, checkpoint: &mut Checkpoint, to: &str) -> Result<(), LogError> {
        let (log, dir) = (&self.paths.log, self.paths.dir());
        let to = log.with_file_name(to);
        if doing("look at", &to, self.storage.stat(&to))?.is_some() {
            let follower = doing("look at", log, self.storage.stat(log))?;
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
                "{} has {} bytes and no checkpoint: new lines follow them; events that were logged but not \
                 committed to the group are repeated",
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

    /// Makes the file at `path` end at `mark`, or makes room for an empty one if it was moved away.
    fn place(&mut self, path: &Path, mark: &FileMark, check: &Check) -> Result<(), RecoveryError> {
        match doing("look at", path, self.storage.stat(path))? {
            Some(stat) if self.fits(path, stat, mark)? => {
                Ok(self.cut(path, stat.len, mark.bytes, check.keep)?)
            }
            Some(stat) if stat.len == 0 => self.find_moved(path, mark, check),
            None => self.find_moved(path, mark, check),
            Some(stat) => Err(refused(path, mark, check, &format!("it has {} other bytes", stat.len))),
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

    /// The file is not at its place: renamed by logrotate, say. Its uncovered tail is cut where it stands now.
    fn find_moved(&mut self, path: &Path, mark: &FileMark, check: &Check) -> Result<(), RecoveryError> {
        let dir = self.paths.dir();
        let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let mut names = doing("list", dir, self.storage.names(dir))?;
        names.sort_unstable();
        for name in names.iter().filter(|name| name.starts_with(&stem)) {
            let candidate = path.with_file_name(name);
            let Some(stat) = doing("look at", &candidate, self.storage.stat(&candidate))? else { continue };
            if !stat.is_file {
                continue;
            }
            // With nothing covered only the inode number tells, and systems use numbers again: keep what is cut.
            let only_inode = mark.bytes == 0;
            if only_inode && stat.inode != mark.inode {
                continue;
            }
            if candidate != path && self.fits(&candidate, stat, mark)? {
                self.notes.push(format!("{} was moved to {name}; going on in a new one", path.display()));
                return Ok(self.cut(&candidate, stat.len, mark.bytes, check.keep || only_inode)?);
            }
        }
        if mark.bytes == 0 {
            return Ok(());
        }
        if check.stopped {
            self.notes.push(format!(
                "{} with {} bytes was moved or deleted since the consumer stopped; going on in a new one",
                path.display(),
                mark.bytes
            ));
            return Ok(());
        }
        Err(refused(path, mark, check, "it is not there"))
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
                "{} bytes of {} that no checkpoint covers were moved to {}",
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
            if doing("look at", &torn, self.storage.stat(&torn))?.is_none() {
                return Ok(torn);
            }
        }
        unreachable!("some number is free")
    }

    /// A log without checkpoint that ends in the middle of a line would tear the first new one.
    fn cut_open_line(&mut self, path: &Path) -> Result<(), LogError> {
        let len = doing("look at", path, self.storage.stat(path))?.map_or(0, |stat| stat.len);
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
    /// What is cut off is kept beside the file.
    keep: bool,
    /// The consumer ended in order.
    stopped: bool,
    /// The bytes were never forced to the disk and the machine has started anew since.
    power_was_lost: bool,
}

fn refused(path: &Path, mark: &FileMark, check: &Check, found: &str) -> RecoveryError {
    let cause = if check.power_was_lost {
        "the machine went down while LOG_FSYNC=never, so lines that were never forced to the disk are lost"
    } else {
        "the file was replaced, cut or deleted"
    };
    RecoveryError::Refused(format!(
        "{} does not fit its checkpoint: {} bytes are covered, but {found}: {cause}. Ways out: put the right file \
         back; or move the checkpoint (and this file) away, then reading goes on in a new log from the offsets that \
         the group committed; or do so and set a new KAFKA_GROUP to log everything that the topic still has",
        path.display(),
        mark.bytes
    ))
}
