//! Defines what an event is: one JSON object on one line, its bytes as the client wrote them, with a
//! `timestamp` and what else the producer adds.
//!
//! [`Events`] reads the events of a request body in one scan, which also finds the members that callers ask for;
//! [`Event::write`] makes the line that goes to Kafka, and [`one_line`] checks a record read from the topic. All of
//! these are pure functions; the time is passed in.
//!
//! Producer and consumer apply the same rule: valid UTF-8, valid JSON (RFC 8259), an object, and every `\u`
//! escape must be a character. Half of a surrogate pair (`"\ud800"`) is rejected although the grammar allows
//! it, because readers disagree: Python reads it and then fails to print it, Go and jq replace it, and
//! `serde_json` fails. Numbers too large for a double, repeated keys, and U+0085, U+2028 and U+2029 are kept
//! as they are; only CR and LF end a line here.

mod body;
mod error;
mod object;
mod scan;
mod stamp;

#[cfg(test)]
mod tests;

pub use body::{Events, Format, detect, lines};
pub use error::{ErrorKind, EventError};
pub use object::{Event, Limits, TIMESTAMP, read_event};
pub use scan::{Text, Value};
pub use stamp::Stamp;

use std::borrow::Cow;

use object::{check, join_lines};
use scan::MAX_DEPTH;

/// Returns the log line for a record read from the topic, borrowed if nothing has to change.
///
/// A record written by [`Event::write`] comes back unchanged. Records from other producers follow the same rule,
/// but get no timestamp, and may have any size and up to 127 levels of nesting.
///
/// # Errors
/// Any [`ErrorKind`] except `TooLarge`. A record without a value is `Empty`.
pub fn one_line(value: &[u8]) -> Result<Cow<'_, [u8]>, EventError> {
    let event = check(value, MAX_DEPTH, &[])?;
    if !event.line_break {
        return Ok(Cow::Borrowed(event.text));
    }
    let mut line = event.text.to_vec();
    join_lines(&mut line);
    Ok(Cow::Owned(line))
}
