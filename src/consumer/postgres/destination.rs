//! The tables as a destination: gathers records into a transaction, commits it, and finds out what became of it if the
//! connection is lost.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::config::{DestinationConfig, PostgresUrl};
use crate::consumer::destination::{Destination, DestinationError, Record, Staged};
use crate::consumer::metrics::{DIFFERS, REPEATED};
use crate::consumer::postgres::batch::{Batch, Columns, Reject};
use crate::consumer::postgres::check::{self, Found};
use crate::consumer::postgres::copy::EventType;
use crate::consumer::postgres::error::{Kind, PgError};
use crate::consumer::postgres::metrics::PgMetrics;
use crate::consumer::postgres::offsets::{self, Identity, Look, row_key};
use crate::consumer::postgres::refusal::{REFUSED, refusal};
use crate::consumer::postgres::rows::{Plan, Written};
use crate::consumer::postgres::session::Session;
use crate::consumer::postgres::take::{self, Moment};
use crate::consumer::postgres::transaction::{self, Failed};
use crate::consumer::progress::Progress;
use crate::tables::MonthOf;

/// Most rows of one transaction.
const ROWS_MAX: usize = 100_000;
/// A transaction of so many bytes does not wait for more.
const ENOUGH_BYTES: usize = 1 << 20;
/// How often a server may run out of memory before a row of the batch is blamed for it: with the writer's waits, some 20 s.
const EXHAUSTED_MAX: u32 = 10;

/// Where the tables are, and what is known of them.
pub struct Database {
    /// The settings.
    pub config: DestinationConfig,
    /// The database.
    pub url: PostgresUrl,
    /// What the tables are like.
    pub found: Found,
    /// Who we are in them.
    pub us: Identity,
}

/// The open tables.
pub struct PgDestination {
    /// Where they are.
    pub database: Database,
    /// Connected, unless that was lost.
    pub session: Option<Session>,
    /// What the database has confirmed.
    pub covered: Progress,
    /// The column `topic_id` of new rows.
    keys: BTreeMap<i32, String>,
    batch: Batch,
    waiting_since: Option<Instant>,
    /// A commit whose outcome is unknown.
    pub doubt: Option<(Progress, Written)>,
    /// Most rows in one statement, after one that took too long.
    rows_max: Option<usize>,
    /// How often the server has run out of memory since the last commit.
    exhausted: u32,
    /// The months of the oldest and the newest row for which partitions are known to exist.
    pub months: Option<(MonthOf, MonthOf)>,
    /// The metrics.
    pub metrics: PgMetrics,
}

impl PgDestination {
    /// Continues at `covered`, which the database has.
    pub fn new(
        database: Database,
        session: Option<Session>,
        covered: Progress,
        histories: BTreeMap<i32, i32>,
        metrics: PgMetrics,
    ) -> Self {
        let mut this = Self {
            database,
            session,
            covered,
            keys: BTreeMap::new(),
            batch: Batch::default(),
            waiting_since: None,
            doubt: None,
            rows_max: None,
            exhausted: 0,
            months: None,
            metrics,
        };
        this.add_histories(histories);
        this
    }

    /// `histories` say how often reading went back in each partition.
    fn add_histories(&mut self, histories: BTreeMap<i32, i32>) {
        let Identity { topic, topic_id, .. } = &self.database.us;
        for (partition, history) in histories {
            self.keys.insert(partition, row_key(topic, topic_id.as_deref(), history));
        }
    }

    fn key(&mut self, partition: i32) -> &str {
        let Identity { topic, topic_id, .. } = &self.database.us;
        self.keys.entry(partition).or_insert_with(|| row_key(topic, topic_id.as_deref(), 0))
    }

    fn reject(&mut self, record: &Record<'_>, reason: &str, message: String) -> usize {
        let &Record { partition, offset, now, value, .. } = record;
        let (key, reason) = (self.key(partition).to_owned(), reason.to_owned());
        self.batch.reject(Reject { key, partition, offset, now, reason, message, value: value.to_vec() })
    }

    /// How long what was staged may wait for more.
    fn may_wait(&self) -> Duration {
        let since = self.waiting_since.map_or(Duration::ZERO, |since| since.elapsed());
        let enough = self.batch.bytes() >= ENOUGH_BYTES || self.batch.len() >= ROWS_MAX;
        if enough || self.doubt.is_some() {
            Duration::ZERO
        } else {
            self.database.config.commit_wait().saturating_sub(since)
        }
    }

    /// Writes everything that was staged, after which the progress is `read`.
    fn write(&mut self, session: &mut Session, read: &Progress) -> Result<(), DestinationError> {
        self.take_new_partitions(session, read)?;
        self.create_months(session)?;
        let changes = offsets::changes(&self.covered, read);
        if changes.is_empty() && self.batch.is_empty() {
            self.covered.clone_from(read);
            self.waiting_since = None;
            return Ok(());
        }
        let began = Instant::now();
        let plan = Plan {
            schema: &self.database.us.schema,
            advance: (offsets::advance(&self.database.us, &changes), changes.len()),
            batch: &self.batch,
            ids: self.database.found.ids,
            event: self.database.found.event,
            rows_max: self.rows_max,
            is_patient: self.exhausted < EXHAUSTED_MAX,
        };
        let written = match transaction::write(session, &plan) {
            Ok(written) => written,
            Err(failed) => return Err(self.failed(session, failed)),
        };
        self.doubt = Some((read.clone(), written));
        if let Err(error) = transaction::commit(session) {
            if !error.ends_connection() {
                self.doubt = None;
            }
            return Err(error.while_running());
        }
        self.metrics.transaction_seconds.observe(began.elapsed().as_secs_f64());
        let (progress, written) = self.doubt.take().expect("set above");
        self.committed(progress, &written);
        Ok(())
    }

    /// Makes partitions ours that are read for the first time.
    fn take_new_partitions(
        &mut self,
        session: &mut Session,
        read: &Progress,
    ) -> Result<(), DestinationError> {
        let first = |(&partition, &next): (&i32, &i64)| {
            let is_new = !self.covered.offsets.contains_key(&partition);
            is_new.then(|| (partition, self.batch.first_offset(partition).unwrap_or(next).min(next)))
        };
        let new =
            Progress { offsets: read.offsets.iter().filter_map(first).collect(), ..Progress::default() };
        let histories = take::partitions(session, &self.database.us, &new, Moment::Running)?;
        self.add_histories(histories);
        self.covered.offsets.extend(new.offsets);
        Ok(())
    }

    fn create_months(&mut self, session: &mut Session) -> Result<(), DestinationError> {
        let Some((oldest, newest)) = self.batch.times().filter(|_| self.database.found.monthly) else {
            return Ok(());
        };
        let months = (MonthOf::at(oldest), MonthOf::at(newest));
        if self.months != Some(months) {
            let (schema, ids) = (&self.database.us.schema, self.database.found.ids.is_some());
            check::months(session, schema, months, ids).map_err(PgError::while_running)?;
            self.months = Some(months);
        }
        Ok(())
    }

    fn failed(&mut self, session: &mut Session, failed: Failed) -> DestinationError {
        match failed {
            Failed::NotOurs if !session.recover() => {
                DestinationError::Retryable("the connection was lost".into())
            }
            Failed::NotOurs => match self.find_out(session, Look::Locked) {
                Err(error) => error,
                Ok(()) => {
                    DestinationError::Retryable("event_offsets was locked by another transaction".into())
                }
            },
            Failed::Slow(rows, why) => {
                self.rows_max = Some((rows / 2).max(1));
                DestinationError::Retryable(format!("a statement with {rows} rows took too long: {why}"))
            }
            Failed::Exists(error) => DestinationError::Refused(format!(
                "{error}: the table has a row at an offset that was not written yet, so the tables do not agree: was one \
                 of them changed or restored alone? Start again to see which rows"
            )),
            Failed::Call(error) => {
                let is_exhausted = matches!(&error, PgError::Sql(error) if error.kind() == Kind::Exhausted);
                self.exhausted += u32::from(is_exhausted);
                error.while_running()
            }
        }
    }

    /// The database has `progress` and with it all of the batch.
    pub fn committed(&mut self, progress: Progress, written: &Written) {
        let rows = self.batch.len();
        // Twice as many at a time, until all rows fit again.
        self.rows_max = self.rows_max.map(|most| most.saturating_mul(2)).filter(|most| *most < rows.max(1));
        self.exhausted = 0;
        self.covered = progress;
        self.batch.clear();
        self.waiting_since = None;
        self.metrics.events.inc_by(written.events);
        self.metrics.refused.inc_by(written.refused.len() as u64);
        self.metrics.duplicates.with_label_values(&[REPEATED]).inc_by(written.repeated);
        self.metrics.duplicates.with_label_values(&[DIFFERS]).inc_by(written.differing);
        if let Some(Reject { partition, offset, message, .. }) = written.refused.last() {
            log::warn!(
                "the database does not accept {} events, which are in event_rejects; the last: partition {partition} offset \
                 {offset}: {message}",
                written.refused.len()
            );
        }
        if written.differing > 0 {
            log::warn!("dropped {} events that have the id of another event in the table", written.differing);
        }
    }
}

impl Destination for PgDestination {
    const NAME: &'static str = "postgres";

    fn covered(&self) -> &Progress {
        &self.covered
    }

    fn stage(&mut self, record: &Record<'_>) -> Staged {
        if self.batch.len() >= ROWS_MAX {
            return Staged::Full;
        }
        let text = match record.event {
            Ok(text) => text,
            Err(error) => {
                return Staged::Taken(self.reject(record, error.kind.as_str(), error.message.clone()));
            }
        };
        let Found { event, ids, .. } = self.database.found;
        if let Some(why) = refusal(text).filter(|_| event == EventType::Jsonb) {
            self.metrics.refused.inc();
            return Staged::Taken(self.reject(record, REFUSED, why.to_owned()));
        }
        self.key(record.partition);
        let columns = Columns { key: &self.keys[&record.partition], event, ids: ids.is_some() };
        Staged::Taken(self.batch.add(columns, record, text))
    }

    fn settle(&mut self, read: &Progress, now: bool) -> Result<Option<Duration>, DestinationError> {
        let is_behind =
            !self.batch.is_empty() || read.offsets != self.covered.offsets || self.doubt.is_some();
        // What was read may be described in another way without a new record: that can wait.
        if !is_behind && (!now || *read == self.covered) {
            return self.check_idle().map(|()| None);
        }
        self.waiting_since.get_or_insert_with(Instant::now);
        let may_wait = self.may_wait();
        if !now && !may_wait.is_zero() {
            return Ok(Some(may_wait));
        }
        self.with_session(|this, session| this.write(session, read))?;
        Ok(None)
    }

    fn close(&mut self) -> Result<(), DestinationError> {
        self.session.take().into_iter().for_each(Session::close);
        Ok(())
    }
}
