//! Reads one event: checks that the bytes are one JSON object, finds its members of interest, and writes it as
//! one line.

use crate::event::error::{ErrorKind, EventError, Fault};
use crate::event::scan::{Scanner, Text, Value, trim};

/// The member that every event has.
pub const TIMESTAMP: &str = "timestamp";

/// Limits on one event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Largest line in bytes, including what is added to the event but not the line ending.
    pub max_event_bytes: usize,
    /// Deepest nesting of objects and arrays, counting the event itself. Values above 127 mean 127.
    pub max_depth: usize,
}

impl Limits {
    /// Deep enough for any event that a person would look at.
    pub const DEFAULT_MAX_DEPTH: usize = 64;

    pub(super) fn check_size(&self, n_bytes: usize) -> Result<(), EventError> {
        if n_bytes > self.max_event_bytes {
            return Err(EventError::too_large(n_bytes, self.max_event_bytes));
        }
        Ok(())
    }
}

/// A JSON object that is an event; only with what is added to it, it may still be too large.
#[derive(Clone, Copy, Debug)]
pub struct Event<'a, const N: usize> {
    /// The value of each top-level member that was asked for, in the order of the names, or `None` if the event
    /// has no such member. If one is repeated, the last one counts, as in most JSON readers.
    pub members: [Option<Value<'a>>; N],
    /// From the opening to the closing brace.
    pub(super) text: &'a [u8],
    is_empty: bool,
    /// Whether there is a CR or LF between its tokens.
    pub(super) line_break: bool,
}

impl<const N: usize> Event<'_, N> {
    /// Appends the event to `out` as exactly one line, without a line ending.
    ///
    /// Each CR or LF between tokens becomes a space; all other bytes are kept. The members in `added`, each as
    /// `"name": value` on one line, are written before the closing brace. On an error, `out` is unchanged.
    ///
    /// # Errors
    /// [`ErrorKind::TooLarge`], counted with the added members.
    pub fn write(&self, added: &[&[u8]], limits: &Limits, out: &mut Vec<u8>) -> Result<(), EventError> {
        const SEPARATOR: &[u8] = b", ";
        let needed = added.iter().map(|member| SEPARATOR.len() + member.len()).sum::<usize>();
        let is_first = self.is_empty && !added.is_empty();
        let size = self.text.len() + needed - if is_first { SEPARATOR.len() } else { 0 };
        limits.check_size(size)?;
        out.reserve(size);
        let start = out.len();
        let (closing, members) = self.text.split_last().expect("an object has braces");
        out.extend_from_slice(members);
        for (index, member) in added.iter().enumerate() {
            if index > 0 || !is_first {
                out.extend_from_slice(SEPARATOR);
            }
            out.extend_from_slice(member);
        }
        out.push(*closing);
        if self.line_break {
            join_lines(&mut out[start..]);
        }
        Ok(())
    }
}

/// Reads `raw`, which should be one event with white space around it, and finds its members called `names`.
///
/// # Errors
/// Any [`ErrorKind`]. The size is checked first, so a huge body is rejected without being parsed.
pub fn read_event<'a, const N: usize>(
    raw: &'a [u8],
    limits: &Limits,
    names: &[&str; N],
) -> Result<Event<'a, N>, EventError> {
    limits.check_size(trim(raw).len())?;
    check(raw, limits.max_depth, names)
}

/// Reads one event of any size.
pub(super) fn check<'a, const N: usize>(
    raw: &'a [u8],
    max_depth: usize,
    names: &[&str; N],
) -> Result<Event<'a, N>, EventError> {
    if trim(raw).is_empty() {
        return Err(EventError::empty());
    }
    read_whole(raw, max_depth, |scanner| read_object(scanner, names))
        .map_err(|fault| EventError::from_fault(fault, raw))
}

/// Reads one event of any size, and calls `each` for its members in their order.
pub(super) fn visit<'a>(
    raw: &'a [u8],
    max_depth: usize,
    each: impl FnMut(Text<'a>, Value<'a>),
) -> Result<(), EventError> {
    read_whole(raw, max_depth, |scanner| scanner.object(0, each).map(drop))
        .map_err(|fault| EventError::from_fault(fault, raw))
}

/// Reads text that is one object, which `object` reads.
fn read_whole<'a, T>(
    raw: &'a [u8],
    max_depth: usize,
    object: impl FnOnce(&mut Scanner<'a>) -> Result<T, Fault>,
) -> Result<T, Fault> {
    if let Err(error) = std::str::from_utf8(raw) {
        let reason = "this byte is not valid UTF-8";
        return Err(Fault { kind: ErrorKind::NotUtf8, at: error.valid_up_to(), reason });
    }
    let mut scanner = Scanner::new(raw, max_depth);
    scanner.skip_space();
    if scanner.peek() != Some(b'{') {
        return Err(no_object(scanner, raw));
    }
    let read = object(&mut scanner)?;
    scanner.end()?;
    match scanner.lone_surrogate {
        Some(at) => {
            let reason = "a \\u escape is half of a surrogate pair, which is not a character";
            Err(Fault { kind: ErrorKind::NotJson, at, reason })
        }
        None => Ok(read),
    }
}

/// Reads the object at the cursor. Leaves UTF-8, surrogates and what follows to the caller.
pub(super) fn read_object<'a, const N: usize>(
    scanner: &mut Scanner<'a>,
    names: &[&str; N],
) -> Result<Event<'a, N>, Fault> {
    let start = scanner.at();
    scanner.line_break = false;
    let mut members = [None; N];
    let n_members = scanner.object(0, |key, value| {
        for (name, member) in names.iter().zip(&mut members) {
            if key.is(name.as_bytes()) {
                *member = Some(value);
            }
        }
    })?;
    let (text, line_break) = (scanner.since(start), scanner.line_break);
    Ok(Event { members, text, is_empty: n_members == 0, line_break })
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
pub(super) fn join_lines(json: &mut [u8]) {
    for byte in json {
        if matches!(byte, b'\n' | b'\r') {
            *byte = b' ';
        }
    }
}
