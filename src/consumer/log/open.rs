//! Takes the lock of a log, reads its checkpoint, and opens it.

use std::fs;

use crate::config::{ConsumerConfig, IdsConfig, LogConfig};
use crate::consumer::destination::{DestinationError, Opener, Recalled, Remembered, Stored};
use crate::consumer::failure::Failure;
use crate::consumer::log::archiver::Archive;
use crate::consumer::log::checkpoint::Checkpoint;
use crate::consumer::log::destination::{LogDestination, Pending};
use crate::consumer::log::event_log::EventLog;
use crate::consumer::log::forward::{Forwarding, NewPlace};
use crate::consumer::log::ids::{Limits, Settings};
use crate::consumer::log::lines::{LINE_OVERHEAD, split_line};
use crate::consumer::log::lock::LogLock;
use crate::consumer::log::metrics::LogMetrics;
use crate::consumer::log::paths::Paths;
use crate::consumer::log::recovery::{Recovered, read_checkpoint, recover};
use crate::consumer::log::rotation::{Begin, Rotation};
use crate::consumer::log::storage::{Disk, Storage, doing};
use crate::consumer::metrics::ConsumerMetrics;
use crate::consumer::progress::Progress;
use crate::consumer::state::now_millis;
use crate::linux;

/// A log that is not open yet; its lock keeps other consumers away.
pub struct LogOpener {
    config: ConsumerConfig,
    paths: Paths,
    place: String,
    boot: String,
    predecessor: Option<String>,
    /// Until they belong to the open log.
    parts: Option<(LogLock, LogMetrics)>,
    /// Where closed logs go.
    closed_logs_to: Option<NewPlace>,
}

impl LogOpener {
    /// Takes the lock. Closed logs go to `closed_logs_to`, if there is such a place.
    ///
    /// # Errors
    /// Another consumer has it, or the files cannot be used.
    pub fn new(
        config: &ConsumerConfig,
        metrics: &ConsumerMetrics,
        closed_logs_to: Option<NewPlace>,
    ) -> Result<Self, Failure> {
        let paths = Paths::of(&config.reading.shard.log_file(&config.log.file));
        fs::create_dir_all(paths.dir())
            .map_err(|error| Failure::failed(format!("cannot create {}: {error}", paths.dir().display())))?;
        paths.check().map_err(Failure::bad_config)?;
        let lock = LogLock::take(&paths.lock).map_err(Failure::failed)?;
        let path = std::path::absolute(&paths.log).unwrap_or_else(|_| paths.log.clone());
        Ok(Self {
            config: config.clone(),
            place: format!("{}:{}", linux::host_name(), path.display()),
            boot: linux::boot_id(),
            predecessor: lock.log_id().map(str::to_owned),
            parts: Some((lock, LogMetrics::new(metrics))),
            closed_logs_to,
            paths,
        })
    }

    fn archive(&self, ids: Option<Settings>) -> Archive {
        let LogConfig { rotate_keep, rotate_gzip, .. } = self.config.log;
        let keeps_logs = self.config.lake.keep_logs;
        // As long as ids are remembered, they may have to be read from the logs again.
        let min_age_millis = ids.map_or(0, |ids| ids.limits.millis);
        let place = self.closed_logs_to.as_ref().map(|new_place| new_place());
        let forwarding = place.map(|place| Forwarding { place, keeps_logs, min_age_millis });
        Archive { paths: self.paths.clone(), keep: rotate_keep as usize, gzip: rotate_gzip, forwarding }
    }

    fn check_source(&self, Progress { topic, shard, .. }: &Progress) -> Result<(), DestinationError> {
        let ours = (&self.config.kafka.topic, self.config.reading.shard);
        if (topic, shard) == (ours.0, &ours.1.to_string()) {
            return Ok(());
        }
        Err(DestinationError::Refused(format!(
            "{} belongs to topic {topic} shard {shard}, but KAFKA_TOPIC={} and CONSUMER_SHARD={}. Options: set them back; \
             or give another LOG_FILE; or, for another number of shards, stop all of them with SIGTERM and wait for exit \
             code 0 (one that was killed: start it once more as it was, then stop it) and move the old logs and \
             checkpoints away: each new shard continues exactly where the old logs end",
            self.paths.checkpoint.display(),
            ours.0,
            ours.1
        )))
    }
}

impl Opener for LogOpener {
    type Destination = LogDestination;

    fn place(&self) -> &str {
        &self.place
    }

    fn predecessor(&self) -> Option<&str> {
        self.predecessor.as_deref()
    }

    fn stored(&mut self) -> Result<Option<Stored>, DestinationError> {
        let Some(Checkpoint { progress, files, .. }) = read_checkpoint(&Disk, &self.paths)? else {
            return Ok(None);
        };
        self.check_source(&progress)?;
        Ok(Some(Stored { progress, may_be_old: files.lost_power(&self.boot) }))
    }

    fn remembers(&self) -> Option<Remembered> {
        let Settings { field, limits } = id_settings(&self.config.ids)?;
        Some(Remembered { field, millis: limits.millis, ids: limits.ids })
    }

    fn open(
        &mut self,
        progress: Progress,
        recalled: &[Recalled],
    ) -> Result<LogDestination, DestinationError> {
        let stored = read_checkpoint(&Disk, &self.paths)?.map(|checkpoint| checkpoint.files);
        let LogConfig { fsync, rotate_bytes, rotate_daily, rotate_secs, .. } = self.config.log;
        let settings = id_settings(&self.config.ids);
        let ids = settings.as_ref().map(|settings| (settings, recalled));
        let Recovered { log, dedup, notes } =
            recover(Disk, &self.paths, stored, progress, fsync, &self.boot, ids)?;
        let begin = begin_of(&log, &self.paths)?;
        let archiver = self.archive(settings).start();
        let archiver = archiver.map_err(|error| DestinationError::Retryable(error.to_string()))?;
        notes.iter().for_each(|note| log::warn!("{note}"));
        let period_millis = i64::from(rotate_secs) * 1000;
        let rotation = Rotation { max_bytes: rotate_bytes, daily: rotate_daily, period_millis };
        let (lock, metrics) = self.parts.take().expect("a log is opened once");
        let pending = Pending::beginning(begin);
        Ok(LogDestination { files: log, dedup, lock, rotation, fsync, archiver, metrics, pending })
    }
}

/// When the first line of an open log was written.
fn begin_of(log: &EventLog<Disk>, paths: &Paths) -> Result<Begin, DestinationError> {
    if log.bytes() == 0 {
        return Ok(Begin::default());
    }
    let line = doing("read", &paths.log, Disk.read_range(&paths.log, 0, LINE_OVERHEAD as u64))?;
    let millis = split_line(&line).map_or_else(now_millis, |(millis, _)| millis);
    Ok(Begin { day: log.first_day(), millis })
}

fn id_settings(config: &IdsConfig) -> Option<Settings> {
    let limits = Limits {
        millis: i64::try_from(config.window.duration().as_millis()).unwrap_or(i64::MAX),
        ids: config.max_ids as usize,
    };
    config.field().map(|field| Settings { field: field.to_owned(), limits })
}
