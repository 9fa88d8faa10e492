//! Reads the events of a request body, each byte once.

use std::io::BufRead;

use crate::event::error::{EventError, Fault};
use crate::event::object::{Event, Limits, read_event, read_object};
use crate::event::scan::{MAX_DEPTH, Scanner, trim};

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

/// The lines of `body` that are not blank, without their line feeds. A line may end with CR, and the last one
/// without an ending.
pub fn lines(body: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = body;
    std::iter::from_fn(move || next_line(&mut rest))
}

fn next_line<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    while !rest.is_empty() {
        let from = *rest;
        // The fastest search for a byte that std has; memory cannot fail.
        let n_bytes = rest.skip_until(b'\n').ok()?;
        let line = &from[..n_bytes];
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        if !trim(line).is_empty() {
            return Some(line);
        }
    }
    None
}

/// Reads the events of a body in order, each in one scan.
///
/// An object is the whole body. NDJSON has an event in each line; lines with nothing but white space are skipped
/// and are not counted. An array may turn out not to be valid JSON after some of its elements were returned. Limiting
/// the number of events per body is up to the caller.
#[derive(Debug)]
pub struct Events<'a, const N: usize> {
    limits: Limits,
    names: [&'a str; N],
    rest: Rest<'a>,
}

#[derive(Debug)]
enum Rest<'a> {
    Object(Option<&'a [u8]>),
    Lines(&'a [u8]),
    Array(Array<'a>),
}

/// An array, read element by element.
#[derive(Debug)]
struct Array<'a> {
    body: &'a [u8],
    is_utf8: bool,
    scanner: Scanner<'a>,
    place: Place,
}

#[derive(Clone, Copy, Debug)]
enum Place {
    Before,
    Inside,
    After,
}

impl<'a, const N: usize> Events<'a, N> {
    /// Prepares to read `body`, and to find in each event the top-level members called `names`.
    pub fn new(body: &'a [u8], format: Format, limits: Limits, names: [&'a str; N]) -> Self {
        let rest = match format {
            Format::Object => Rest::Object(Some(body)),
            Format::Ndjson => Rest::Lines(body),
            Format::Array => Rest::Array(Array {
                body,
                is_utf8: std::str::from_utf8(body).is_ok(),
                scanner: Scanner::new(body, MAX_DEPTH),
                place: Place::Before,
            }),
        };
        Self { limits, names, rest }
    }

    /// Returns the next event, or why it is rejected; `None` after the last one.
    ///
    /// # Errors
    /// The array is not valid JSON as a whole, or one of its elements is nested deeper than 127 levels. Then no
    /// element can be trusted to be an event, including those returned earlier. Offsets are counted from the
    /// start of the body.
    pub fn next_event(&mut self) -> Result<Option<Result<Event<'a, N>, EventError>>, EventError> {
        let raw = match &mut self.rest {
            Rest::Object(body) => body.take(),
            Rest::Lines(lines) => next_line(lines),
            Rest::Array(array) => {
                return array
                    .next_event(&self.limits, &self.names)
                    .map_err(|fault| EventError::from_fault(fault, array.body));
            }
        };
        Ok(raw.map(|raw| read_event(raw, &self.limits, &self.names)))
    }

    /// Checks what [`Events::next_event`] has not read yet as far as that could end in its error.
    ///
    /// # Errors
    /// As for [`Events::next_event`].
    pub fn check_rest(&mut self) -> Result<(), EventError> {
        let Rest::Array(array) = &mut self.rest else { return Ok(()) };
        array.check_rest().map_err(|fault| EventError::from_fault(fault, array.body))
    }
}

impl<'a> Array<'a> {
    fn next_event<const N: usize>(
        &mut self,
        limits: &Limits,
        names: &[&str; N],
    ) -> Result<Option<Result<Event<'a, N>, EventError>>, Fault> {
        if !self.advance()? {
            return Ok(None);
        }
        let scanner = &mut self.scanner;
        (scanner.deepest, scanner.lone_surrogate) = (0, None);
        let start = scanner.at();
        let event = match scanner.peek() {
            Some(b'{') => Some(read_object(scanner, names)?),
            _ => scanner.value(0).map(|_| None)?,
        };
        let is_sound =
            self.is_utf8 && scanner.lone_surrogate.is_none() && scanner.deepest <= limits.max_depth;
        let raw = scanner.since(start);
        Ok(Some(match event {
            Some(event) if is_sound => limits.check_size(raw.len()).map(|()| event),
            // Read once more by itself, to find out what is wrong with it and where.
            _ => read_event(raw, limits, names),
        }))
    }

    fn check_rest(&mut self) -> Result<(), Fault> {
        while self.advance()? {
            self.scanner.value(0)?;
        }
        Ok(())
    }

    /// Moves to the next element. Returns false after the last one, if nothing follows the array.
    fn advance(&mut self) -> Result<bool, Fault> {
        let scanner = &mut self.scanner;
        scanner.skip_space();
        let is_first = match self.place {
            Place::After => return Ok(false),
            Place::Inside => false,
            Place::Before if scanner.take(b'[') => true,
            Place::Before => return Err(scanner.expected("`[` is expected")),
        };
        if is_first {
            scanner.skip_space();
        }
        if scanner.take(b']') {
            self.place = Place::After;
            return scanner.end().map(|()| false);
        }
        if !is_first {
            scanner.comma()?;
        }
        self.place = Place::Inside;
        Ok(true)
    }
}
