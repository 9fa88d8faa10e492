//! Finds the ids of events: their own, those of CloudEvents, and those that a header of their request brings.

use crate::event::{MAX_ID_BYTES, Value, check_id_length};
use crate::producer::answer::Answer;
use crate::producer::status::ErrorTag;

/// The header with a text of the client's that is the same whenever it repeats a request.
pub const IDEMPOTENCY_KEY: &str = "Idempotency-Key";

/// The header with the id of a webhook's message.
pub const WEBHOOK_ID: &str = "webhook-id";

/// Longest text of a header that becomes an id, in bytes. In a batch, the index of the event follows, and
/// MAX_REQUEST_EVENTS is at most 1,000,000.
const MAX_HEADER_BYTES: usize = MAX_ID_BYTES - "/999999".len();

/// Reads an `Idempotency-Key`: a quoted string as in RFC 8941, or any other text as it is.
///
/// # Errors
/// The answer to a request with a key that cannot be used.
pub fn of_idempotency_key(value: &[u8]) -> Result<Box<str>, Answer> {
    let key = unquoted(value).map_err(|reason| bad_header(IDEMPOTENCY_KEY, reason))?;
    check_header(IDEMPOTENCY_KEY, &key)?;
    Ok(key.into())
}

/// Checks the text of a header that becomes an id.
///
/// # Errors
/// The answer to a request if it is empty or too long.
pub fn check_header(name: &str, text: &str) -> Result<(), Answer> {
    if (1..=MAX_HEADER_BYTES).contains(&text.len()) {
        return Ok(());
    }
    Err(bad_header(name, &format!("it has {} bytes instead of 1 to {MAX_HEADER_BYTES}", text.len())))
}

/// The id of a CloudEvent: its source and its own id, which are unique together. A source is a URI, so it has no space
/// and the first space separates the two. `None` if they are not what CloudEvents requires.
///
/// # Errors
/// What is wrong with the id.
pub fn of_cloud_event(source: Option<Value<'_>>, id: Option<Value<'_>>) -> Result<Option<String>, String> {
    let (Some(source), Some(id)) = (non_empty(source), non_empty(id)) else { return Ok(None) };
    if source.contains(' ') {
        return Ok(None);
    }
    let id = format!("{source} {id}");
    check_id_length(id.len()).map(|()| Some(id))
}

fn non_empty(value: Option<Value<'_>>) -> Option<String> {
    let Value::Text(text) = value? else { return None };
    String::from_utf8(text.decode()?.into_owned()).ok().filter(|text| !text.is_empty())
}

fn unquoted(value: &[u8]) -> Result<String, &'static str> {
    let text =
        std::str::from_utf8(value).ok().filter(|text| text.bytes().all(|byte| matches!(byte, b' '..=b'~')));
    let text = text.ok_or("it has other characters than ASCII letters, digits, signs and spaces")?;
    let Some(quoted) = text.strip_prefix('"') else { return Ok(text.to_owned()) };
    let (mut key, mut rest) = (String::new(), quoted.chars());
    loop {
        match rest.next() {
            Some('"') if rest.as_str().is_empty() => return Ok(key),
            Some('"') | None => {
                return Err("it begins with a quotation mark and does not end with the matching one");
            }
            Some('\\') => match rest.next() {
                Some(escaped @ ('"' | '\\')) => key.push(escaped),
                _ => return Err("only \" and \\ may follow a backslash between quotation marks"),
            },
            Some(plain) => key.push(plain),
        }
    }
}

/// Does not repeat the value, which is up to the client.
fn bad_header(name: &str, reason: &str) -> Answer {
    let message = format!(
        "{name} cannot be used as an event id: {reason}; send a text such as a UUID, or leave it out"
    );
    Answer::error(ErrorTag::BadEventId, &message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Limits, read_event};

    fn members(event: &str) -> [Option<Value<'_>>; 2] {
        let limits = Limits { max_event_bytes: 10_000, max_depth: 9 };
        read_event(event.as_bytes(), &limits, &["source", "id"]).expect("valid").members
    }

    #[test]
    fn a_key_is_bare_or_a_quoted_string() {
        let longest = "x".repeat(MAX_HEADER_BYTES);
        for (value, key) in [
            ("8e03978e-40d5-43dd-bc93-6894a57f9324", "8e03978e-40d5-43dd-bc93-6894a57f9324"),
            ("\"8e03978e\"", "8e03978e"),
            (r#""a \"b\" \\ c""#, r#"a "b" \ c"#),
            (r#"a"b\c;d, e"#, r#"a"b\c;d, e"#),
            ("\" \"", " "),
            (longest.as_str(), longest.as_str()),
        ] {
            assert_eq!(of_idempotency_key(value.as_bytes()).as_deref(), Ok(key), "{value}");
        }
        let too_long = "x".repeat(MAX_HEADER_BYTES + 1);
        for value in [
            &b""[..],
            b"\"\"",
            b"\"",
            b"\"a",
            b"\"a\\\"",
            b"\"a\" ;b=1",
            b"\"a\"b\"",
            b"\"a\\n\"",
            b"a\tb",
            b"a\x00",
            b"a\x7f",
            "é".as_bytes(),
            b"\xff",
            too_long.as_bytes(),
        ] {
            let answer = of_idempotency_key(value).expect_err("refused");
            let said = String::from_utf8_lossy(&answer.body).into_owned();
            assert_eq!(answer.status.code(), 400);
            assert!(said.contains("\"bad_event_id\"") && said.contains("Idempotency-Key"), "{said}");
        }
    }

    #[test]
    fn the_id_of_a_cloud_event_needs_both_parts() {
        for (event, id) in [
            (r#"{"source": "/shop", "id": "7"}"#, Ok(Some("/shop 7"))),
            (r#"{"source": "\u002fshop", "id": "a b"}"#, Ok(Some("/shop a b"))),
            (r#"{"source": "/a shop", "id": "7"}"#, Ok(None)),
            (r#"{"source": "/shop", "id": 7}"#, Ok(None)),
            (r#"{"source": "/shop", "id": ""}"#, Ok(None)),
            (r#"{"source": "", "id": "7"}"#, Ok(None)),
            (r#"{"source": null, "id": "7"}"#, Ok(None)),
            (r#"{"id": "7"}"#, Ok(None)),
            (r#"{"source": "/shop"}"#, Ok(None)),
            (&format!(r#"{{"source": "/shop", "id": "{}"}}"#, "x".repeat(250)), Err("has 256 bytes")),
        ] {
            let [source, own] = members(event);
            let found = of_cloud_event(source, own);
            assert_eq!(found.as_ref().map(Option::as_deref).map_err(String::as_str), id, "{event}");
        }
    }
}
