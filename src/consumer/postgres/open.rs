//! Opens the tables at startup: connects, checks them, reads the progress, and makes it ours.

use crate::config::{ConsumerConfig, CreateTables, DestinationConfig, PostgresUrl};
use crate::consumer::destination::{DestinationError, Opener, Recalled, Remembered, Stored};
use crate::consumer::failure::Failure;
use crate::consumer::mark::new_id;
use crate::consumer::metrics::ConsumerMetrics;
use crate::consumer::postgres::check::{self, Found};
use crate::consumer::postgres::destination::{Database, PgDestination};
use crate::consumer::postgres::error::PgError;
use crate::consumer::postgres::metrics::PgMetrics;
use crate::consumer::postgres::offsets::{self, Identity, OffsetRow, progress};
use crate::consumer::postgres::session::{Session, lock_class};
use crate::consumer::postgres::take::{self, Moment};
use crate::consumer::progress::Progress;

/// Tables that are not open yet.
pub struct PgOpener {
    config: ConsumerConfig,
    url: PostgresUrl,
    place: String,
    /// Name of this start.
    writer: String,
    session: Option<Session>,
    /// What the tables are like, once that was checked.
    found: Option<Found>,
    metrics: Option<PgMetrics>,
}

impl PgOpener {
    /// Does not connect yet.
    ///
    /// # Errors
    /// The settings name no database.
    pub fn new(config: &ConsumerConfig, metrics: &ConsumerMetrics) -> Result<Self, Failure> {
        let url = config.destination.database().map_err(Failure::bad_config)?;
        let url = url.ok_or_else(|| Failure::bad_config("DESTINATION_URL is not set"))?;
        Ok(Self {
            place: format!("{} schema {}", url.place(), config.destination.schema),
            url,
            config: config.clone(),
            writer: new_id(),
            session: None,
            found: None,
            metrics: Some(PgMetrics::new(metrics)),
        })
    }

    fn settings(&self) -> &DestinationConfig {
        &self.config.destination
    }

    /// Runs `call` with a session, which is dropped if it cannot be used afterwards.
    fn with_session<T>(
        &mut self,
        call: impl FnOnce(&mut Self, &mut Session) -> Result<T, DestinationError>,
    ) -> Result<T, DestinationError> {
        let mut session = match self.session.take() {
            Some(session) => session,
            None => self.connect()?,
        };
        let done = call(self, &mut session);
        self.session = session.after(&done);
        done
    }

    fn connect(&mut self) -> Result<Session, DestinationError> {
        let mut session = Session::open(self.settings(), &self.url).map_err(PgError::at_start)?;
        let settings = self.settings();
        let ids = self.config.ids.field().is_some();
        if settings.create_tables == CreateTables::Run {
            check::create(&mut session, &settings.schema, settings.monthly_partitions, ids)
                .map_err(PgError::at_start)?;
        }
        self.found = Some(check::tables(&mut session, settings, &self.url.user, ids)?);
        if let Some(metrics) = &self.metrics {
            metrics.connections.inc();
        }
        Ok(session)
    }

    /// Reads the rows of all shards and locks those of ours.
    fn read(&mut self, session: &mut Session) -> Result<Vec<OffsetRow>, DestinationError> {
        let (schema, topic) = (&self.settings().schema, &self.config.kafka.topic);
        let shard = self.config.reading.shard;
        let select = offsets::select(schema, topic, "ORDER BY partition");
        let read = |session: &mut Session| {
            let answer = session.run(&select).map_err(PgError::at_start)?;
            offsets::parse(&answer.rows).map_err(DestinationError::Refused)
        };
        let ours =
            read(session)?.into_iter().map(|row| row.partition).filter(|&partition| shard.takes(partition));
        if let Some(holder) = session.lock(lock_class(schema, topic), ours).map_err(PgError::at_start)? {
            return Err(DestinationError::Retryable(format!(
                "{}: {holder}; waiting for it to end",
                self.place
            )));
        }
        // Only what is read under the locks is not written by another one any more.
        read(session)
    }
}

impl Opener for PgOpener {
    type Destination = PgDestination;

    fn place(&self) -> &str {
        &self.place
    }

    fn predecessor(&self) -> Option<&str> {
        None
    }

    fn stored(&mut self) -> Result<Option<Stored>, DestinationError> {
        let rows = self.with_session(|this, session| this.read(session))?;
        let shard = self.config.reading.shard;
        let (ours, others): (Vec<_>, Vec<_>) = rows.iter().partition(|row| shard.takes(row.partition));
        let Some(log_id) = ours.first().or(others.first()).map(|row| row.log_id.clone()) else {
            return Ok(None);
        };
        let known = progress(&ours, &self.config.kafka.topic, &shard.to_string(), &log_id);
        // Other shards have given the tables their identity.
        let progress = known.unwrap_or_else(|| Progress {
            topic: self.config.kafka.topic.clone(),
            shard: shard.to_string(),
            log_id: Some(log_id),
            ..Progress::default()
        });
        // A server that took over, or was restored, may lack the latest transactions. Its rows and offsets still agree.
        Ok(Some(Stored { progress, may_be_old: true }))
    }

    /// The tables know all ids, whichever consumer wrote the rows.
    fn remembers(&self) -> Option<Remembered> {
        None
    }

    fn open(&mut self, progress: Progress, _: &[Recalled]) -> Result<PgDestination, DestinationError> {
        let us = Identity {
            schema: self.settings().schema.clone(),
            topic: progress.topic.clone(),
            topic_id: progress.topic_id.clone(),
            log_id: progress.log_id.clone().unwrap_or_default(),
            claim: progress.claim.unwrap_or_default(),
            writer: self.writer.clone(),
            shard: progress.shard.clone(),
        };
        let histories =
            self.with_session(|_, session| take::partitions(session, &us, &progress, Moment::Start))?;
        let database = Database {
            config: self.settings().clone(),
            url: self.url.clone(),
            found: self.found.clone().expect("checked when it was connected"),
            us,
        };
        let metrics = self.metrics.take().expect("tables are opened once");
        Ok(PgDestination::new(database, self.session.take(), progress, histories, metrics))
    }
}
