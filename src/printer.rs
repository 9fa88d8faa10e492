//! Prints lines from a thread of its own, so that a stalled reader never delays the threads that print.
//!
//! The queue is bounded in lines and in bytes; further lines are dropped and counted.

use std::io::{self, ErrorKind, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, Sender, bounded};

use crate::thread::spawn;

/// Most bytes that may wait to be printed. A longer line is always dropped.
const WAITING_BYTES: usize = 4 << 20;

/// Longest wait for the last lines on shutdown.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Shortest time between two notices while lines keep being dropped.
const NOTICE_INTERVAL: Duration = Duration::from_secs(1);

/// Pause before retrying to write to a full non-blocking pipe.
const FULL_WAIT: Duration = Duration::from_millis(20);

/// Reacts to dropped lines.
pub trait Dropped: Send + Sync + 'static {
    /// Called for each dropped line.
    fn count(&self) {}

    /// Returns the line that later reports how many were dropped, or `None` to print nothing.
    fn notice(&self, _lines: u64) -> Option<String> {
        None
    }
}

/// Ignores dropped lines.
pub struct Silently;

impl Dropped for Silently {}

/// Prints lines in order. Dropping it waits at most 2 s for the last lines.
pub struct Printer {
    lines: Sender<String>,
    thread: JoinHandle<()>,
    waiting: Arc<Waiting>,
}

/// State shared by both ends of the channel.
struct Waiting {
    lines: AtomicUsize,
    bytes: AtomicUsize,
    /// Dropped lines that have not been reported yet.
    dropped: AtomicU64,
    on_drop: Box<dyn Dropped>,
}

impl Printer {
    /// Starts the thread `name`, which prints to `out`. At most `waiting_lines` lines are queued.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn start(
        name: &str,
        out: impl Write + Send + 'static,
        waiting_lines: usize,
        on_drop: impl Dropped,
    ) -> io::Result<Self> {
        let (lines, queue) = bounded(waiting_lines);
        let waiting = Arc::new(Waiting {
            lines: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            dropped: AtomicU64::new(0),
            on_drop: Box::new(on_drop),
        });
        let shared = waiting.clone();
        let thread = spawn(name, move || print_all(&queue, &shared, out))?;
        Ok(Self { lines, thread, waiting })
    }

    /// True if a line of `bytes` bytes would be queued now. Lets callers skip formatting a line that would be
    /// dropped.
    pub fn has_room(&self, bytes: usize) -> bool {
        self.waiting.bytes.load(Ordering::Relaxed) + bytes <= WAITING_BYTES
    }

    /// Queues `line`, which must end with a line break, or drops it if the queue is full.
    pub fn print(&self, line: String) {
        let (waiting, bytes) = (&*self.waiting, line.len());
        waiting.lines.fetch_add(1, Ordering::SeqCst);
        let before = waiting.bytes.fetch_add(bytes, Ordering::SeqCst);
        let sent = before + bytes <= WAITING_BYTES && self.lines.try_send(line).is_ok();
        if !sent {
            waiting.done(bytes);
            waiting.drop_line();
        }
    }

    /// Waits until all lines are printed, at most 2 s.
    pub fn flush(&self) {
        let deadline = Instant::now() + LAST_WORDS;
        while self.waiting.lines.load(Ordering::SeqCst) > 0
            && !self.thread.is_finished()
            && Instant::now() < deadline
        {
            thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Printer {
    fn drop(&mut self) {
        self.flush();
    }
}

impl Waiting {
    fn done(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::SeqCst);
        self.lines.fetch_sub(1, Ordering::SeqCst);
    }

    fn drop_line(&self) {
        self.dropped.fetch_add(1, Ordering::SeqCst);
        self.on_drop.count();
    }

    /// Prints how many lines were dropped, if any.
    fn notice(&self, out: &mut impl Write) {
        let dropped = self.dropped.swap(0, Ordering::SeqCst);
        if dropped == 0 {
            return;
        }
        if let Some(notice) = self.on_drop.notice(dropped)
            && print(out, notice.as_bytes()).is_err()
        {
            self.dropped.fetch_add(dropped, Ordering::SeqCst);
        }
    }
}

fn print_all(queue: &Receiver<String>, waiting: &Waiting, mut out: impl Write) {
    let mut noticed: Option<Instant> = None;
    for line in queue {
        if print(&mut out, line.as_bytes()).is_err() {
            waiting.drop_line();
        }
        // While lines keep being dropped, the queue is never empty.
        if queue.is_empty() || noticed.is_none_or(|at| at.elapsed() >= NOTICE_INTERVAL) {
            waiting.notice(&mut out);
            noticed = Some(Instant::now());
        }
        waiting.done(line.len());
    }
}

/// Writes all of `bytes`, even to a non-blocking pipe.
fn print(out: &mut impl Write, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match out.write(bytes) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(FULL_WAIT),
            Err(error) => return Err(error),
        }
    }
    out.flush()
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    use super::*;

    struct Said;

    impl Dropped for Said {
        fn notice(&self, lines: u64) -> Option<String> {
            Some(format!("{lines} dropped\n"))
        }
    }

    fn number(line: &str) -> u64 {
        line.split(' ').next().and_then(|word| word.parse().ok()).expect("a number")
    }

    #[test]
    fn what_nobody_reads_holds_nobody_up_and_is_counted() {
        let (mut unread, out) = UnixStream::pair().expect("a pair");
        out.set_nonblocking(true).expect("set");
        let printer = Printer::start("test", out, 1024, Said).expect("a thread");
        for _ in 0..100_000 {
            printer.print("a line that waits\n".into());
        }
        let reader = thread::spawn(move || {
            let mut text = String::new();
            unread.read_to_string(&mut text).expect("text");
            text
        });
        // The thread closes its end of the pair once the channel is disconnected.
        drop(printer);
        let text = reader.join().expect("no panic");
        let lines: u64 =
            text.lines().map(|line| if line.ends_with("dropped") { number(line) } else { 1 }).sum();
        assert_eq!(lines, 100_000);
        assert!(text.contains(" dropped\n"));
    }

    #[test]
    fn a_line_longer_than_may_wait_is_dropped() {
        let (mut read, out) = UnixStream::pair().expect("a pair");
        let printer = Printer::start("test", out, 1024, Said).expect("a thread");
        assert!(printer.has_room(WAITING_BYTES) && !printer.has_room(WAITING_BYTES + 1));
        printer.print("x".repeat(WAITING_BYTES + 1));
        printer.print("short\n".into());
        drop(printer);
        let mut text = String::new();
        read.read_to_string(&mut text).expect("text");
        assert_eq!(text, "short\n1 dropped\n");
    }
}
