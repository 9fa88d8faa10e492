//! Reads the ids of the logged events from the log and its closed files, in case their own files are lost.

use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use flate2::bufread::MultiGzDecoder;

use crate::consumer::destination::DestinationError;
use crate::consumer::log::ids::{Fingerprint, Key, Limits, Settings, Window};
use crate::consumer::log::lines::split_line;
use crate::consumer::log::paths::Paths;
use crate::consumer::log::rotation::closed;
use crate::consumer::log::storage::{Storage, doing};
use crate::event::one_line;

/// Bytes read from a file at once.
const CHUNK_BYTES: u64 = 1 << 20;

/// What follows the name of the log in the names of files that are not logs.
const OTHERS: [&str; 4] = [".ids-", ".checkpoint", ".lock", ".tmp"];

/// An event of the log: its time in milliseconds since the epoch, its id, and its checksum.
type Logged = (i64, Fingerprint, u32);

/// Returns a window with the ids in the logs, whose first generation has the number `first`. Adds a message to `notes`
/// for each file that cannot be read to its end.
///
/// # Errors
/// A file operation failed.
pub fn rebuild<S: Storage>(
    storage: &S,
    paths: &Paths,
    Settings { field, limits }: &Settings,
    key: &Key,
    first: u64,
    notes: &mut Vec<String>,
) -> Result<Window, DestinationError> {
    let mut logged: Vec<Logged> = Vec::new();
    for name in recent_logs(storage, paths, *limits)? {
        let path = paths.log.with_file_name(&name);
        let read = read_lines(storage, &path, |line| {
            logged.extend(read_line(line, field, key));
            if logged.len() >= limits.ids.saturating_mul(2) {
                keep_the_latest(&mut logged, limits.ids);
            }
        });
        match read {
            Err(error) if is_damage(&error) => {
                notes.push(format!("{} cannot be read to its end: {error}", path.display()));
            }
            read => doing("read", &path, read)?,
        }
    }
    keep_the_latest(&mut logged, limits.ids);
    let mut window = Window::empty(*limits, first);
    for (time, fingerprint, checksum) in logged {
        window.remember(time, fingerprint, checksum);
    }
    Ok(window)
}

/// The names of the log, of its closed files, and of files that other programs made of it, as far as they were changed
/// within the window.
fn recent_logs<S: Storage>(
    storage: &S,
    paths: &Paths,
    limits: Limits,
) -> Result<Vec<String>, DestinationError> {
    let log = paths.log.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut found = Vec::new();
    for name in doing("list", paths.dir(), storage.names(paths.dir()))? {
        let path = paths.log.with_file_name(&name);
        let is_log = closed(&log, &name).is_some()
            || name
                .strip_prefix(&log)
                .is_some_and(|rest| !OTHERS.iter().any(|other| rest.starts_with(other)));
        if !is_log || name.ends_with(".torn") || name.ends_with(".part") {
            continue;
        }
        let stat = doing("inspect", &path, storage.stat(&path))?;
        found.extend(stat.filter(|stat| stat.is_file).map(|stat| (stat.modified, name)));
    }
    let newest = found.iter().map(|(modified, _)| *modified).max().unwrap_or_default();
    found.retain(|(modified, _)| newest.saturating_sub(*modified) <= limits.millis);
    Ok(found.into_iter().map(|(_, name)| name).collect())
}

/// Sorts by time and removes all but the last `count`.
fn keep_the_latest(logged: &mut Vec<Logged>, count: usize) {
    logged.sort_by_key(|(time, ..)| *time);
    logged.drain(..logged.len().saturating_sub(count));
}

/// Reads a line; `None` if it is not that of an event with an id.
fn read_line(line: &[u8], field: &str, key: &Key) -> Option<Logged> {
    let (millis, text) = split_line(line)?;
    let id = one_line(text, Some(field)).ok()?.id?;
    Some((millis, key.fingerprint(&id.text), id.checksum))
}

fn read_lines<S: Storage>(storage: &S, path: &Path, mut each: impl FnMut(&[u8])) -> io::Result<()> {
    let chunks = BufReader::with_capacity(CHUNK_BYTES as usize, Chunks { storage, path, at: 0 });
    let mut reader: Box<dyn BufRead> = match path.extension() {
        Some(extension) if extension == "gz" => Box::new(BufReader::new(MultiGzDecoder::new(chunks))),
        _ => Box::new(chunks),
    };
    let mut line = Vec::new();
    loop {
        line.clear();
        if reader.read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        each(line.strip_suffix(b"\n").unwrap_or(&line));
    }
}

/// True if the file is not what its name says, and another attempt would not help.
fn is_damage(error: &io::Error) -> bool {
    use io::ErrorKind::{InvalidData, InvalidInput, UnexpectedEof};
    matches!(error.kind(), InvalidData | InvalidInput | UnexpectedEof)
}

/// Reads a file of the storage from the front.
struct Chunks<'a, S> {
    storage: &'a S,
    path: &'a Path,
    at: u64,
}

impl<S: Storage> Read for Chunks<'_, S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.storage.read_range(self.path, self.at, buffer.len() as u64)?;
        buffer[..bytes.len()].copy_from_slice(&bytes);
        self.at += bytes.len() as u64;
        Ok(bytes.len())
    }
}
