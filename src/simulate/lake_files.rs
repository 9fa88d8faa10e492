//! Reads the events of a lake from its Parquet files, and compares the files with the manifests.
//!
//! Knows the lake only by its format: the column `event`, and `_manifest/*.json`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use parquet::column::reader::ColumnReader;
use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, SerializedFileReader};
use serde_json::Value;

use crate::sha256;
use crate::simulate::log_files::Seen;
use crate::simulate::piece::Piece;

/// Rows that are read at once.
const BATCH_ROWS: usize = 64;

/// The files that were there at some point in time.
#[derive(Clone, Debug, Default)]
pub struct Mark(BTreeSet<PathBuf>);

impl Mark {
    /// Marks the present files of a lake.
    ///
    /// # Errors
    /// A directory cannot be read.
    pub fn take(lake: &Path) -> io::Result<Self> {
        Ok(Self(list(lake)?.into_iter().map(|seen| seen.path).collect()))
    }
}

/// Lists the files with events, in the order of their logs and hours, then the manifests.
///
/// # Errors
/// A directory cannot be read.
pub fn list(lake: &Path) -> io::Result<Vec<Seen>> {
    // A log may be finished meanwhile: its manifest must not be seen without its files.
    let manifests = entries(&manifests_of(lake), |name| name.ends_with(".json"))?;
    let mut found = Vec::new();
    for day in entries(lake, |name| name.starts_with("dt="))? {
        for hour in entries(&day, |name| name.starts_with("hour="))? {
            found.extend(entries(&hour, |name| name.ends_with(".parquet"))?);
        }
    }
    found.sort_by(|one, other| (one.file_name(), one).cmp(&(other.file_name(), other)));
    found.extend(manifests);
    found.into_iter().map(|path| seen(path.clone()).map_err(|error| named(&path, error))).collect()
}

/// Passes all events of files that are not in `mark` to `take`, and what is wrong with their manifests.
///
/// # Errors
/// A file cannot be read.
pub fn read(lake: &Path, mark: &Mark, mut take: impl FnMut(Piece<'_>)) -> io::Result<()> {
    let new = list(lake)?.into_iter().map(|seen| seen.path).filter(|path| !mark.0.contains(path));
    let (manifests, files): (Vec<_>, Vec<_>) =
        new.partition(|path| path.parent() == Some(&manifests_of(lake)));
    let mut rows = BTreeMap::new();
    for path in files {
        let count = read_events(&path, &mut take).map_err(|error| named(&path, error))?;
        rows.insert(path, count);
    }
    for path in manifests {
        let manifest =
            fs::read(&path).and_then(|text| serde_json::from_slice::<Value>(&text).map_err(io::Error::other));
        let manifest = manifest.map_err(|error| named(&path, error))?;
        check(lake, &manifest, (mark, &mut rows), &mut take).map_err(|error| named(&path, error))?;
    }
    // A log of several hours has all of its files and no manifest for a moment, or after the consumer was killed.
    rows.keys().for_each(|_| take(Piece::Unlisted));
    Ok(())
}

/// Compares the files of a log with its manifest, and takes them out of `rows`.
fn check(
    lake: &Path,
    manifest: &Value,
    (mark, rows): (&Mark, &mut BTreeMap<PathBuf, u64>),
    take: &mut impl FnMut(Piece<'_>),
) -> io::Result<()> {
    let mut lines = 0;
    for entry in manifest["files"].as_array().into_iter().flatten() {
        let path = lake.join(entry["path"].as_str().unwrap_or_default());
        let listed = entry["rows"].as_u64();
        lines += listed.unwrap_or_default();
        let is_rejected = path.parent() == Some(&lake.join("_rejected"));
        let read = match is_rejected {
            true => read_rejected(&path, take).map(Some),
            // A file that was there before was not read, and its manifest may have come later.
            false if mark.0.contains(&path) => Ok(listed),
            false => Ok(rows.remove(&path)),
        };
        match (read, sha256::of_file(&path)) {
            (Ok(read), Ok(sum)) if read == listed && entry["sha256"] == *sum => {}
            (Err(error), _) | (_, Err(error)) => take(Piece::Damaged(named(&path, error).to_string())),
            (Ok(read), Ok(_)) => take(Piece::Damaged(format!(
                "{} has {read:?} rows or other bytes than its manifest says ({listed:?} rows)",
                path.display()
            ))),
        }
    }
    if manifest["lines"].as_u64() != Some(lines) {
        let (log, all) = (&manifest["log"], &manifest["lines"]);
        take(Piece::Damaged(format!("the manifest of {log} has {lines} rows for {all} lines")));
    }
    Ok(())
}

/// Passes the events of a Parquet file to `take`, and returns their number.
fn read_events(path: &Path, take: &mut impl FnMut(Piece<'_>)) -> io::Result<u64> {
    let reader = SerializedFileReader::new(File::open(path)?).map_err(cause)?;
    let columns = reader.metadata().file_metadata().schema_descr().columns();
    let column = columns.iter().position(|column| column.name() == "event");
    let column = column.ok_or_else(|| io::Error::other("there is no column `event`"))?;
    let mut count = 0;
    for group in 0..reader.num_row_groups() {
        let group = reader.get_row_group(group).map_err(cause)?;
        let ColumnReader::ByteArrayColumnReader(mut events) =
            group.get_column_reader(column).map_err(cause)?
        else {
            return Err(io::Error::other("the column `event` has no text"));
        };
        loop {
            let mut batch = Vec::with_capacity(BATCH_ROWS);
            let (read, ..) = events.read_records(BATCH_ROWS, None, None, &mut batch).map_err(cause)?;
            if read == 0 {
                break;
            }
            batch.iter().for_each(|event| take(Piece::Event(event.data())));
            count += batch.len() as u64;
        }
    }
    Ok(count)
}

fn read_rejected(path: &Path, take: &mut impl FnMut(Piece<'_>)) -> io::Result<u64> {
    let mut count = 0;
    for line in BufReader::new(File::open(path)?).split(b'\n') {
        take(Piece::Torn(&line?));
        count += 1;
    }
    Ok(count)
}

/// Paths of the entries of `dir` whose names are `wanted`, sorted; none if there is no such directory.
fn entries(dir: &Path, wanted: impl Fn(&str) -> bool) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(|error| named(dir, error))?,
    };
    let paths = entries.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<Vec<_>>>();
    let mut paths = paths.map_err(|error| named(dir, error))?;
    paths.retain(|path| path.file_name().and_then(|name| name.to_str()).is_some_and(&wanted));
    paths.sort();
    Ok(paths)
}

fn seen(path: PathBuf) -> io::Result<Seen> {
    let meta = fs::metadata(&path)?;
    Ok(Seen { path, id: (meta.dev(), meta.ino()), len: meta.len() })
}

fn manifests_of(lake: &Path) -> PathBuf {
    lake.join("_manifest")
}

fn cause(error: ParquetError) -> io::Error {
    io::Error::other(error)
}

fn named(path: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}
