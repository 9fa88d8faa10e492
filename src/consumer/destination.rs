//! The interface of a destination, where events go: the log files, or a database.
//!
//! A destination owns its offsets: it stores the progress together with the events, so that both are durable or
//! neither is. Reading, retries and the group are above; files, transactions and their limits are below.

use std::time::Duration;

use crate::consumer::progress::Progress;
use crate::event::{EventError, EventId};

/// Why a destination cannot continue; the text is for operators.
#[derive(Debug, PartialEq, Eq)]
pub enum DestinationError {
    /// Worth a retry, for example when the disk is full.
    Retryable(String),
    /// An operator has to decide; the text lists the options.
    Refused(String),
    /// The settings do not fit what is there, for example a password; the text says what to change.
    Unusable(String),
    /// It has gone back to an older state. The next start continues from there.
    Restart(String),
}

/// A record of the topic.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// The partition it was read from.
    pub partition: i32,
    /// Its offset there.
    pub offset: i64,
    /// Its bytes.
    pub value: &'a [u8],
    /// Its time in milliseconds since the epoch, if that is known.
    pub time: Option<i64>,
    /// Its line, or why it is not a valid event.
    pub event: Result<&'a str, &'a EventError>,
    /// The id of the event, if it has one and repeated events are dropped.
    pub id: Option<&'a EventId<'a>>,
    /// Now, in milliseconds since the epoch.
    pub now: i64,
}

/// What became of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Staged {
    /// It is in memory, where it needs so many bytes.
    Taken(usize),
    /// It repeats an event that the destination has.
    Dropped,
    /// It cannot join those before it: it has to be staged again after [`Destination::settle`], which makes room.
    Full,
}

/// A destination that was opened. The writing thread drives it.
pub trait Destination: Send + 'static {
    /// What it is called in problems.
    const NAME: &'static str;

    /// The progress that is durable.
    fn covered(&self) -> &Progress;

    /// Takes `record` into memory.
    fn stage(&mut self, record: &Record<'_>) -> Staged;

    /// Writes what was staged, after which the progress is `read`, and makes it durable if `now` or if it is time to.
    /// Called at least once per second and after each SIGHUP, so it also does what is due while no records arrive.
    /// Returns how long the rest may wait, or `None` if everything is durable.
    ///
    /// # Errors
    /// It cannot be written. Calling it again with the same arguments neither loses nor duplicates anything.
    fn settle(&mut self, read: &Progress, now: bool) -> Result<Option<Duration>, DestinationError>;

    /// Stores that the consumer shut down cleanly with everything settled.
    ///
    /// # Errors
    /// That cannot be stored. Nothing is lost or duplicated without it.
    fn close(&mut self) -> Result<(), DestinationError>;
}

/// The progress that a destination has stored.
#[derive(Clone, Debug)]
pub struct Stored {
    /// The latest that it has.
    pub progress: Progress,
    /// The machine went down before it was forced to the disk, so an older one may be what is left.
    pub may_be_old: bool,
}

/// Which events a destination remembers by their ids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remembered {
    /// Member of the events that is their id.
    pub field: String,
    /// How long at least, in milliseconds, unless there are more than `ids`.
    pub millis: i64,
    /// How many at least, even if they are older.
    pub ids: usize,
}

/// An event that another destination has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recalled {
    /// Time of its record, in milliseconds since the epoch.
    pub time: i64,
    /// Its id.
    pub id: Box<[u8]>,
    /// Checksum of the event, as in [`EventId`].
    pub checksum: u32,
}

/// A destination before it is open.
pub trait Opener {
    /// What it opens.
    type Destination: Destination;

    /// Where the destination is, shown to the operator of another one.
    fn place(&self) -> &str;

    /// Identity of the log that was at this place last, if it is known.
    fn predecessor(&self) -> Option<&str>;

    /// Reads the stored progress; `None` if there is none.
    ///
    /// # Errors
    /// It cannot be read, or belongs to something else (refused).
    fn stored(&mut self) -> Result<Option<Stored>, DestinationError>;

    /// Which events have to be recalled where it continues after another destination; `None` if it needs none.
    fn remembers(&self) -> Option<Remembered>;

    /// Opens the destination at `progress`, which is durable from then on together with the ids of the `recalled`
    /// events. Not called again once it succeeded.
    ///
    /// # Errors
    /// See [`DestinationError`]. After a retryable one, calling it again resumes.
    fn open(
        &mut self,
        progress: Progress,
        recalled: &[Recalled],
    ) -> Result<Self::Destination, DestinationError>;
}
