//! Says what went wrong with a log or with the lake, and whether that concerns all logs.

use std::io;
use std::path::Path;

use parquet::errors::ParquetError;

use crate::consumer::log::forward::ForwardError;

/// A closed log cannot be read.
pub fn of_log(log: &Path, error: &io::Error) -> ForwardError {
    use io::ErrorKind::{InvalidData, InvalidInput, UnexpectedEof};
    let remedy = match error.kind() {
        io::ErrorKind::Interrupted => return ForwardError::Stopped,
        InvalidData | InvalidInput | UnexpectedEof => "it is damaged: put a good copy there, or move it away",
        _ => "make it readable, or move it away",
    };
    ForwardError::Log(format!("cannot read the closed log {}: {error}; {remedy}", log.display()))
}

/// Something in the lake cannot be done.
pub fn of_lake(what: &str, path: &Path, error: &io::Error) -> ForwardError {
    let remedy = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "; free some space there",
        io::ErrorKind::PermissionDenied => "; let the user of this process write there",
        io::ErrorKind::FileTooLarge => "; raise the limit (`ulimit -f`, LimitFSIZE= of systemd)",
        io::ErrorKind::NotFound => "; is LAKE_DIR mounted?",
        io::ErrorKind::NotADirectory => "; move away what is in the place of a directory",
        _ => "",
    };
    ForwardError::Place(format!("cannot {what} {}: {error}{remedy}", path.display()))
}

/// The cause of an error of the package, if it was the file system.
pub fn cause(error: ParquetError) -> io::Error {
    match error {
        ParquetError::External(cause) => match cause.downcast::<io::Error>() {
            Ok(cause) => *cause,
            Err(cause) => io::Error::other(cause),
        },
        error => io::Error::other(error),
    }
}
