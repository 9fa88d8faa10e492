//! Keeps the remembered ids on disk: one file for each generation, covered by the checkpoint like the log.
//!
//! Only the checkpoint says which files count, so a generation begins and ends with it. Each id has 20 bytes: its
//! fingerprint, and the checksum of its event.

use std::path::PathBuf;

use crate::consumer::destination::{DestinationError, Recalled};
use crate::consumer::log::checkpoint::{GenerationMark, IdMarks, tail_crc};
use crate::consumer::log::durable_file::DurableFile;
use crate::consumer::log::ids::{Fingerprint, Generation, Key, Limits, Settings, Window};
use crate::consumer::log::paths::Paths;
use crate::consumer::log::rebuild::rebuild;
use crate::consumer::log::storage::{Storage, beside, cut, doing};

const FINGERPRINT_BYTES: usize = 16;
const ENTRY_BYTES: usize = FINGERPRINT_BYTES + 4;

/// Between the name of the log and the number of a generation.
const INFIX: &str = ".ids-";

/// What is remembered, its marks for the checkpoint, and the file of the current generation.
type OpenIds<F> = (Window, IdMarks, DurableFile<F>);

/// Appends an id to the bytes for its file.
pub fn push_entry(bytes: &mut Vec<u8>, fingerprint: &Fingerprint, checksum: u32) {
    bytes.extend_from_slice(&fingerprint.0);
    bytes.extend_from_slice(&checksum.to_le_bytes());
}

fn entries(bytes: &[u8]) -> impl ExactSizeIterator<Item = (Fingerprint, u32)> {
    let (entries, _) = bytes.as_chunks::<ENTRY_BYTES>();
    let read = |entry: &[u8; ENTRY_BYTES]| {
        let (mut fingerprint, mut checksum) = ([0; FINGERPRINT_BYTES], [0; 4]);
        fingerprint.copy_from_slice(&entry[..FINGERPRINT_BYTES]);
        checksum.copy_from_slice(&entry[FINGERPRINT_BYTES..]);
        (Fingerprint(fingerprint), u32::from_le_bytes(checksum))
    };
    entries.iter().map(read)
}

/// Opens the ids as `stored` describes them, and adds those of the `recalled` events, oldest first. If the stored ones
/// cannot be trusted, they are read from the logs again, which must be in order. Adds messages for the operator to
/// `notes`.
///
/// # Errors
/// A file operation failed; calling it again resumes.
pub fn open<S: Storage>(
    storage: &S,
    paths: &Paths,
    settings: &Settings,
    (stored, recalled): (Option<IdMarks>, &[Recalled]),
    notes: &mut Vec<String>,
) -> Result<OpenIds<S::File>, DestinationError> {
    let (marks, window, why) = match stored {
        None => (None, None, "they were not remembered before"),
        Some(marks) if marks.field != settings.field => (None, None, "EVENT_ID_FIELD was changed"),
        Some(marks) if marks.damaged => (None, None, "their files may be incomplete"),
        Some(marks) => {
            let window = load(storage, paths, &marks, settings.limits)?;
            (Some(marks), window, "their files do not match the checkpoint")
        }
    };
    let (marks, window) = match (marks, window) {
        (Some(marks), Some(window)) if recalled.is_empty() => (marks, window),
        (Some(marks), Some(window)) => {
            let window = window.renumbered(free_number(storage, paths)?);
            with_recalled(storage, paths, settings, (marks.key, window), recalled, notes)?
        }
        _ => {
            let key = Key::random().map_err(DestinationError::Retryable)?;
            let window = rebuild(storage, paths, settings, &key, free_number(storage, paths)?, notes)?;
            if window.len() > 0 {
                notes.push(format!("read the ids of {} events from the logs, because {why}", window.len()));
            }
            with_recalled(storage, paths, settings, (key, window), recalled, notes)?
        }
    };
    let current = path_of(paths, window.current().number);
    let file = doing("open", &current, DurableFile::open(storage, &current))?;
    Ok((window, marks, file))
}

/// Reads the files. Returns `None` if they are not what `marks` describe.
fn load<S: Storage>(
    storage: &S,
    paths: &Paths,
    marks: &IdMarks,
    limits: Limits,
) -> Result<Option<Window>, DestinationError> {
    let mut window = Window::at(limits, marks.time);
    for mark in &marks.generations {
        let path = path_of(paths, mark.number);
        let found = doing("inspect", &path, storage.stat(&path))?;
        let len = found.filter(|stat| stat.is_file).map_or(0, |stat| stat.len);
        if len < mark.file.bytes {
            return Ok(None);
        }
        if len > mark.file.bytes {
            // The records of what is cut off are read again.
            cut(storage, &path, mark.file.bytes)?;
        }
        let bytes = match mark.file.bytes {
            0 => Vec::new(),
            len => doing("read", &path, storage.read_range(&path, 0, len))?,
        };
        if tail_crc(&bytes) != mark.file.tail_crc {
            return Ok(None);
        }
        window.restore(mark.number, mark.began, entries(&bytes));
    }
    Ok((!marks.generations.is_empty()).then_some(window))
}

/// Adds the ids of the `recalled` events to `window`, and writes all of it to new files.
fn with_recalled<S: Storage>(
    storage: &S,
    paths: &Paths,
    settings: &Settings,
    (key, mut window): (Key, Window),
    recalled: &[Recalled],
    notes: &mut Vec<String>,
) -> Result<(IdMarks, Window), DestinationError> {
    for event in recalled {
        window.remember(event.time, key.fingerprint(&event.id), event.checksum);
    }
    if !recalled.is_empty() {
        notes.push(format!("read the ids of {} events that other logs have from the topic", recalled.len()));
    }
    let mut generations = Vec::new();
    for generation in window.generations() {
        let path = path_of(paths, generation.number);
        let mut bytes = Vec::new();
        window.ids_of(generation).for_each(|(id, checksum)| push_entry(&mut bytes, &id, checksum));
        doing("write", &path, storage.write(&path, &bytes, true))?;
        let file = doing("open", &path, DurableFile::open(storage, &path))?;
        let Generation { number, began, .. } = *generation;
        generations.push(GenerationMark { number, began, file: file.mark() });
    }
    doing("fsync", paths.dir(), storage.sync_dir(paths.dir()))?;
    let (field, time) = (settings.field.clone(), window.time());
    Ok((IdMarks { field, key, time, damaged: false, generations }, window))
}

/// Creates the empty file of a generation; it may be there from an attempt that failed.
///
/// # Errors
/// A file operation failed.
pub fn new_generation<S: Storage>(
    storage: &S,
    paths: &Paths,
    number: u64,
) -> Result<DurableFile<S::File>, DestinationError> {
    let path = path_of(paths, number);
    doing("write", &path, storage.write(&path, b"", true))?;
    doing("open", &path, DurableFile::open(storage, &path))
}

/// Removes the files of all generations that are not in `marks`. The checkpoint must not name them any more.
///
/// # Errors
/// A file operation failed.
pub fn remove_others<S: Storage>(
    storage: &S,
    paths: &Paths,
    marks: Option<&IdMarks>,
) -> Result<(), DestinationError> {
    let kept = |number| {
        marks.is_some_and(|marks| marks.generations.iter().any(|generation| generation.number == number))
    };
    for number in numbers(storage, paths)?.into_iter().filter(|number| !kept(*number)) {
        let path = path_of(paths, number);
        doing("remove", &path, storage.remove(&path))?;
    }
    Ok(())
}

/// A number above those of all generations that have a file.
fn free_number<S: Storage>(storage: &S, paths: &Paths) -> Result<u64, DestinationError> {
    Ok(numbers(storage, paths)?.into_iter().max().map_or(1, |last| last + 1))
}

/// The numbers of the generations that have a file.
fn numbers<S: Storage>(storage: &S, paths: &Paths) -> Result<Vec<u64>, DestinationError> {
    let log = paths.log.file_name().unwrap_or_default().to_string_lossy();
    let names = doing("list", paths.dir(), storage.names(paths.dir()))?;
    let number =
        |name: &String| -> Option<u64> { name.strip_prefix(&*log)?.strip_prefix(INFIX)?.parse().ok() };
    Ok(names.iter().filter_map(number).collect())
}

fn path_of(paths: &Paths, number: u64) -> PathBuf {
    beside(&paths.log, &format!("{INFIX}{number:06}"))
}
