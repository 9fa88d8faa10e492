//! What identifies an event: the id that its sender gave it, and a checksum that tells a repeated event from another
//! one with the same id.

use std::borrow::Cow;

use crate::event::object::Event;
use crate::event::scan::Value;
use crate::hex;

/// Longest id, in bytes.
pub const MAX_ID_BYTES: usize = 255;

/// The id of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventId<'a> {
    /// The characters of a string, or the text of a number.
    pub text: Cow<'a, [u8]>,
    /// CRC-32 of the line without the value of `timestamp`: the producer adds a new one when a client repeats an event.
    pub checksum: u32,
}

impl<'a> Value<'a> {
    /// The text of an id: a string or a number of 1 to 255 bytes; `null` stands for none.
    ///
    /// # Errors
    /// What is wrong with it, as the end of a sentence.
    pub fn id(self) -> Result<Option<Cow<'a, [u8]>>, String> {
        match (self, self.text()) {
            (Self::Null, _) => Ok(None),
            (Self::Plain(b"true" | b"false"), _) | (_, None) => Err("is not a string or a number".into()),
            (_, Some(text)) => check_id_length(text.len()).map(|()| Some(text)),
        }
    }
}

/// The bytes of an id that is a UUID, such as `f81d4fae-7dec-11d0-a765-00a0c91e6bf6`. Its letters may be of any case.
pub fn uuid(id: &[u8]) -> Option<[u8; 16]> {
    if id.len() != 36 || [8, 13, 18, 23].iter().any(|at| id[*at] != b'-') {
        return None;
    }
    let mut digits = [0; 32];
    let mut filled = 0;
    for part in [0..8, 9..13, 14..18, 19..23, 24..36] {
        digits[filled..filled + part.len()].copy_from_slice(&id[part.clone()]);
        filled += part.len();
    }
    hex::decode(&digits)
}

/// Checks the length of an id, in bytes.
///
/// # Errors
/// What is wrong with it, as the end of a sentence.
pub fn check_id_length(n_bytes: usize) -> Result<(), String> {
    match n_bytes {
        0 => Err("is empty".into()),
        1..=MAX_ID_BYTES => Ok(()),
        _ => Err(format!("has {n_bytes} bytes")),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Limits, read_event};

    #[test]
    fn an_id_of_the_event_is_a_short_string_or_number() {
        let (longest, too_long) = ("x".repeat(MAX_ID_BYTES), "x".repeat(MAX_ID_BYTES + 1));
        let limits = Limits { max_event_bytes: 10_000, max_depth: 9 };
        let escaped = "\\u0041".repeat(MAX_ID_BYTES);
        for (id, reason) in [
            ("\"a\"", None),
            ("\" \"", None),
            ("-1.5e7", None),
            ("null", None),
            (&format!("\"{longest}\""), None),
            (&format!("\"{escaped}\""), None),
            ("\"\"", Some("is empty")),
            (&format!("\"{too_long}\""), Some("has 256 bytes")),
            (&"1".repeat(256), Some("has 256 bytes")),
            ("true", Some("is not a string or a number")),
            ("false", Some("is not a string or a number")),
            ("[\"a\"]", Some("is not a string or a number")),
            ("{}", Some("is not a string or a number")),
        ] {
            let event = format!("{{\"id\": {id}}}");
            let [member] = read_event(event.as_bytes(), &limits, &["id"]).expect("valid").members;
            let found = member.expect("it has one").id().map(drop);
            assert_eq!(found.err().as_deref(), reason, "{id}");
        }
    }
}
