//! Keeps a session with the database: reconnects, and finds out there what became of the last commit.

use std::time::Duration;

use crate::consumer::destination::DestinationError;
use crate::consumer::postgres::destination::PgDestination;
use crate::consumer::postgres::error::PgError;
use crate::consumer::postgres::metrics::{COMMITTED, ROLLED_BACK};
use crate::consumer::postgres::offsets::{self, Look, Standing};
use crate::consumer::postgres::session::{Session, lock_class};

/// How often an idle session is checked.
const CHECK_INTERVAL: Duration = Duration::from_secs(5);

impl PgDestination {
    /// Runs `call` with a session in which our rows are as we left them.
    ///
    /// # Errors
    /// Those of `call`. Retryable while the database is away.
    pub fn with_session<T>(
        &mut self,
        call: impl FnOnce(&mut Self, &mut Session) -> Result<T, DestinationError>,
    ) -> Result<T, DestinationError> {
        let mut session = match self.session.take() {
            Some(session) => session,
            None => self.reconnect()?,
        };
        let done = call(self, &mut session);
        self.session = session.after(&done);
        done
    }

    fn reconnect(&mut self) -> Result<Session, DestinationError> {
        let (config, url) = (&self.database.config, &self.database.url);
        let mut session = Session::open(config, url).map_err(PgError::while_running)?;
        self.metrics.connections.inc();
        // It may be another server, which lacks the latest ones.
        self.months = None;
        // A newer owner is known by its claim, which says more than its lock.
        self.find_out(&mut session, Look::Locked)?;
        let us = &self.database.us;
        let ours = self.covered.offsets.keys().copied();
        let holder = session.lock(lock_class(&us.schema, &us.topic), ours).map_err(PgError::while_running)?;
        if let Some(holder) = holder {
            return Err(DestinationError::Retryable(holder));
        }
        log::info!("connected to {}", session.host());
        Ok(session)
    }

    /// Finds out whether our rows are as we left them, and what became of a commit of unknown outcome.
    ///
    /// # Errors
    /// Refused if another consumer owns one of them. Restart if the database is in an older state.
    pub fn find_out(&mut self, session: &mut Session, look: Look) -> Result<(), DestinationError> {
        let us = &self.database.us;
        let list: Vec<String> = self.covered.offsets.keys().map(i32::to_string).collect();
        if list.is_empty() {
            return Ok(());
        }
        let locked = if look == Look::Locked { " FOR UPDATE" } else { "" };
        let more = format!("AND partition IN ({}) ORDER BY partition{locked}", list.join(", "));
        let answer = session.run(&offsets::select(&us.schema, &us.topic, &more));
        let rows = offsets::parse(&answer.map_err(PgError::while_running)?.rows)
            .map_err(DestinationError::Refused)?;
        let doubt = self.doubt.as_ref().map(|(progress, _)| &progress.offsets);
        let outcome = match offsets::standing(us, &rows, &self.covered.offsets, doubt) {
            Standing::AsBefore => ROLLED_BACK,
            Standing::Committed => COMMITTED,
            Standing::Taken(reason) => return Err(DestinationError::Refused(reason)),
            Standing::Behind(reason) => return Err(DestinationError::Restart(reason)),
        };
        if let Some((progress, written)) = self.doubt.take() {
            self.metrics.doubts.with_label_values(&[outcome]).inc();
            log::info!(
                "the connection was lost in a commit; the transaction was {}",
                outcome.replace('_', " ")
            );
            if outcome == COMMITTED {
                self.committed(progress, &written);
            }
        }
        Ok(())
    }

    /// Looks from time to time whether the database is there and the partitions are still ours.
    ///
    /// # Errors
    /// As for [`Self::find_out`].
    pub fn check_idle(&mut self) -> Result<(), DestinationError> {
        if self.session.as_ref().is_none_or(|session| session.answered.elapsed() >= CHECK_INTERVAL) {
            self.with_session(|this, session| this.find_out(session, Look::Plain))?;
        }
        Ok(())
    }
}
