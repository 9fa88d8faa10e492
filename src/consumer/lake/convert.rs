//! Makes the files of one log.

use std::fs::File;
use std::io;
use std::path::Path;

use parquet::file::reader::{FileReader, SerializedFileReader};

use crate::consumer::lake::fault;
use crate::consumer::lake::file::{EventFile, Layout, Origin};
use crate::consumer::lake::input::Lines;
use crate::consumer::lake::manifest::Entry;
use crate::consumer::lake::paths::{LakePaths, hour_of};
use crate::consumer::lake::publish::{Complete, Part};
use crate::consumer::lake::survey::{Span, event_of};
use crate::consumer::log::forward::ForwardError;
use crate::event::Stamp;

/// The log that is being converted, and how.
pub struct Conversion<'a> {
    /// Its path without `.gz`.
    pub log: &'a Path,
    /// Its name and checksum.
    pub origin: Origin<'a>,
    /// Where its files go.
    pub paths: &'a LakePaths,
    /// Their columns.
    pub layout: &'a Layout,
    /// Becomes true when the consumer stops.
    pub stop: &'a dyn Fn() -> bool,
}

impl Conversion<'_> {
    /// Makes the file of one hour, and gives it its name.
    ///
    /// # Errors
    /// See [`ForwardError`].
    pub fn make(&self, hour: i64, span: &Span) -> Result<Entry, ForwardError> {
        let path = LakePaths::events(self.origin.log, hour);
        let part = self.paths.part(&path);
        let complete = self.write(&part, hour, span)?;
        let (bytes, sha256) = (complete.bytes, complete.sha256.clone());
        complete.publish(&self.paths.root.join(&path), |there| {
            Ok(self.origin.is_in(footer(there)?.file_metadata().key_value_metadata()))
        })?;
        let time = |millis| Some(Stamp::from_unix_millis(millis).to_string());
        let (first_logged_at, last_logged_at) = (time(span.first), time(span.last));
        Ok(Entry { path, rows: span.rows, bytes, sha256, first_logged_at, last_logged_at })
    }

    /// Writes the file of one hour, and checks the number of rows that its footer names.
    fn write(&self, part: &Path, hour: i64, span: &Span) -> Result<Complete, ForwardError> {
        let of_lake = |error: io::Error| fault::of_lake("write", part, &error);
        let of_log = |error: io::Error| fault::of_log(self.log, &error);
        let sink = Part::create(part.to_owned()).map_err(of_lake)?;
        let of_package = |error| of_lake(fault::cause(error));
        let mut file = EventFile::new(sink, self.layout, self.origin).map_err(of_package)?;
        let mut lines = Lines::open(self.log, span.from, self.stop).map_err(of_log)?;
        let mut at = span.from;
        while at < span.to {
            let Some(line) = lines.next().map_err(of_log)? else { break };
            at += line.len() as u64;
            if let Some((millis, event)) = event_of(line).filter(|(millis, _)| hour_of(*millis) == hour) {
                file.add(millis, event).map_err(of_package)?;
            }
        }
        let complete = file.finish().map_err(of_package)?.finish().map_err(of_lake)?;
        let rows = footer(complete.path()).map_err(of_lake)?.file_metadata().num_rows();
        if u64::try_from(rows) != Ok(span.rows) {
            return Err(ForwardError::Log(format!(
                "the closed log {} had {} events of one hour and then {rows}: no program may change a closed log",
                self.log.display(),
                span.rows
            )));
        }
        Ok(complete)
    }
}

/// The footer of a Parquet file.
///
/// # Errors
/// The file cannot be read, or is not a Parquet file.
fn footer(path: &Path) -> io::Result<parquet::file::metadata::ParquetMetaData> {
    let reader = SerializedFileReader::new(File::open(path)?).map_err(fault::cause)?;
    Ok(reader.metadata().clone())
}
