//! Splits a request body into slices that should each be one event; `prepare` then checks them.

use std::iter::FusedIterator;

use crate::event::{
    error::{EventError, Fault},
    scan::{MAX_DEPTH, Scanner, trim},
};

/// How events are laid out in a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// The body is one event.
    Object,
    /// The body is one JSON array of events.
    Array,
    /// One event per line.
    Ndjson,
}

/// Returns `Array` if the first byte that is not white space is `[`, otherwise `Object`. For bodies declared
/// as JSON.
pub fn detect(body: &[u8]) -> Format {
    match trim(body).first() {
        Some(b'[') => Format::Array,
        _ => Format::Object,
    }
}

/// Returns the slices of `body` that should each be one event, in order and without copying.
///
/// An object is the whole body. An array is checked as a whole before its first element is returned; its
/// elements may still be rejected individually (not an object, not UTF-8, too deep, too large, half of a
/// surrogate pair). NDJSON is split at each line feed. Lines with nothing but white space are skipped and
/// take no index; `\r\n` and a last line without an ending are accepted. Limiting the number of events per
/// body is up to the caller.
///
/// # Errors
/// The array is not valid JSON as a whole, or one of its elements is nested deeper than 127 levels; then no
/// element can be trusted to be an event. Offsets are counted from the start of `body`.
pub fn split(body: &[u8], format: Format) -> Result<Split<'_>, EventError> {
    let rest = match format {
        Format::Object => Rest::Object(Some(body)),
        Format::Ndjson => Rest::Lines(body),
        Format::Array => Rest::Elements(check_array(body)?),
    };
    Ok(Split { rest })
}

/// Iterator over the slices of a body; see [`split`].
#[derive(Clone, Debug)]
pub struct Split<'a> {
    rest: Rest<'a>,
}

#[derive(Clone, Debug)]
enum Rest<'a> {
    Object(Option<&'a [u8]>),
    Lines(&'a [u8]),
    Elements(Elements<'a>),
}

/// Elements of an array that is known to be valid JSON, read a second time.
#[derive(Clone, Debug)]
struct Elements<'a> {
    body: &'a [u8],
    scanner: Scanner<'a>,
    n_left: usize,
}

impl<'a> Iterator for Split<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        match &mut self.rest {
            Rest::Object(body) => body.take(),
            Rest::Lines(lines) => next_line(lines),
            Rest::Elements(elements) => elements.next(),
        }
    }
}

impl FusedIterator for Split<'_> {}

fn next_line<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    while !rest.is_empty() {
        let end = rest.iter().position(|&byte| byte == b'\n').unwrap_or(rest.len());
        let line = &rest[..end];
        *rest = rest.get(end + 1..).unwrap_or_default();
        if !trim(line).is_empty() {
            return Some(line);
        }
    }
    None
}

fn check_array(body: &[u8]) -> Result<Elements<'_>, EventError> {
    let mut scanner = Scanner::new(body, MAX_DEPTH);
    scanner.skip_space();
    if !scanner.take(b'[') {
        return Err(EventError::from_fault(scanner.expected("`[` is expected"), body));
    }
    scanner.skip_space();
    let first = scanner.clone();
    let n_left = count_elements(&mut scanner).map_err(|fault| EventError::from_fault(fault, body))?;
    Ok(Elements { body, scanner: first, n_left })
}

fn count_elements(scanner: &mut Scanner<'_>) -> Result<usize, Fault> {
    let mut n_elements = 0;
    if !scanner.take(b']') {
        loop {
            scanner.value(0)?;
            n_elements += 1;
            scanner.skip_space();
            if scanner.take(b']') {
                break;
            }
            scanner.comma()?;
        }
    }
    scanner.end()?;
    Ok(n_elements)
}

impl<'a> Elements<'a> {
    fn next(&mut self) -> Option<&'a [u8]> {
        self.n_left = self.n_left.checked_sub(1)?;
        let start = self.scanner.at();
        self.scanner.value(0).ok()?;
        let element = &self.body[start..self.scanner.at()];
        self.scanner.skip_space();
        if self.n_left > 0 {
            self.scanner.comma().ok()?;
        }
        Some(element)
    }
}
