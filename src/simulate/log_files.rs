//! Reads the event log from disk, including its rotated and compressed files, in the order of the lines.
//!
//! Files may be rotated, compressed and truncated while they are read.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use flate2::bufread::MultiGzDecoder;

use crate::simulate::log_names::{Rank, rank};
use crate::simulate::long_line::skip_line;
use crate::simulate::piece::Piece;

/// Longest line that is read whole, in bytes. Of a longer one the reader gets this many and the last byte.
const MAX_LINE_BYTES: u64 = 16 << 20;

/// Read buffer of one file, in bytes.
const BUFFER_BYTES: usize = 256 << 10;

/// Bytes before a mark that identify a file, enough to contain a timestamp and a sequence number.
const COMPARED_BYTES: u64 = 256;

/// Most attempts to open all files; another one is made if their names have changed meanwhile.
const MAX_OPENINGS: usize = 50;

/// Directory entry of one file of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Path of the file.
    pub path: PathBuf,
    /// Device and inode, which a rename does not change.
    pub id: (u64, u64),
    /// Size in bytes.
    pub len: u64,
}

/// Where each file ended at some point in time, so that only later lines are read.
#[derive(Clone, Debug, Default)]
pub struct Mark {
    ends: HashMap<(u64, u64), End>,
}

/// End of a file, and the bytes before it, since a new file may reuse the inode of a deleted one.
#[derive(Clone, Debug)]
struct End {
    offset: u64,
    before: Vec<u8>,
}

impl Mark {
    /// Marks the current end of each file of the log; in a plain file, the position after its last line ending.
    ///
    /// # Errors
    /// The directory or a file cannot be read.
    pub fn take(log: &Path) -> io::Result<Self> {
        let mut ends = HashMap::new();
        for seen in list(log)? {
            let end = File::open(&seen.path).and_then(|file| {
                let offset =
                    if is_packed(&seen.path) { file.metadata()?.len() } else { last_line_end(&file)? };
                Ok((id_of(&file)?, End { offset, before: before(&file, offset)? }))
            });
            match end {
                Ok((id, end)) => ends.insert(id, end),
                Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                Err(error) => return Err(named(&seen.path, error)),
            };
        }
        Ok(Self { ends })
    }

    /// Offset to start reading `file` at: its mark if the bytes before it are unchanged, else 0.
    fn start_in(&self, file: &File) -> io::Result<u64> {
        let Some(end) = self.ends.get(&id_of(file)?) else { return Ok(0) };
        let is_same = file.metadata()?.len() >= end.offset && before(file, end.offset)? == end.before;
        Ok(if is_same { end.offset } else { 0 })
    }
}

/// Lists the files of `log`, oldest first; empty if the directory does not exist yet.
///
/// # Errors
/// The directory cannot be read.
pub fn list(log: &Path) -> io::Result<Vec<Seen>> {
    let (Some(directory), Some(name)) = (directory_of(log), log.file_name().and_then(|name| name.to_str()))
    else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "expected the path of a log file"));
    };
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(|error| named(directory, error))?,
    };
    let mut found: Vec<(Rank, Seen)> = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|error| named(directory, error))?;
        let Some(rank) = entry.file_name().to_str().and_then(|candidate| rank(name, candidate)) else {
            continue;
        };
        match entry.metadata() {
            Ok(meta) if meta.is_file() => {
                let seen = Seen { path: entry.path(), id: (meta.dev(), meta.ino()), len: meta.len() };
                found.push((rank, seen));
            }
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(named(&entry.path(), error)),
            _ => {}
        }
    }
    // While a file is being compressed, both versions exist. The plain one is complete, and it sorts first.
    found.sort_by(|one, other| (&one.0, &one.1.path).cmp(&(&other.0, &other.1.path)));
    found.dedup_by(|packed, plain| packed.0 == plain.0);
    Ok(found.into_iter().map(|(_, seen)| seen).collect())
}

/// Passes all lines of `log` after `mark` to `take`.
///
/// # Errors
/// A file cannot be read or decompressed, or the files are renamed faster than they can be opened.
pub fn read(log: &Path, mark: &Mark, mut take: impl FnMut(Piece<'_>)) -> io::Result<()> {
    for (path, file) in open(log)? {
        let start = mark.start_in(&file).map_err(|error| named(&path, error))?;
        let read = if is_packed(&path) {
            if start > 0 {
                continue;
            }
            let unpacked = MultiGzDecoder::new(BufReader::with_capacity(BUFFER_BYTES, file));
            let unpacked = BufReader::with_capacity(BUFFER_BYTES, unpacked);
            read_lines(unpacked, |piece| match piece {
                Piece::Open(rest) => take(Piece::Torn(rest)),
                piece => take(piece),
            })
        } else {
            let mut plain = BufReader::with_capacity(BUFFER_BYTES, file);
            plain.seek(SeekFrom::Start(start)).and_then(|_| read_lines(plain, &mut take))
        };
        read.map_err(|error| named(&path, error))?;
    }
    Ok(())
}

/// True if `path` is the log `log` or one of its rotated files.
pub fn is_file_of(log: &Path, path: &Path) -> bool {
    let name = |path: &Path| path.file_name().and_then(|name| name.to_str()).map(str::to_owned);
    let is_one = name(log).zip(name(path)).is_some_and(|(log, path)| rank(&log, &path).is_some());
    is_one && directory_of(log) == directory_of(path)
}

/// Opens a consistent set of all files. An open file stays readable when it is renamed or deleted.
fn open(log: &Path) -> io::Result<Vec<(PathBuf, File)>> {
    let names = |seen: &[Seen]| seen.iter().map(|seen| (seen.path.clone(), seen.id)).collect::<Vec<_>>();
    for _ in 0..MAX_OPENINGS {
        let before = list(log)?;
        let files: io::Result<Vec<_>> =
            before.iter().map(|seen| Ok((seen.path.clone(), File::open(&seen.path)?))).collect();
        match files {
            Ok(files) if names(&list(log)?) == names(&before) => return Ok(files),
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Err(io::Error::new(io::ErrorKind::ResourceBusy, "its files are renamed faster than they can be opened"))
}

fn read_lines(mut reader: impl BufRead, mut take: impl FnMut(Piece<'_>)) -> io::Result<()> {
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = reader.by_ref().take(MAX_LINE_BYTES).read_until(b'\n', &mut line)?;
        match line.strip_suffix(b"\n") {
            Some(line) => take(Piece::Line(line)),
            None if read == 0 => return Ok(()),
            None if read as u64 == MAX_LINE_BYTES => match skip_line(&mut reader)? {
                Some(last) => {
                    line.extend(last);
                    take(Piece::Long(&line));
                }
                None => take(Piece::Open(&line)),
            },
            None => take(Piece::Open(&line)),
        }
    }
}

fn directory_of(log: &Path) -> Option<&Path> {
    log.parent().map(|parent| if parent.as_os_str().is_empty() { Path::new(".") } else { parent })
}

fn is_packed(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "gz")
}

fn id_of(file: &File) -> io::Result<(u64, u64)> {
    file.metadata().map(|meta| (meta.dev(), meta.ino()))
}

/// Reads the bytes right before `offset`, at most [`COMPARED_BYTES`].
fn before(file: &File, offset: u64) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; offset.min(COMPARED_BYTES) as usize];
    let start = offset - bytes.len() as u64;
    file.read_exact_at(&mut bytes, start)?;
    Ok(bytes)
}

/// The offset after the last line ending of `file`, or 0 if it has none.
fn last_line_end(file: &File) -> io::Result<u64> {
    let mut end = file.metadata()?.len();
    let mut block = vec![0; BUFFER_BYTES];
    while end > 0 {
        let start = end.saturating_sub(block.len() as u64);
        let part = &mut block[..(end - start) as usize];
        file.read_exact_at(part, start)?;
        if let Some(at) = part.iter().rposition(|byte| *byte == b'\n') {
            return Ok(start + at as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}

fn named(path: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    fn lines_after(log: &Path, mark: &Mark) -> Vec<String> {
        let mut lines = Vec::new();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        read(log, mark, |piece| {
            lines.push(match piece {
                Piece::Line(line) => text(line),
                Piece::Long(line) => format!("long {}", text(line)),
                Piece::Torn(line) => format!("torn {}", text(line)),
                Piece::Open(line) => format!("open {}", text(line)),
                Piece::Begin | Piece::Event(_) | Piece::Unlisted | Piece::Damaged(_) => {
                    unreachable!("only a lake has them")
                }
            });
        })
        .expect("read");
        lines
    }

    fn pack(path: &Path, text: &str) {
        let mut packed = GzEncoder::new(File::create(path).expect("create"), Compression::fast());
        packed.write_all(text.as_bytes()).and_then(|()| packed.try_finish()).expect("pack");
    }

    #[test]
    fn files_are_read_oldest_first_and_no_other_file_is() {
        let directory = tempfile::tempdir().expect("directory");
        let path = |name: &str| directory.path().join(name);
        pack(&path("events-20990101T000000000Z-000.log.gz"), "a\nb\n");
        fs::write(path("events-20990101T000000000Z-001.log"), "c\n").expect("write");
        pack(&path("events-20990101T000000000Z-001.log.gz"), "half");
        pack(&path("events-seq000000000009-20261124T081546032Z.log.gz"), "closed 9\n");
        fs::write(path("events-seq000000000010-20251124T081546032Z.log"), "closed 10\n").expect("write");
        fs::write(path("events-seq1000000000000-20251124T081546032Z.log"), "closed last\n").expect("write");
        pack(&path("events.log-20261124.gz"), "dated\n");
        pack(&path("events.log.10.gz"), "d\ntail");
        fs::write(path("events.9.log"), "nine\n").expect("write");
        fs::write(path("events.log.2"), "e\n").expect("write");
        fs::write(path("events.log"), "f\ng").expect("write");
        for other in [
            "events.rejected",
            "events.log.lock",
            "events.log.checkpoint",
            "events.log.000.torn",
            "other.log",
            "events-0.log",
            "events-999.log",
            "events-1.log.gz",
            "events-1-seq000000000042-20261124T081546032Z.log",
            "events-12-20261124T081546032Z-000.log",
            "events-old.log",
            "eventsource.log",
            "events.log.torn",
        ] {
            fs::write(path(other), "foreign\n").expect("write");
        }
        for directory in ["events-seq000000000011-20251124T081546032Z.log", "events.log.1", "events.d"] {
            fs::create_dir(path(directory)).expect("create");
        }
        let closed = ["closed 9", "closed 10", "closed last", "dated"];
        assert_eq!(
            lines_after(&path("events.log"), &Mark::default()),
            [&["a", "b", "c"][..], &closed, &["d", "torn tail", "nine", "e", "f", "open g"]].concat()
        );
    }

    #[test]
    fn only_what_came_after_the_mark_is_read_also_from_a_renamed_or_shortened_file() {
        let directory = tempfile::tempdir().expect("directory");
        let log = directory.path().join("events.log");
        assert!(list(&directory.path().join("missing/events.log")).expect("no directory yet").is_empty());
        fs::write(&log, "old 1\nold 2\npart").expect("write");
        let mark = Mark::take(&log).expect("mark");
        fs::OpenOptions::new()
            .append(true)
            .open(&log)
            .and_then(|mut file| file.write_all(b"ly\nnew\n"))
            .expect("append");
        assert_eq!(lines_after(&log, &mark), ["partly", "new"]);
        fs::rename(&log, directory.path().join("events-20261124T081546032Z-000.log")).expect("rename");
        fs::write(&log, "newer\n").expect("write");
        assert_eq!(lines_after(&log, &mark), ["partly", "new", "newer"]);
        let rotated = directory.path().join("events-20261124T081546032Z-000.log");
        fs::OpenOptions::new().write(true).open(&rotated).and_then(|file| file.set_len(6)).expect("cut");
        assert_eq!(
            lines_after(&log, &mark),
            ["old 1", "newer"],
            "a file truncated below the mark is read from the start"
        );
        fs::write(&rotated, "other\nlines\nthat are longer\n").expect("write");
        assert_eq!(
            lines_after(&log, &mark).len(),
            4,
            "a new file with the inode of an old one is read from the start"
        );
    }

    #[test]
    fn a_packed_file_that_was_there_is_not_read_again_and_a_new_one_is() {
        let directory = tempfile::tempdir().expect("directory");
        let log = directory.path().join("events.log");
        pack(&directory.path().join("events-2026-11-24.log.gz"), "old\n");
        let mark = Mark::take(&log).expect("mark");
        pack(&directory.path().join("events-2026-11-25.log.gz"), "new\n");
        assert_eq!(lines_after(&log, &mark), ["new"]);
    }

    #[test]
    fn of_a_huge_line_the_beginning_and_the_last_byte_are_given_out_and_a_broken_gzip_is_an_error() {
        let directory = tempfile::tempdir().expect("directory");
        let log = directory.path().join("events.log");
        let huge = vec![b'x'; MAX_LINE_BYTES as usize];
        let long = [&huge, "and more}\n".as_bytes(), &huge, b"\nshort\n", &huge, b"y"].concat();
        fs::write(&log, long).expect("write");
        let mut seen = Vec::new();
        read(&log, &Mark::default(), |piece| {
            let (kind, piece) = match piece {
                Piece::Line(piece) => ("line", piece),
                Piece::Long(piece) => ("long", piece),
                Piece::Torn(piece) => ("torn", piece),
                Piece::Open(piece) => ("open", piece),
                Piece::Begin | Piece::Event(_) | Piece::Unlisted | Piece::Damaged(_) => {
                    unreachable!("only a lake has them")
                }
            };
            seen.push((kind, piece.len() as u64, piece[piece.len() - 1]));
        })
        .expect("read");
        let max = MAX_LINE_BYTES;
        let long = [("long", max + 1, b'}'), ("long", max, b'x')];
        assert_eq!(seen, [&long[..], &[("line", 5, b't'), ("open", max, b'x')]].concat());
        fs::write(directory.path().join("events-20261124.log.gz"), "no gzip").expect("write");
        let error = read(&log, &Mark::default(), |_| {}).expect_err("not gzip");
        assert!(error.to_string().contains("events-20261124.log.gz"), "{error}");
    }
}
