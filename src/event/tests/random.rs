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
            prop_assert_eq!(&*one_line(&line).expect("ours"), &line[..]);
            let mut again = Vec::new();
            prepare(&line, &stamp(), &LIMITS, &mut again).expect("ours");
            prop_assert_eq!(again, line, "a prepared event does not change again");
        }
        Err(error) => {
            prop_assert_eq!(line.len(), 0);
            prop_assert!(error.offset.is_none_or(|offset| offset <= raw.len()));
        }
    }
    prop_assert_eq!(one_line(raw).is_ok(), result.is_ok());
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
        prop_assert_eq!(&*one_line(raw.as_bytes()).expect("valid"), kept.as_bytes());
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
        let array = format!("[{}]", events.iter().map(|(_, raw)| raw.as_str()).collect::<Vec<_>>().join(","));
        let trimmed: Vec<&str> = events.iter().map(|(_, raw)| raw.trim()).collect();
        prop_assert_eq!(slices(&array, Format::Array), &trimmed[..]);
        let lines: Vec<String> = events.iter().map(|(_, raw)| prepared(raw).expect("valid")).collect();
        let body = lines.join(if crlf { "\r\n" } else { "\n" });
        let found: Vec<&str> = slices(&body, Format::Ndjson).into_iter().map(str::trim_end).collect();
        prop_assert_eq!(found, lines);
    }

    #[test]
    fn no_body_makes_splitting_panic_or_invent_bytes(body in near_json()) {
        for format in [Format::Object, Format::Array, Format::Ndjson] {
            let Ok(slices) = split(&body, format) else { continue };
            for slice in slices {
                let (whole, part) = (body.as_ptr_range(), slice.as_ptr_range());
                prop_assert!(whole.start <= part.start && part.end <= whole.end);
                prop_assert!(format == Format::Object || !slice.is_empty());
                let _ = key_of(slice, "a");
            }
        }
    }

    #[test]
    fn an_array_is_sound_as_serde_json_sees_it(elements in prop::collection::vec(near_json(), 0..4)) {
        let body = [&b"["[..], &elements.join(&b","[..]), b"]"].concat();
        let judged = serde_json::from_slice::<Vec<Value>>(&body);
        match (split(&body, Format::Array), judged) {
            (Ok(slices), Ok(values)) => prop_assert_eq!(slices.count(), values.len()),
            (Err(error), Ok(_)) => prop_assert!(false, "refused: {}", error),
            // Half surrogate pairs, invalid UTF-8 and huge numbers are left to the check of each element.
            (Ok(slices), Err(_)) => prop_assert!(slices.count() > 0),
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
