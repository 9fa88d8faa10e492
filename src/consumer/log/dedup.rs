//! Decides for each event whether it repeats one that is in the log. Pure, except that it begins the files.

use crate::consumer::destination::DestinationError;
use crate::consumer::log::event_log::EventLog;
use crate::consumer::log::id_files::push_entry;
use crate::consumer::log::ids::{Fingerprint, Key, Window};
use crate::consumer::log::storage::Storage;
use crate::event::EventId;

/// What an event is in view of its id.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is not in the log as far as that is remembered.
    New(Fingerprint),
    /// It is in the log.
    Repeated,
    /// Another event in the log has this id.
    Differs,
    /// A new one, but a generation has to be begun before.
    Full,
}

/// Drops repeated events of one log.
pub struct Dedup {
    key: Key,
    window: Window,
    /// For the file, since the last [`Self::take`].
    entries: Vec<u8>,
    /// A generation has to be begun before the next id.
    is_due: bool,
    /// When the last record without a time of its own was seen.
    last_now: Option<i64>,
}

impl Dedup {
    /// Continues with `window`.
    pub fn new(key: Key, window: Window) -> Self {
        Self { key, window, entries: Vec::new(), is_due: false, last_now: None }
    }

    /// What the event with this `id` is. `time` is that of its record, `now` the present one, both in milliseconds since
    /// the epoch.
    ///
    /// The window moves with the records, not with the clock, so that a consumer that was stopped finds what it would
    /// have found. Without times of records, the time while it was stopped does not count.
    pub fn judge(&mut self, id: &EventId<'_>, time: Option<i64>, now: i64) -> Verdict {
        let time = time.unwrap_or_else(|| match self.last_now.replace(now) {
            _ if self.window.time() == i64::MIN => now,
            Some(last) => self.window.time() + (now - last).max(0),
            None => self.window.time(),
        });
        // The sender of a record can claim any time; one in the future would end the window for all others.
        self.window.advance(time.min(now));
        let fingerprint = self.key.fingerprint(&id.text);
        match self.window.find(&fingerprint, id.checksum) {
            Some(true) => Verdict::Repeated,
            Some(false) => Verdict::Differs,
            None if self.window.is_due() => {
                self.is_due = true;
                Verdict::Full
            }
            None => Verdict::New(fingerprint),
        }
    }

    /// Remembers an event that is about to be logged. `fingerprint` is that of the verdict.
    pub fn add(&mut self, fingerprint: Fingerprint, checksum: u32) {
        self.window.add(fingerprint, checksum);
        push_entry(&mut self.entries, &fingerprint, checksum);
    }

    /// Takes what is to be appended to the file of the ids, and the window after it.
    pub fn take(&mut self) -> (&mut Vec<u8>, &Window) {
        (&mut self.entries, &self.window)
    }

    /// What is remembered.
    pub fn window(&self) -> &Window {
        &self.window
    }

    /// True if [`Self::begin_generation`] has something to do.
    pub fn is_due(&self) -> bool {
        self.is_due
    }

    /// Begins a generation if that is due. Everything before must be settled.
    ///
    /// # Errors
    /// A file operation failed; call it again until it succeeds.
    pub fn begin_generation<S: Storage>(&mut self, files: &mut EventLog<S>) -> Result<(), DestinationError> {
        if !self.is_due {
            return Ok(());
        }
        if self.window.is_due() {
            self.window.begin_generation();
        }
        files.begin_generation(&self.window)?;
        self.is_due = false;
        Ok(())
    }
}
