//! Waits until the log holds what a ledger says it must hold, then says what it found.
//!
//! Each look reads the files again from where they stood when the run began, so rotation, packing and a
//! consumer that cuts its file back after a crash need no bookkeeping here; a look costs at most as much time
//! as was waited for it.

use std::io;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use crate::shutdown::Shutdown;
use crate::simulate::audit::{Auditor, Findings};
use crate::simulate::ledger::Ledger;
use crate::simulate::log_files::{self, Mark, Piece, Seen};

/// Shortest wait between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Events of unknown outcome may still come: the log is given so long without growth.
const QUIET: Duration = Duration::from_secs(2);

/// One look at the log.
pub struct Look {
    /// What the whole lines say.
    pub findings: Findings,
    /// True when a file ends without a line end.
    open_end: bool,
}

/// Looks at `log` once; an unfinished last line counts as torn.
///
/// # Errors
/// When a file cannot be read.
pub fn look(ledger: &Ledger, log: &Path, mark: &Mark) -> io::Result<Look> {
    let mut auditor = Auditor::new(ledger);
    let mut open_end = false;
    log_files::read(log, mark, |piece| match piece {
        Piece::Line(line) => auditor.line(line),
        Piece::Long(line) => auditor.long(line),
        Piece::Torn(line) => auditor.torn(line),
        Piece::Open(line) => {
            open_end = true;
            auditor.torn(line);
        }
    })?;
    Ok(Look { findings: auditor.finish(), open_end })
}

/// Looks at `log` until it has caught up, at most for `limit`, and returns the last look. A shutdown that begins
/// meanwhile ends it; one that had begun ended the load, and what was acknowledged may still be on its way.
///
/// # Errors
/// The last failure to read when the time is up.
pub fn wait(
    ledger: &Ledger,
    log: &Path,
    mark: &Mark,
    limit: Duration,
    shutdown: &Shutdown,
) -> io::Result<Findings> {
    let deadline = Instant::now() + limit;
    let load_was_cut = shutdown.requested();
    let mut files: Vec<Seen> = Vec::new();
    let mut changed = Instant::now();
    let mut last: Option<io::Result<Look>> = None;
    loop {
        let begun = Instant::now();
        let now_there = log_files::list(log)?;
        if last.as_ref().is_none_or(io::Result::is_err) || now_there != files {
            files = now_there;
            changed = begun;
            last = Some(look(ledger, log, mark));
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
    last.unwrap_or_else(|| look(ledger, log, mark)).map(|look| look.findings)
}

fn has_settled(look: &Look, quiet: Duration) -> bool {
    let complete = look.findings.lost.count == 0 && !look.open_end;
    complete && (look.findings.unknown_missing == 0 || quiet >= QUIET)
}
