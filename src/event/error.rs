//! Why bytes are not an event: a stable word for machines, a sentence with a place for people.
//! Never repeats the payload: it may hold what must not stand in a log.

use std::fmt;

/// The classes of refusal. Their words are part of the HTTP contract and of metric labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// Nothing, or only white space.
    Empty,
    /// Some byte does not belong to UTF-8.
    NotUtf8,
    /// Not JSON (RFC 8259), or a `\u` escape that is half a surrogate pair and so no character.
    NotJson,
    /// JSON, but an array, a string, a number, `true`, `false` or `null`.
    NotAnObject,
    /// More objects and arrays inside each other than allowed.
    TooDeep,
    /// More bytes than allowed, its timestamp included.
    TooLarge,
}

impl ErrorKind {
    /// Every kind, for metrics that must exist before the first refusal.
    pub const ALL: [Self; 6] =
        [Self::Empty, Self::NotUtf8, Self::NotJson, Self::NotAnObject, Self::TooDeep, Self::TooLarge];

    /// The stable word: `empty`, `not_utf8`, `not_json`, `not_an_object`, `too_deep`, `too_large`.
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

/// Why bytes are refused as an event, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventError {
    /// What to decide by.
    pub kind: ErrorKind,
    /// Byte at which it was noticed, from 0 in the slice that was judged; `None` where no byte is to blame.
    pub offset: Option<usize>,
    /// What is wrong and where, for a human; the same as `Display`.
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
                "the event has {len} bytes, with its timestamp at most {max} are allowed: send it in parts"
            ),
        }
    }

    pub(super) fn from_fault(fault: Fault, bytes: &[u8]) -> Self {
        let place = Place { bytes, at: fault.at };
        let Fault { kind, at, reason } = fault;
        let message = match kind {
            ErrorKind::NotUtf8 => format!("not UTF-8 {place}: {reason}"),
            ErrorKind::NotAnObject => format!("not a JSON object {place}: {reason}"),
            ErrorKind::TooDeep => format!("nested too deep {place}: {reason}"),
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

/// What the scanner knows of an error: no allocation, so that a caller may drop it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fault {
    pub kind: ErrorKind,
    pub at: usize,
    pub reason: &'static str,
}

/// Writes a byte offset in the ways people look for it.
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
            f.write_str(", the end")?;
        }
        Ok(())
    }
}
