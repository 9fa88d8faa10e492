//! Collects outcomes from all threads and writes them to the ledger and the record file.
//!
//! Each thread buffers entries briefly and hands them over under a single lock. The record is written
//! immediately after that, so a crash of the simulator loses at most what was buffered.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::simulate::ledger::{self, Entry, Ledger};

/// Most entries that a thread buffers.
const MAX_GATHERED: usize = 256;

/// Longest time that an entry stays in the buffer, checked before each request of its thread.
const MAX_AGE: Duration = Duration::from_millis(50);

/// Destination of the entries of one run.
#[derive(Debug)]
pub struct Journal {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    ledger: Option<Ledger>,
    record: Option<File>,
    text: String,
    failure: Option<io::Error>,
}

impl Journal {
    /// Creates a journal of `run` that keeps a ledger, writes a record, or both.
    ///
    /// # Errors
    /// The record already exists or cannot be created.
    pub fn create(run: &str, keep_ledger: bool, record: Option<&Path>) -> io::Result<Self> {
        let record = record.map(|path| {
            let mut file = OpenOptions::new().append(true).create_new(true).open(path)?;
            file.write_all(ledger::record_head(run).as_bytes()).map(|()| file)
        });
        Ok(Self {
            state: Mutex::new(State {
                ledger: keep_ledger.then(|| Ledger::new(run.to_owned())),
                record: record.transpose()?,
                text: String::new(),
                failure: None,
            }),
        })
    }

    fn take(&self, entries: &[Entry]) {
        let mut state = self.state.lock();
        let State { ledger, record, text, failure } = &mut *state;
        if let Some(ledger) = ledger {
            entries.iter().for_each(|entry| ledger.enter(entry));
        }
        if let Some(record) = record
            && failure.is_none()
        {
            text.clear();
            entries.iter().for_each(|entry| entry.write_line(text));
            *failure = record.write_all(text.as_bytes()).err();
        }
    }

    /// Returns the ledger, if one was kept.
    ///
    /// # Errors
    /// Writing the record failed. Returns the first error; nothing was written to the record after it.
    pub fn finish(self) -> io::Result<Option<Ledger>> {
        let state = self.state.into_inner();
        state.failure.map_or(Ok(state.ledger), Err)
    }
}

/// Buffers one thread's entries for a journal; hands over the remaining ones when dropped.
#[derive(Debug)]
pub struct JournalWriter<'a> {
    journal: &'a Journal,
    gathered: Vec<Entry>,
    oldest: Option<Instant>,
}

impl<'a> JournalWriter<'a> {
    /// Creates a writer for `journal`.
    pub fn new(journal: &'a Journal) -> Self {
        Self { journal, gathered: Vec::with_capacity(MAX_GATHERED), oldest: None }
    }

    /// Adds an outcome.
    pub fn add(&mut self, entry: Entry) {
        if !self.gathered.last_mut().is_some_and(|last| last.extend(&entry)) {
            self.gathered.push(entry);
        }
        if self.gathered.len() >= MAX_GATHERED {
            self.hand_over();
        }
    }

    /// Hands over the buffer once its oldest entry has waited for 50 ms. Call it before anything that may
    /// block.
    pub fn settle(&mut self, now: Instant) {
        if self.gathered.is_empty() {
            return;
        }
        let oldest = *self.oldest.get_or_insert(now);
        if now.saturating_duration_since(oldest) >= MAX_AGE {
            self.hand_over();
        }
    }

    fn hand_over(&mut self) {
        self.journal.take(&self.gathered);
        self.gathered.clear();
        self.oldest = None;
    }
}

impl Drop for JournalWriter<'_> {
    fn drop(&mut self) {
        self.hand_over();
    }
}

/// Reads the record of an earlier run. An incomplete last line, as a crash leaves it, is ignored.
///
/// # Errors
/// Text for the user: the file cannot be read, is not a record, or is damaged before its last line.
pub fn read_record(path: &Path) -> Result<Ledger, String> {
    let failed = |what: &str| format!("record {}: {what}", path.display());
    let mut reader = BufReader::new(File::open(path).map_err(|error| failed(&error.to_string()))?);
    let mut line = String::new();
    reader.read_line(&mut line).map_err(|error| failed(&error.to_string()))?;
    let run = line.strip_suffix('\n').and_then(ledger::parse_head);
    let mut ledger = Ledger::new(
        run.ok_or_else(|| failed("does not start like a record written by --record"))?.to_owned(),
    );
    for number in 2.. {
        line.clear();
        if reader.read_line(&mut line).map_err(|error| failed(&error.to_string()))? == 0 {
            break;
        }
        let Some(whole) = line.strip_suffix('\n') else { break };
        let entry = Entry::parse_line(whole);
        ledger.enter(&entry.ok_or_else(|| failed(&format!("line {number} is damaged: {whole:?}")))?);
    }
    Ok(ledger)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::broker::Receipt;
    use crate::simulate::answer::Fate;

    fn acknowledged(first: u32, offset: i64) -> Entry {
        let fate = Fate::Acknowledged(Some(Receipt { partition: 0, offset }));
        Entry { first, count: 1, fate, retried: false }
    }

    #[test]
    fn a_record_read_back_gives_the_same_ledger() {
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("record");
        let journal = Journal::create("k3x9", true, Some(&path)).expect("create");
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let mut writer = JournalWriter::new(&journal);
                scope.spawn(move || {
                    (0..1000).for_each(|n| writer.add(acknowledged(n * 4 + thread, (n * 7).into())))
                });
            }
        });
        let kept = journal.finish().expect("written").expect("kept");
        let read = read_record(&path).expect("read");
        assert_eq!((&*read.run, read.end(), kept.end()), ("k3x9", 4000, 4000));
        assert!((0..4000).all(|seq| read.fate(seq) == kept.fate(seq) && read.fate(seq).is_some()));
        let again = Journal::create("other", false, Some(&path)).expect_err("must not overwrite");
        assert_eq!(again.kind(), io::ErrorKind::AlreadyExists);
    }

    #[test]
    fn an_entry_is_on_disk_a_moment_later_though_the_thread_goes_on() {
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("record");
        let journal = Journal::create("k3x9", false, Some(&path)).expect("create");
        let mut writer = JournalWriter::new(&journal);
        let start = Instant::now();
        writer.add(acknowledged(5, 9));
        writer.settle(start);
        assert_eq!(fs::read_to_string(&path).expect("read").lines().count(), 1);
        writer.settle(start + MAX_AGE);
        assert_eq!(fs::read_to_string(&path).expect("read").lines().nth(1), Some("5 1 ack 0 9"));
    }

    #[test]
    fn a_cut_tail_is_left_out_and_damage_before_it_is_told() {
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("record");
        fs::write(&path, "simulate-record 1 run=k3x9\n0 1 ack 0 5\n1 1 ack 0").expect("write");
        assert_eq!(read_record(&path).expect("read").end(), 1);
        fs::write(&path, "simulate-record 1 run=k3x9\n0 1 ack 0\n1 1 unknown\n").expect("write");
        assert!(read_record(&path).unwrap_err().contains("line 2 is damaged"));
        fs::write(&path, "hello\n").expect("write");
        assert!(read_record(&path).unwrap_err().contains("does not start like"));
    }
}
