//! Property tests for events on random input, compared with `serde_json`.

use proptest::prelude::*;
use serde_json::{Map, Value};

use super::*;

/// Any JSON value, as a tree.
fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        ".*\\PC*[\u{85}\u{2028}\u{2029}\r\n\"\\\\]".prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 40, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            object(inner).prop_map(Value::Object),
        ]
    })
}

fn object(value: impl Strategy<Value = Value>) -> impl Strategy<Value = Map<String, Value>> {
    let key = prop_oneof![4 => any::<String>(), 1 => Just("timestamp".to_owned())];
    prop::collection::btree_map(key, value, 0..5).prop_map(|members| members.into_iter().collect())
}

/// An object as a client might write it: compact or pretty, CR LF or LF, white space around it.
fn written_object() -> impl Strategy<Value = (Map<String, Value>, String)> {
    (object(json()), any::<bool>(), any::<bool>(), "[ \t\r\n]{0,3}", "[ \t\r\n]{0,3}").prop_map(
        |(tree, pretty, crlf, before, after)| {
            let text = match pretty {
                true => serde_json::to_string_pretty(&tree),
                false => serde_json::to_string(&tree),
            };
            let text = text.expect("a tree can be serialized");
            let text = if crlf { text.replace('\n', "\r\n") } else { text };
            (tree, format!("{before}{text}{after}"))
        },
    )
}

/// Text that is almost JSON.
fn near_json() -> impl Strategy<Value = Vec<u8>> {
    let part = prop_oneof![
        prop::sample::select(vec![
            "{",
            "}",
            "[",
            "]",
            ",",
            ":",
            "\"",
            "\\",
            "\\u",
            "\\ud83d",
            "\\ude00",
            "\\n",
            "null",
            "true",
            "false",
            "-",
            "0",
            "1",
            ".",
            "e",
            "E",
            "+",
            " ",
            "\n",
            "\r",
            "\t",
            "\0",
            "{\"a\":",
            "\"a\":1",
            "\"timestamp\"",
            "{}",
            "é",
            "\u{feff}",
            "\u{2028}",
            "1e999",
            "//",
            "'",
            "NaN",
            "0.0",
            "a",
            "D800"
        ])
        .prop_map(|text| text.as_bytes().to_vec()),
        prop::collection::vec(any::<u8>(), 1..3),
    ];
    prop::collection::vec(part, 0..12).prop_map(|parts| parts.concat())
}

/// A valid event with a few bytes changed, removed or inserted.
fn broken_object() -> impl Strategy<Value = Vec<u8>> {
    let edit = (any::<prop::sample::Index>(), any::<u8>(), 0..3u8);
    (written_object(), prop::collection::vec(edit, 1..4)).prop_map(|((_, text), edits)| {
        let mut bytes = text.into_bytes();
        for (place, byte, how) in edits {
            let at = place.index(bytes.len() + 1);
            match how {
                0 => bytes.insert(at, byte),
                _ if at == bytes.len() => {}
                1 => bytes[at] = byte,
                _ => drop(bytes.remove(at)),
            }
        }
        bytes
    })
}

/// Part of a body: an event, something like it, or text that is not.
fn piece() -> impl Strategy<Value = Vec<u8>> {
    let keyed = "[ -~\u{e9}]{0,9}".prop_map(|text| serde_json::json!({ "a": text }).to_string());
    prop_oneof![
        4 => written_object().prop_map(|(_, text)| text.into_bytes()),
        2 => keyed.prop_map(String::into_bytes),
        1 => (1..10usize).prop_map(|depth| nested(depth).into_bytes()),
        1 => broken_object(),
        1 => near_json(),
        1 => "[{\"a\":[0,\"]\r]\\ ]{1,8}".prop_map(String::into_bytes),
    ]
}

/// What one scan finds, in the form of the reference. As in the producer, the key may be the added timestamp.
fn scanned(
    body: &[u8],
    format: Format,
    limits: Limits,
    field: &str,
) -> Result<Vec<Result<reference::Found, EventError>>, EventError> {
    let mut events = Events::new(body, format, limits, [field, TIMESTAMP]);
    let mut found = Vec::new();
    while let Some(event) = events.next_event()? {
        found.push(event.and_then(|event| {
            let [key, timestamp] = event.members;
            let (mut line, stamp) = (Vec::new(), stamp());
            event.write(added(timestamp, &stamp).as_slice(), &limits, &mut line)?;
            let is_added = field == TIMESTAMP && timestamp.is_none();
            let key = if is_added { Some(stamp.as_bytes().into()) } else { key.and_then(|key| key.text()) };
            Ok((line, key.map(Cow::into_owned)))
        }));
    }
    Ok(found)
}

/// Whether `serde_json` accepts the bytes as one JSON object; `None` if only its own limit on numbers, which
/// we do not have, rejects them.
fn judge(raw: &[u8]) -> Option<bool> {
    match serde_json::from_slice::<Map<String, Value>>(raw) {
        Ok(_) => Some(true),
        Err(error) if error.to_string().starts_with("number out of range") => None,
        Err(_) => Some(false),
    }
}

fn holds_for_any_bytes(raw: &[u8]) -> Result<(), TestCaseError> {
    let mut line = Vec::new();
    let result = prepare(raw, &stamp(), &LIMITS, &mut line);
    if let Some(is_object) = judge(raw) {
        prop_assert_eq!(result.is_ok(), is_object, "{:?}", result);
    }
    match &result {
        Ok(()) => {
            prop_assert!(!line.iter().any(|byte| matches!(byte, b'\n' | b'\r')));
            prop_assert_eq!(&*one_line(&line, None).expect("ours").text, &line[..]);
            let mut again = Vec::new();
            prepare(&line, &stamp(), &LIMITS, &mut again).expect("ours");
            prop_assert_eq!(again, line, "a prepared event does not change again");
        }
        Err(error) => {
            prop_assert_eq!(line.len(), 0);
            prop_assert!(error.offset.is_none_or(|offset| offset <= raw.len()));
        }
    }
    prop_assert_eq!(one_line(raw, None).is_ok(), result.is_ok());
    Ok(())
}

proptest! {
    #[test]
    fn any_object_comes_out_as_one_line_with_at_most_a_timestamp_more((tree, raw) in written_object()) {
        let line = prepared(&raw).expect("valid");
        prop_assert!(!line.contains(['\n', '\r']));
        // Parsed from the text instead of taken from the tree, because `serde_json` may read a double one bit
        // off.
        let mut expected: Map<String, Value> = serde_json::from_str(&raw).expect("JSON");
        expected.entry("timestamp").or_insert(TEXT.into());
        prop_assert_eq!(serde_json::from_str::<Map<String, Value>>(&line).expect("JSON"), expected);
        let kept = raw.trim().replace(['\n', '\r'], " ");
        let head = if tree.contains_key("timestamp") { &kept[..] } else { &kept[..kept.len() - 1] };
        prop_assert!(line.starts_with(head));
        prop_assert_eq!(&*one_line(raw.as_bytes(), None).expect("valid").text, kept.as_bytes());
    }

    #[test]
    fn any_bytes_are_an_event_or_an_error(raw in prop::collection::vec(any::<u8>(), 0..200)) {
        holds_for_any_bytes(&raw)?;
    }

    #[test]
    fn nearly_json_is_judged_as_serde_json_does(raw in near_json()) {
        holds_for_any_bytes(&raw)?;
    }

    #[test]
    fn damaged_events_are_judged_as_serde_json_does(raw in broken_object()) {
        holds_for_any_bytes(&raw)?;
    }

    #[test]
    fn joined_events_are_split_again(
        events in prop::collection::vec(written_object(), 0..8),
        crlf in any::<bool>(),
    ) {
        let lines: Vec<String> = events.iter().map(|(_, raw)| prepared(raw).expect("valid")).collect();
        let all: Vec<_> = lines.iter().cloned().map(Ok).collect();
        let array = format!("[{}]", events.iter().map(|(_, raw)| raw.as_str()).collect::<Vec<_>>().join(","));
        prop_assert_eq!(read(&array, Format::Array), Ok(all.clone()));
        let body = lines.join(if crlf { "\r\n" } else { "\n" });
        prop_assert_eq!(read(&body, Format::Ndjson), Ok(all));
    }

    #[test]
    fn one_scan_finds_what_splitting_and_then_checking_finds(
        pieces in prop::collection::vec(piece(), 0..6),
        format in prop::sample::select(vec![Format::Object, Format::Array, Format::Ndjson]),
        (max_event_bytes, max_depth) in (0..400usize, 0..8usize),
        field in prop::sample::select(vec!["a", "timestamp", ""]),
        edit in prop::option::weighted(0.2, (any::<prop::sample::Index>(), any::<u8>())),
    ) {
        let mut body = match format {
            Format::Array => [&b" ["[..], &pieces.join(&b" ,"[..]), b"]"].concat(),
            _ => pieces.join(&b"\n"[..]),
        };
        if let Some((place, byte)) = edit && !body.is_empty() {
            let at = place.index(body.len());
            body[at] = byte;
        }
        let limits = Limits { max_event_bytes, max_depth };
        prop_assert_eq!(scanned(&body, format, limits, field), reference::events(&body, format, &limits, field));
    }

    #[test]
    fn an_array_is_sound_as_serde_json_sees_it(elements in prop::collection::vec(near_json(), 0..4)) {
        let body = [&b"["[..], &elements.join(&b","[..]), b"]"].concat();
        let judged = serde_json::from_slice::<Vec<Value>>(&body);
        match (read(&body, Format::Array), judged) {
            (Ok(events), Ok(values)) => prop_assert_eq!(events.len(), values.len()),
            (Err(error), Ok(_)) => prop_assert!(false, "refused: {}", error),
            // Half surrogate pairs, invalid UTF-8 and huge numbers are left to the check of each element.
            (Ok(events), Err(_)) => prop_assert!(!events.is_empty()),
            (Err(_), Err(_)) => {}
        }
    }

    #[test]
    fn a_key_is_the_value_that_a_reader_would_find((tree, raw) in written_object(), text in any::<String>()) {
        let mut tree = tree;
        tree.insert(text.clone(), text.clone().into());
        let line = serde_json::to_string(&tree).expect("a tree can be serialized");
        let found = key_of(line.as_bytes(), &text);
        prop_assert_eq!(found.as_deref(), Some(text.as_bytes()));
        let found = key_of(raw.as_bytes(), "timestamp");
        match serde_json::from_str::<Map<String, Value>>(&raw).expect("valid").get("timestamp") {
            Some(Value::String(text)) => prop_assert_eq!(found.as_deref(), Some(text.as_bytes())),
            Some(Value::Number(_) | Value::Bool(_)) => prop_assert!(found.is_some()),
            _ => prop_assert_eq!(found, None),
        }
    }
}
