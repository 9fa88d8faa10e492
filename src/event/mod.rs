//! What an event is: one JSON object on one line, its bytes as the client wrote them, with a `timestamp`.
//!
//! Pure: bytes and a moment in, bytes out; no threads, I/O or clock, and nothing of HTTP, Kafka or files.
//! [`split()`] cuts a body into events to be, [`prepare`] makes each the line that goes to Kafka,
//! [`key_of`] reads the field that picks its partition, [`one_line`] judges what stands in the topic.
//!
//! One rule for both ends: UTF-8, JSON of RFC 8259, an object, and every `\u` escape a character.
//! Half a surrogate pair (`"\ud800"`) is refused although the grammar allows it: Python reads it and then
//! fails to print it, Go and jq replace it, `serde_json` fails. Numbers too large for a double, repeated
//! keys and U+0085, U+2028 and U+2029 stay as they are: only CR and LF end a line here.

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

/// What an event may be at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the finished line, its timestamp included, the line's end not.
    pub max_event_bytes: usize,
    /// Objects and arrays inside each other, the event itself included; above 127 it means 127.
    pub max_depth: usize,
}

impl Limits {
    /// Deep enough for any event a person would look at.
    pub const DEFAULT_MAX_DEPTH: usize = 64;
}

/// Appends the event in `raw` to `out` as exactly one line without an end.
///
/// White space around the object is dropped, each CR or LF between tokens becomes a space, all else stays
/// as it was written. Without a top-level key `timestamp` (in any escaped spelling, with any value),
/// `, "timestamp": "…"` is added before the closing brace. On an error `out` is unchanged.
///
/// # Errors
/// Any [`ErrorKind`]; the size is looked at first, so that a huge body costs nothing.
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

/// The line that a record of the topic becomes in the log; borrowed when nothing needs to change.
///
/// A record from [`prepare`] comes back as it is. Other producers' records get the same rule but no
/// timestamp, and may be of any size and nested up to 127 levels.
///
/// # Errors
/// Any [`ErrorKind`] but `TooLarge`; a record without a value is `Empty`.
pub fn one_line(value: &[u8]) -> Result<Cow<'_, [u8]>, EventError> {
    let object = check(value, MAX_DEPTH, |_, _| ())?;
    if !object.line_break {
        return Ok(Cow::Borrowed(object.text));
    }
    let mut line = object.text.to_vec();
    join_lines(&mut line);
    Ok(Cow::Owned(line))
}

/// The value of the top-level `field` of an event as the bytes of a Kafka key.
///
/// A string gives its characters without quotes and escapes, a number or a bool its text. `None` if the
/// field is missing, `null`, an object or an array, and if `line` is no event. Of a repeated field the last
/// counts, as for most JSON readers.
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

/// A JSON object that passed every rule but those on size.
struct Object<'a> {
    /// From the opening to the closing brace.
    text: &'a [u8],
    is_empty: bool,
    /// CR or LF stands between its tokens.
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
        let reason = "a byte does not belong to UTF-8";
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
            let reason = "a \\u escape is half of a surrogate pair and stands for no character";
            Err(Fault { kind: ErrorKind::NotJson, at, reason })
        }
        None => Ok(Object { text: &raw[start..end], is_empty: n_members == 0, line_break }),
    }
}

/// Tells other JSON from what is no JSON at all.
fn no_object(mut scanner: Scanner<'_>, raw: &[u8]) -> Fault {
    if raw.starts_with("\u{FEFF}".as_bytes()) {
        return scanner.expected("a byte order mark is not JSON, send UTF-8 without it");
    }
    let at = scanner.at();
    match scanner.value(0).and_then(|_| scanner.end()) {
        Ok(()) => Fault { kind: ErrorKind::NotAnObject, at, reason: "an event is one JSON object, `{…}`" },
        Err(fault) => fault,
    }
}

/// Turns line breaks into spaces. In valid JSON they stand between tokens only.
fn join_lines(json: &mut [u8]) {
    for byte in json {
        if matches!(byte, b'\n' | b'\r') {
            *byte = b' ';
        }
    }
}
