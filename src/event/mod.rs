//! Defines what an event is: one JSON object on one line, its bytes as the client wrote them, with a
//! `timestamp`.
//!
//! [`split()`] cuts a request body into slices that should each be an event, [`prepare`] turns a slice into
//! the line that goes to Kafka, [`key_of`] reads the field that decides the partition, and [`one_line`]
//! checks a record read from the topic. All of these are pure functions; the time is passed in.
//!
//! Producer and consumer apply the same rule: valid UTF-8, valid JSON (RFC 8259), an object, and every `\u`
//! escape must be a character. Half of a surrogate pair (`"\ud800"`) is rejected although the grammar allows
//! it, because readers disagree: Python reads it and then fails to print it, Go and jq replace it, and
//! `serde_json` fails. Numbers too large for a double, repeated keys, and U+0085, U+2028 and U+2029 are kept
//! as they are; only CR and LF end a line here.

mod error;
mod scan;
mod split;
mod stamp;

#[cfg(test)]
mod tests;

pub use error::{ErrorKind, EventError};
pub use split::{Format, Split, detect, split};
pub use stamp::Stamp;

use std::borrow::Cow;

use error::Fault;
use scan::{MAX_DEPTH, Scanner, Text, Value, trim};

const TIMESTAMP: &[u8] = b"timestamp";
const BEFORE_STAMP: &[u8] = b"\"timestamp\": \"";
const AFTER_STAMP: &[u8] = b"\"}";

/// Limits on one event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Largest line in bytes, including the timestamp but not the line ending.
    pub max_event_bytes: usize,
    /// Deepest nesting of objects and arrays, counting the event itself. Values above 127 mean 127.
    pub max_depth: usize,
}

impl Limits {
    /// Deep enough for any event that a person would look at.
    pub const DEFAULT_MAX_DEPTH: usize = 64;
}

/// Appends the event in `raw` to `out` as exactly one line, without a line ending.
///
/// White space around the object is dropped, and each CR or LF between tokens becomes a space; all other
/// bytes are kept. If the object has no top-level key `timestamp` (in any escaped spelling, with any value),
/// `, "timestamp": "…"` is added before the closing brace. On an error, `out` is unchanged.
///
/// # Errors
/// Any [`ErrorKind`]. The size is checked first, so a huge body is rejected without being parsed.
pub fn prepare(raw: &[u8], stamp: &Stamp, limits: &Limits, out: &mut Vec<u8>) -> Result<(), EventError> {
    let max = limits.max_event_bytes;
    let n_bytes = trim(raw).len();
    if n_bytes > max {
        return Err(EventError::too_large(n_bytes, max));
    }
    let mut has_timestamp = false;
    let object = check(raw, limits.max_depth, |key, _| has_timestamp |= key.is(TIMESTAMP))?;
    let separator: &[u8] = if object.is_empty { b"" } else { b", " };
    let addition = match has_timestamp {
        true => 0,
        false => separator.len() + BEFORE_STAMP.len() + stamp.as_bytes().len() + AFTER_STAMP.len() - 1,
    };
    let n_bytes = object.text.len() + addition;
    if n_bytes > max {
        return Err(EventError::too_large(n_bytes, max));
    }
    out.reserve(n_bytes);
    let start = out.len();
    if has_timestamp {
        out.extend_from_slice(object.text);
    } else {
        out.extend_from_slice(&object.text[..object.text.len() - 1]);
        for part in [separator, BEFORE_STAMP, stamp.as_bytes(), AFTER_STAMP] {
            out.extend_from_slice(part);
        }
    }
    if object.line_break {
        join_lines(&mut out[start..]);
    }
    Ok(())
}

/// Returns the log line for a record read from the topic, borrowed if nothing has to change.
///
/// A record written by [`prepare`] comes back unchanged. Records from other producers follow the same rule,
/// but get no timestamp, and may have any size and up to 127 levels of nesting.
///
/// # Errors
/// Any [`ErrorKind`] except `TooLarge`. A record without a value is `Empty`.
pub fn one_line(value: &[u8]) -> Result<Cow<'_, [u8]>, EventError> {
    let object = check(value, MAX_DEPTH, |_, _| ())?;
    if !object.line_break {
        return Ok(Cow::Borrowed(object.text));
    }
    let mut line = object.text.to_vec();
    join_lines(&mut line);
    Ok(Cow::Owned(line))
}

/// Returns the value of the top-level `field` of an event as a Kafka key.
///
/// A string yields its characters without quotes and escapes; a number or a boolean yields its text. Returns
/// `None` if the field is missing, `null`, an object or an array, or if `line` is not an event. If the field
/// is repeated, the last one counts, as in most JSON readers.
pub fn key_of<'a>(line: &'a [u8], field: &str) -> Option<Cow<'a, [u8]>> {
    let mut found = None;
    let mut scanner = Scanner::new(line, MAX_DEPTH);
    scanner.skip_space();
    if scanner.peek() != Some(b'{') {
        return None;
    }
    let each = |key: Text<'a>, value: Value<'a>| {
        if key.is(field.as_bytes()) {
            found = Some(value);
        }
    };
    scanner.object(0, each).ok()?;
    match found? {
        Value::Text(text) => text.decode(),
        Value::Plain(plain) => Some(Cow::Borrowed(plain)),
        Value::Null | Value::Nested => None,
    }
}

/// A JSON object that passed every check except those on size.
struct Object<'a> {
    /// From the opening to the closing brace.
    text: &'a [u8],
    is_empty: bool,
    /// Whether there is a CR or LF between its tokens.
    line_break: bool,
}

fn check<'a>(
    raw: &'a [u8],
    max_depth: usize,
    each: impl FnMut(Text<'a>, Value<'a>),
) -> Result<Object<'a>, EventError> {
    if trim(raw).is_empty() {
        return Err(EventError::empty());
    }
    scan_object(raw, max_depth, each).map_err(|fault| EventError::from_fault(fault, raw))
}

fn scan_object<'a>(
    raw: &'a [u8],
    max_depth: usize,
    each: impl FnMut(Text<'a>, Value<'a>),
) -> Result<Object<'a>, Fault> {
    if let Err(error) = std::str::from_utf8(raw) {
        let reason = "this byte is not valid UTF-8";
        return Err(Fault { kind: ErrorKind::NotUtf8, at: error.valid_up_to(), reason });
    }
    let mut scanner = Scanner::new(raw, max_depth);
    scanner.skip_space();
    let start = scanner.at();
    if scanner.peek() != Some(b'{') {
        return Err(no_object(scanner, raw));
    }
    scanner.line_break = false;
    let n_members = scanner.object(0, each)?;
    let (end, line_break) = (scanner.at(), scanner.line_break);
    scanner.end()?;
    match scanner.lone_surrogate {
        Some(at) => {
            let reason = "a \\u escape is half of a surrogate pair, which is not a character";
            Err(Fault { kind: ErrorKind::NotJson, at, reason })
        }
        None => Ok(Object { text: &raw[start..end], is_empty: n_members == 0, line_break }),
    }
}

/// Distinguishes JSON that is not an object from text that is not JSON.
fn no_object(mut scanner: Scanner<'_>, raw: &[u8]) -> Fault {
    if raw.starts_with("\u{FEFF}".as_bytes()) {
        return scanner.expected("a byte order mark is not JSON; send UTF-8 without it");
    }
    let at = scanner.at();
    match scanner.value(0).and_then(|_| scanner.end()) {
        Ok(()) => {
            Fault { kind: ErrorKind::NotAnObject, at, reason: "an event must be one JSON object, `{…}`" }
        }
        Err(fault) => fault,
    }
}

/// Replaces line breaks with spaces. In valid JSON they occur only between tokens.
fn join_lines(json: &mut [u8]) {
    for byte in json {
        if matches!(byte, b'\n' | b'\r') {
            *byte = b' ';
        }
    }
}
