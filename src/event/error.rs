//! Explains why bytes are not a valid event: a stable tag for programs, and a message with a position for
//! people.
//!
//! Messages never repeat the payload, because it may contain data that must not be logged.

use std::fmt;

/// Reasons to reject an event. Their tags are part of the HTTP contract and are used as metric labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// Empty, or only white space.
    Empty,
    /// Contains a byte that is not valid UTF-8.
    NotUtf8,
    /// Not JSON (RFC 8259), or contains a `\u` escape that is half of a surrogate pair and therefore not a
    /// character.
    NotJson,
    /// Valid JSON, but an array, a string, a number, `true`, `false` or `null`.
    NotAnObject,
    /// Objects and arrays are nested deeper than allowed.
    TooDeep,
    /// More bytes than allowed, including what is added to it.
    TooLarge,
}

impl ErrorKind {
    /// Every kind, so that the metrics for all of them exist before the first rejection.
    pub const ALL: [Self; 6] =
        [Self::Empty, Self::NotUtf8, Self::NotJson, Self::NotAnObject, Self::TooDeep, Self::TooLarge];

    /// The stable tag: `empty`, `not_utf8`, `not_json`, `not_an_object`, `too_deep`, `too_large`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::NotUtf8 => "not_utf8",
            Self::NotJson => "not_json",
            Self::NotAnObject => "not_an_object",
            Self::TooDeep => "too_deep",
            Self::TooLarge => "too_large",
        }
    }
}

/// Why an event was rejected, and where in its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventError {
    /// The reason, for code that has to decide what to do.
    pub kind: ErrorKind,
    /// Byte offset at which the error was noticed, counted from 0 in the slice that was checked; `None` if no
    /// single byte is at fault.
    pub offset: Option<usize>,
    /// What is wrong and where, for people; the same text as `Display`.
    pub message: String,
}

impl EventError {
    pub(super) fn empty() -> Self {
        Self {
            kind: ErrorKind::Empty,
            offset: None,
            message: "the event is empty: send one JSON object".to_owned(),
        }
    }

    pub(super) fn too_large(len: usize, max: usize) -> Self {
        Self {
            kind: ErrorKind::TooLarge,
            offset: None,
            message: format!(
                "the event has {len} bytes with what is added to it, but at most {max} are allowed; split it"
            ),
        }
    }

    pub(super) fn from_fault(fault: Fault, bytes: &[u8]) -> Self {
        let place = Place { bytes, at: fault.at };
        let Fault { kind, at, reason } = fault;
        let message = match kind {
            ErrorKind::NotUtf8 => format!("not UTF-8 {place}: {reason}"),
            ErrorKind::NotAnObject => format!("not a JSON object {place}: {reason}"),
            ErrorKind::TooDeep => format!("nested too deeply {place}: {reason}"),
            _ => format!("not JSON {place}: {reason}"),
        };
        Self { kind, offset: Some(at), message }
    }
}

impl fmt::Display for EventError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for EventError {}

/// An error as the scanner reports it. It allocates nothing, so callers can drop it cheaply.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fault {
    pub kind: ErrorKind,
    pub at: usize,
    pub reason: &'static str,
}

/// Formats a byte offset the way people look for it: byte, line and column.
struct Place<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let before = &self.bytes[..self.at.min(self.bytes.len())];
        let line = 1 + before.iter().filter(|&&byte| byte == b'\n').count();
        let column = 1 + before.iter().rev().take_while(|&&byte| byte != b'\n').count();
        write!(f, "at byte {} (line {line}, column {column})", self.at)?;
        if self.at >= self.bytes.len() {
            f.write_str(", the end of the input")?;
        }
        Ok(())
    }
}
