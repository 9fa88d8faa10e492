//! Formats records that are not valid events as JSON lines with position, reason and all bytes. Pure.

use std::fmt::Write;

use crate::event::EventError;

/// Formats the line for a record that is not a valid event.
///
/// The record's bytes are in `value`, or as hexadecimal digits in `value_hex` if they are not UTF-8.
pub fn reject_line(topic: &str, partition: i32, offset: i64, error: &EventError, value: &[u8]) -> String {
    let mut line = format!(
        "{{\"topic\":{},\"partition\":{partition},\"offset\":{offset},\"reason\":\"{}\",\"message\":{},",
        quoted(topic),
        error.kind.as_str(),
        quoted(&error.message)
    );
    match std::str::from_utf8(value) {
        Ok(text) => {
            line.push_str("\"value\":");
            line.push_str(&quoted(text));
        }
        Err(_) => {
            line.reserve(2 * value.len() + 16);
            line.push_str("\"value_hex\":\"");
            for byte in value {
                let _ = write!(line, "{byte:02x}");
            }
            line.push('"');
        }
    }
    line.push('}');
    line
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::event::one_line;

    fn kept(value: &[u8]) -> Value {
        let error = one_line(value, None).expect_err("not an event");
        let line = reject_line("ev\"ents", 2, 41, &error, value);
        assert!(!line.contains('\n'));
        serde_json::from_str(&line).expect("JSON")
    }

    #[test]
    fn place_reason_and_bytes_are_kept() {
        let line = kept(b"not \"json\"\nsecond line");
        assert_eq!(
            (&line["topic"], &line["partition"], &line["offset"]),
            (&"ev\"ents".into(), &2.into(), &41.into())
        );
        assert_eq!(line["reason"], "not_json");
        assert_eq!(line["value"], "not \"json\"\nsecond line");
        assert_eq!(kept(b"")["value"], "");
    }

    #[test]
    fn bytes_that_are_not_utf8_are_kept_as_hex() {
        let line = kept(b"{\"a\":\"\xff\x00\"}");
        assert_eq!(line["reason"], "not_utf8");
        assert_eq!(line["value_hex"], "7b2261223a22ff00227d");
    }
}
