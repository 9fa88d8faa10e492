//! Audits the logs repeatedly until they have caught up with a ledger, then returns the findings.
//!
//! Each pass rereads everything that was written since the run began, so rotation, compression and a consumer
//! that truncates its file after a crash need no bookkeeping here. The wait between two passes is at least as
//! long as the last pass took.

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use crate::shutdown::Shutdown;
use crate::simulate::audit::Auditor;
use crate::simulate::findings::Findings;
use crate::simulate::ledger::Ledger;
use crate::simulate::log_files::Seen;
use crate::simulate::piece::Piece;
use crate::simulate::place::Places;

/// Shortest wait between two passes.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Time without any change of the log after which events of unknown outcome, and second copies of events that
/// were sent more than once, are not waited for any longer.
const QUIET: Duration = Duration::from_secs(2);

/// Result of one pass over the logs.
pub struct Look {
    /// Findings of the audit.
    findings: Findings,
    /// True if a plain file does not end with a line ending.
    open_end: bool,
    /// Files of a lake that are not in a manifest yet.
    unlisted: usize,
}

impl Look {
    /// The findings of the last pass. What is not finished by then is damaged.
    pub fn end(mut self) -> Findings {
        if self.unlisted > 0 {
            let what = format!("{} files are in no manifest: their logs are not finished", self.unlisted);
            self.findings.damaged.add(|| what);
        }
        self.findings
    }
}

/// Audits `places` once; an unfinished last line counts as torn.
///
/// # Errors
/// A file cannot be read.
pub fn look(ledger: &Ledger, places: &Places) -> io::Result<Look> {
    let mut auditor = Auditor::new(ledger);
    let (mut open_end, mut unlisted) = (false, 0);
    places.read(|piece| match piece {
        Piece::Begin => auditor.begin_log(),
        Piece::Event(event) => auditor.event(event),
        Piece::Damaged(what) => auditor.damaged(what),
        Piece::Unlisted => unlisted += 1,
        Piece::Line(line) => auditor.line(line),
        Piece::Long(line) => auditor.long(line),
        Piece::Torn(line) => auditor.torn(line),
        Piece::Open(line) => {
            open_end = true;
            auditor.torn(line);
        }
    })?;
    Ok(Look { findings: auditor.finish(), open_end, unlisted })
}

/// Audits `places` until they have caught up, for at most `limit`, and returns the findings of the last pass.
///
/// A shutdown requested during the wait ends it. One requested earlier only ended the load: acknowledged
/// events may still be on their way to the log, so they are waited for.
///
/// # Errors
/// The directory cannot be listed, or the files could not be read in the last pass.
pub fn wait(ledger: &Ledger, places: &Places, limit: Duration, shutdown: &Shutdown) -> io::Result<Findings> {
    let deadline = Instant::now() + limit;
    let load_was_cut = shutdown.requested();
    let mut files: Vec<Seen> = Vec::new();
    let mut changed = Instant::now();
    let mut last: Option<io::Result<Look>> = None;
    loop {
        let begun = Instant::now();
        let now_there = places.list()?;
        if last.as_ref().is_none_or(io::Result::is_err) || now_there != files {
            files = now_there;
            changed = begun;
            last = Some(look(ledger, places));
        }
        let cost = begun.elapsed();
        if let Some(Ok(look)) = &last
            && has_settled(look, changed.elapsed())
        {
            break;
        }
        if Instant::now() >= deadline || (shutdown.requested() && !load_was_cut) {
            break;
        }
        thread::sleep(LOOK_EVERY.max(cost).min(deadline.saturating_duration_since(Instant::now())));
    }
    last.unwrap_or_else(|| look(ledger, places)).map(Look::end)
}

fn has_settled(look: &Look, quiet: Duration) -> bool {
    let complete = look.findings.lost.count == 0 && !look.open_end && look.unlisted == 0;
    complete && (look.findings.unknown_missing + look.findings.repeated == 0 || quiet >= QUIET)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_copy_of_an_event_that_was_sent_again_is_waited_for() {
        let settled = |repeated, quiet| {
            let findings = Findings { repeated, ..Findings::default() };
            has_settled(&Look { findings, open_end: false, unlisted: 0 }, quiet)
        };
        assert!(settled(0, Duration::ZERO) && settled(1, QUIET));
        assert!(!settled(1, QUIET / 2), "a copy may be on its way");
    }
}
