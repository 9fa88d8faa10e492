//! Reads bodies in the simplest way: finds the slices first, then checks each, then reads the key of its line.

use super::*;
use crate::event::error::Fault;
use crate::event::scan::Scanner;

/// The line and the key of an event.
pub type Found = (Vec<u8>, Option<Vec<u8>>);

/// The events of `body`, with the value of `field` as their key.
pub fn events(
    body: &[u8],
    format: Format,
    limits: &Limits,
    field: &str,
) -> Result<Vec<Result<Found, EventError>>, EventError> {
    let slices = match format {
        Format::Object => vec![body],
        Format::Ndjson => body
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.iter().all(|byte| b" \t\r".contains(byte)))
            .collect(),
        Format::Array => elements(body).map_err(|fault| EventError::from_fault(fault, body))?,
    };
    let event = |raw| {
        let mut line = Vec::new();
        prepare(raw, &stamp(), limits, &mut line)?;
        let key = key(&line, field);
        Ok((line, key))
    };
    Ok(slices.into_iter().map(event).collect())
}

fn elements(body: &[u8]) -> Result<Vec<&[u8]>, Fault> {
    let mut scanner = Scanner::new(body, MAX_DEPTH);
    scanner.skip_space();
    if !scanner.take(b'[') {
        return Err(scanner.expected("`[` is expected"));
    }
    scanner.skip_space();
    let mut elements = Vec::new();
    if !scanner.take(b']') {
        loop {
            let start = scanner.at();
            scanner.value(0)?;
            elements.push(&body[start..scanner.at()]);
            scanner.skip_space();
            if scanner.take(b']') {
                break;
            }
            scanner.comma()?;
        }
    }
    scanner.end()?;
    Ok(elements)
}

fn key(line: &[u8], field: &str) -> Option<Vec<u8>> {
    let mut found = None;
    let each = |key: Text<'_>, value: Value<'_>| {
        if key.decode().is_some_and(|key| *key == *field.as_bytes()) {
            found = value.text().map(Cow::into_owned);
        }
    };
    Scanner::new(line, MAX_DEPTH).object(0, each).ok()?;
    found
}
