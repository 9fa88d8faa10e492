//! Compresses closed logs and removes the oldest ones. Never touches the open log.
//!
//! Runs in a thread of its own, since compressing a log takes longer than a batch may wait.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use crossbeam::channel::{Receiver, Sender, bounded};
use flate2::Compression;
use flate2::write::GzEncoder;

use crate::consumer::log::rotation::{self, Closed};
use crate::consumer::log::storage::{beside, parent};
use crate::thread::spawn;

/// Settings for closed logs.
#[derive(Clone, Debug)]
pub struct Archive {
    /// The open log; closed logs are in the same directory.
    pub log: PathBuf,
    /// Number of closed logs to keep; 0 keeps all.
    pub keep: usize,
    /// Compress closed logs with gzip.
    pub gzip: bool,
}

/// The running thread. Dropping it waits until the thread has finished its work.
pub struct Archiver(Option<(Sender<()>, JoinHandle<()>)>);

impl Archiver {
    /// Wakes the thread after a log was closed.
    pub fn log_closed(&self) {
        // If the channel is full, the thread will run anyway.
        self.0.iter().for_each(|(closed_logs, _)| _ = closed_logs.try_send(()));
    }
}

impl Drop for Archiver {
    fn drop(&mut self) {
        // If it panicked, that was logged, and the next start completes its work.
        if let Some((closed_logs, thread)) = self.0.take() {
            drop(closed_logs);
            let _ = thread.join();
        }
    }
}

impl Archive {
    /// Starts a thread that calls [`Self::tidy`] now and after each closed log.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn start(self) -> io::Result<Archiver> {
        let (send, closed_logs) = bounded(1);
        let thread = spawn("archiver", move || self.run(&closed_logs))?;
        Ok(Archiver(Some((send, thread))))
    }

    fn run(&self, closed_logs: &Receiver<()>) {
        loop {
            if let Err(error) = self.tidy() {
                log::warn!(
                    "tidying the closed logs of {} failed, will retry after the next rotation: {error}",
                    self.log.display()
                );
            }
            if closed_logs.recv().is_err() {
                return;
            }
        }
    }

    /// Removes the oldest closed logs and compresses the others. After a crash, the next call completes the
    /// work.
    ///
    /// # Errors
    /// A file operation failed.
    pub fn tidy(&self) -> io::Result<()> {
        let mut closed = self.closed()?;
        if self.keep > 0 {
            let excess = closed.len().saturating_sub(self.keep);
            for path in closed.drain(..excess) {
                for victim in [path.clone(), beside(&path, ".gz")] {
                    remove(&victim)?;
                }
            }
        }
        if self.gzip {
            for path in closed.iter().filter(|path| path.exists()) {
                pack(path)?;
            }
        }
        Ok(())
    }

    /// Lists the closed logs in the order in which they were closed, without the extension `.gz`.
    fn closed(&self) -> io::Result<Vec<PathBuf>> {
        let name = self.log.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut found: Vec<(Closed, String)> = Vec::new();
        for entry in fs::read_dir(parent(&self.log))? {
            let entry = entry?;
            let candidate = entry.file_name().to_string_lossy().into_owned();
            let Some(order) = rotation::closed(&name, &candidate) else { continue };
            if entry.file_type()?.is_file() {
                found.push((order, candidate.strip_suffix(".gz").unwrap_or(&candidate).to_owned()));
            }
        }
        found.sort_unstable();
        found.dedup();
        Ok(found.into_iter().map(|(_, name)| self.log.with_file_name(name)).collect())
    }
}

/// Replaces `path` with its compressed form. A complete copy exists at every moment.
fn pack(path: &Path) -> io::Result<()> {
    let (packed, part) = (beside(path, ".gz"), beside(path, ".gz.part"));
    let mut encoder = GzEncoder::new(File::create(&part)?, Compression::fast());
    io::copy(&mut File::open(path)?, &mut encoder)?;
    encoder.finish()?.sync_all()?;
    fs::rename(&part, &packed)?;
    File::open(parent(path))?.sync_all()?;
    remove(path)
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use flate2::read::GzDecoder;

    use super::*;

    #[test]
    fn the_newest_are_kept_and_packed_and_foreign_files_left_alone() {
        let dir = tempfile::tempdir().expect("directory");
        let path = |name: &str| dir.path().join(name);
        let closed = |number: u64| rotation::closed_name("events.log", number, -(number as i64) * 86_400_000);
        for number in 2..=4 {
            fs::write(path(&closed(number)), format!("number {number}\n")).expect("write");
        }
        fs::write(path("events-20990101T000000000Z-000.log"), "of an older version").expect("write");
        let directory = closed(5);
        fs::create_dir(path(&directory)).expect("create");
        for name in ["events.log", "events-0.log", "events.rejected"] {
            fs::write(path(name), "open\n").expect("write");
        }
        // Simulates a crash between the rename of the compressed file and the removal of the original.
        fs::write(path(&format!("{}.gz", closed(3))), "half").expect("write");
        let archive = Archive { log: path("events.log"), keep: 2, gzip: true };
        archive.tidy().expect("tidy");
        archive.tidy().expect("tidy again");
        let mut names: Vec<String> = fs::read_dir(dir.path())
            .expect("list")
            .map(|entry| entry.expect("entry").file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        let packed = [format!("{}.gz", closed(3)), format!("{}.gz", closed(4))];
        let expected = ["events-0.log", &packed[0], &packed[1], &directory, "events.log", "events.rejected"];
        assert_eq!(names, expected);
        let mut text = String::new();
        GzDecoder::new(File::open(path(&packed[0])).expect("open")).read_to_string(&mut text).expect("gzip");
        assert_eq!(text, "number 3\n");
    }
}
