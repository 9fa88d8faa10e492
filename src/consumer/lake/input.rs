//! Reads the lines of a closed log, compressed or not.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use flate2::bufread::MultiGzDecoder;

use crate::consumer::log::storage::beside;

/// Read buffer of a log, in bytes.
const BUFFER_BYTES: usize = 256 << 10;

/// Lines between two looks whether to stop.
const LINES_PER_LOOK: u64 = 10_000;

/// The lines of a log.
pub struct Lines<'a> {
    reader: Box<dyn BufRead>,
    line: Vec<u8>,
    read: u64,
    stop: &'a dyn Fn() -> bool,
}

impl<'a> Lines<'a> {
    /// Opens a log at the byte `from` of its lines. `log` is its path without `.gz`.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn open(log: &Path, from: u64, stop: &'a dyn Fn() -> bool) -> io::Result<Self> {
        Ok(Self { reader: open(log, from)?, line: Vec::new(), read: 0, stop })
    }

    /// The next line, with its line ending if it has one.
    ///
    /// # Errors
    /// The log cannot be read, or it is time to stop ([`io::ErrorKind::Interrupted`]).
    pub fn next(&mut self) -> io::Result<Option<&[u8]>> {
        if self.read.is_multiple_of(LINES_PER_LOOK) && (self.stop)() {
            return Err(io::ErrorKind::Interrupted.into());
        }
        self.read += 1;
        self.line.clear();
        let bytes = self.reader.read_until(b'\n', &mut self.line)?;
        Ok((bytes > 0).then_some(&self.line))
    }
}

fn open(log: &Path, from: u64) -> io::Result<Box<dyn BufRead>> {
    match File::open(log) {
        Ok(mut file) => {
            file.seek(SeekFrom::Start(from))?;
            Ok(Box::new(BufReader::with_capacity(BUFFER_BYTES, file)))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let file = BufReader::with_capacity(BUFFER_BYTES, File::open(beside(log, ".gz"))?);
            let mut lines = BufReader::with_capacity(BUFFER_BYTES, MultiGzDecoder::new(file));
            io::copy(&mut lines.by_ref().take(from), &mut io::sink())?;
            Ok(Box::new(lines))
        }
        Err(error) => Err(error),
    }
}
