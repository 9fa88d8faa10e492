//! What happens to closed logs: packed, and the oldest removed. Never touches the open one.
//!
//! A thread of its own, since packing takes longer than a batch may wait.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use crossbeam::channel::Receiver;
use flate2::Compression;
use flate2::write::GzEncoder;

use super::rotation::{self, Closed};
use super::storage::{beside, parent};

/// What to do with closed logs.
#[derive(Clone, Debug)]
pub struct Archive {
    /// The open log; closed ones stand beside it.
    pub log: PathBuf,
    /// Closed logs to keep; 0 keeps all.
    pub keep: usize,
    /// Pack them.
    pub gzip: bool,
}

impl Archive {
    /// Tidies now and after each message, until the sender is gone.
    pub fn run(&self, closed_logs: &Receiver<()>) {
        loop {
            if let Err(error) = self.tidy() {
                log::warn!("closed logs of {} stay as they are for now: {error}", self.log.display());
            }
            if closed_logs.recv().is_err() {
                return;
            }
        }
    }

    /// Removes what is too old, packs what is not packed. Called again after any crash, it finishes.
    ///
    /// # Errors
    /// As the system says.
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

    /// Closed logs without the ending of packed ones, in the order in which they were closed.
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

/// Replaces `path` by its packed form. At every moment one whole form is there.
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
        // A crash after the rename of the packed form left both.
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
