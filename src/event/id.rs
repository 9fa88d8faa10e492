//! What identifies an event: the id that its sender gave it, and a checksum that tells a repeated event from another
//! one with the same id.

use std::borrow::Cow;

use crate::event::object::Event;
use crate::event::scan::Value;

/// Longest id, in bytes.
const MAX_BYTES: usize = 255;

/// The id of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventId<'a> {
    /// The characters of a string, or the text of a number.
    pub text: Cow<'a, [u8]>,
    /// CRC-32 of the line without the value of `timestamp`: the producer adds a new one when a client repeats an event.
    pub checksum: u32,
}

impl<'a> Value<'a> {
    /// The text of an id: a string or a number of 1 to 255 bytes. `None` for everything else.
    pub fn id(self) -> Option<Cow<'a, [u8]>> {
        let is_number = |plain: &[u8]| !plain.first().is_some_and(u8::is_ascii_alphabetic);
        let text = match self {
            Self::Text(text) => text.decode()?,
            Self::Plain(plain) if is_number(plain) => Cow::Borrowed(plain),
            _ => return None,
        };
        (1..=MAX_BYTES).contains(&text.len()).then_some(text)
    }
}

/// The checksum of `event`, whose line is `text`.
pub(super) fn checksum<const N: usize>(
    event: &Event<'_, N>,
    timestamp: Option<Value<'_>>,
    text: &[u8],
) -> u32 {
    let mut crc = flate2::Crc::new();
    match timestamp {
        Some(Value::Text(time)) => {
            // Line breaks became spaces, so the places are those in the record.
            let start = time.offset_in(event.text);
            crc.update(&text[..start]);
            crc.update(&text[start + time.len()..]);
        }
        _ => crc.update(text),
    }
    crc.sum()
}
