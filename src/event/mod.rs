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
mod id;
mod object;
mod scan;
mod stamp;

#[cfg(test)]
mod tests;

pub use body::{Events, Format, detect, lines};
pub use error::{ErrorKind, EventError};
pub use id::{EventId, MAX_ID_BYTES, check_id_length, uuid};
pub use object::{Event, Limits, TIMESTAMP, read_event};
pub use scan::{Text, Value};
pub use stamp::Stamp;

use std::borrow::Cow;

use id::checksum;
use object::{check, join_lines, visit};
use scan::MAX_DEPTH;

/// The log line for a record.
#[derive(Debug)]
pub struct Line<'a> {
    /// Its bytes, borrowed if nothing has to change.
    pub text: Cow<'a, [u8]>,
    /// What identifies the event, if that was asked for and it has an id.
    pub id: Option<EventId<'a>>,
}

/// Returns the log line for a record read from the topic. With `id_field`, also the id in this member of the event.
///
/// A record written by [`Event::write`] comes back unchanged. Records from other producers follow the same rule,
/// but get no timestamp, and may have any size and up to 127 levels of nesting.
///
/// # Errors
/// Any [`ErrorKind`] except `TooLarge`. A record without a value is `Empty`.
pub fn one_line<'a>(value: &'a [u8], id_field: Option<&str>) -> Result<Line<'a>, EventError> {
    let Some(field) = id_field else {
        return Ok(Line { text: joined(&check(value, MAX_DEPTH, &[])?), id: None });
    };
    let event = check(value, MAX_DEPTH, &[field, TIMESTAMP])?;
    let text = joined(&event);
    let [id, timestamp] = event.members;
    let id = id
        .and_then(|id| id.id().ok()?)
        .map(|id| EventId { checksum: checksum(&event, timestamp, &text), text: id });
    Ok(Line { text, id })
}

/// Checks an event by the rule of [`one_line`], and calls `each` with the value of each top-level member called one of
/// `names`, and the place of that name. If a member is repeated, the last call counts.
///
/// # Errors
/// Those of [`one_line`]; `each` may have been called before.
pub fn members<'a>(
    event: &'a [u8],
    names: &[impl AsRef<[u8]>],
    mut each: impl FnMut(usize, Value<'a>),
) -> Result<(), EventError> {
    visit(event, MAX_DEPTH, |key, value| {
        for (place, _) in names.iter().enumerate().filter(|(_, name)| key.is(name.as_ref())) {
            each(place, value);
        }
    })
}

fn joined<'a, const N: usize>(event: &Event<'a, N>) -> Cow<'a, [u8]> {
    if !event.line_break {
        return Cow::Borrowed(event.text);
    }
    let mut line = event.text.to_vec();
    join_lines(&mut line);
    Cow::Owned(line)
}
