//! Finds in an event what `jsonb` is known to refuse, so that it costs no failed transaction. Pure.

/// Reason of the rows in `event_rejects` that the database does not accept.
pub const REFUSED: &str = "refused_by_database";

/// Why `jsonb` refuses `event`, which is valid JSON without half surrogate pairs; `None` if it is likely to accept it.
pub fn refusal(event: &str) -> Option<&'static str> {
    has_null_character(event.as_bytes()).then_some("\\u0000 cannot be stored in a jsonb value")
}

/// True if a string in `json` has the escape `\u0000`.
fn has_null_character(json: &[u8]) -> bool {
    const ESCAPE: &[u8] = b"\\u0000";
    let mut rest = json;
    while let Some(at) = rest.iter().position(|byte| *byte == b'\\') {
        // Whatever is escaped is over after the next byte, so `\\u0000` is a backslash and text.
        if rest[at..].starts_with(ESCAPE) {
            return true;
        }
        rest = rest.get(at + 2..).unwrap_or_default();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_null_character_is_found_and_a_backslash_before_its_text_is_not_one() {
        for (event, is_refused) in [
            (r#"{"a":"\u0000"}"#, true),
            (r#"{"\u0000":1}"#, true),
            (r#"{"a":"\\\u0000"}"#, true),
            (r#"{"a":"\\u0000"}"#, false),
            (r#"{"a":"\u00001"}"#, true),
            (r#"{"a":"\u0001\"\n"}"#, false),
            (r#"{"a":"u0000"}"#, false),
            ("{}", false),
        ] {
            assert_eq!(refusal(event).is_some(), is_refused, "{event}");
        }
    }
}
