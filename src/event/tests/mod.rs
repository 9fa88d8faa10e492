//! Examples of what is and is not an event; `bodies` covers whole bodies, `random` random input.

mod bodies;
mod random;
mod reference;

use super::*;

const TEXT: &str = "2025-07-08T00:12:01.781Z";
const LIMITS: Limits = Limits { max_event_bytes: 1 << 20, max_depth: Limits::DEFAULT_MAX_DEPTH };

fn stamp() -> Stamp {
    Stamp::from_unix_millis(1_751_933_521_781)
}

/// The timestamp, unless the event has one.
fn added<'s>(timestamp: Option<Value<'_>>, stamp: &'s Stamp) -> Option<&'s [u8]> {
    timestamp.is_none().then(|| stamp.member())
}

fn prepare(raw: &[u8], stamp: &Stamp, limits: &Limits, out: &mut Vec<u8>) -> Result<(), EventError> {
    let event = read_event(raw, limits, &[TIMESTAMP])?;
    event.write(added(event.members[0], stamp).as_slice(), limits, out)
}

fn key_of<'a>(line: &'a [u8], field: &str) -> Option<Cow<'a, [u8]>> {
    read_event(line, &LIMITS, &[field]).ok()?.members[0]?.text()
}

fn prepared(raw: impl AsRef<[u8]>) -> Result<String, EventError> {
    let mut out = b"before".to_vec();
    let result = prepare(raw.as_ref(), &stamp(), &LIMITS, &mut out);
    let line = out.strip_prefix(b"before").expect("existing bytes are kept");
    match result {
        Ok(()) => Ok(String::from_utf8(line.to_vec()).expect("UTF-8")),
        Err(error) => {
            assert_eq!(line, b"", "nothing is appended on an error");
            Err(error)
        }
    }
}

fn kind(raw: impl AsRef<[u8]>) -> Option<ErrorKind> {
    prepared(raw).err().map(|error| error.kind)
}

fn nested(depth: usize) -> String {
    format!("{{\"a\":{}{}}}", "[".repeat(depth - 1), "]".repeat(depth - 1))
}

/// The line of each event in `body`, or why it is rejected.
fn read(body: impl AsRef<[u8]>, format: Format) -> Result<Vec<Result<String, EventError>>, EventError> {
    let mut events = Events::new(body.as_ref(), format, LIMITS, [TIMESTAMP]);
    let mut found = Vec::new();
    while let Some(event) = events.next_event()? {
        found.push(event.and_then(|event| {
            let mut line = Vec::new();
            event.write(added(event.members[0], &stamp()).as_slice(), &LIMITS, &mut line)?;
            Ok(String::from_utf8(line).expect("UTF-8"))
        }));
    }
    Ok(found)
}

/// Checks that `body` is read as if each of `slices` were posted alone.
fn assert_slices(body: &str, format: Format, slices: &[&str]) {
    let alone: Vec<_> = slices.iter().map(prepared).collect();
    assert_eq!(read(body, format), Ok(alone), "{body}");
}

#[test]
fn the_original_event_gives_the_original_line() {
    for (raw, line) in [
        (
            r#"{"event": "login", "user_id": 42}"#,
            r#"{"event": "login", "user_id": 42, "timestamp": "2025-07-08T00:12:01.781Z"}"#,
        ),
        ("{}", r#"{"timestamp": "2025-07-08T00:12:01.781Z"}"#),
        (" \r\n{ }\t\n", r#"{ "timestamp": "2025-07-08T00:12:01.781Z"}"#),
        (
            "{\r\n\t\"a\":1.50e+400,\n\"a\" : -0\n}\n",
            "{  \t\"a\":1.50e+400, \"a\" : -0 , \"timestamp\": \"2025-07-08T00:12:01.781Z\"}",
        ),
    ] {
        assert_eq!(prepared(raw).as_deref(), Ok(line));
    }
}

#[test]
fn a_timestamp_of_the_client_stays_however_it_is_spelt() {
    for raw in [
        r#"{"timestamp":null}"#,
        r#"{"timestamp": "then", "a": 1}"#,
        r#"{"a": {}, "\u0074imestamp": 5}"#,
        r#"{"\u0074\u0069\u006D\u0065\u0073\u0074\u0061\u006d\u0070":[]}"#,
    ] {
        assert_eq!(prepared(raw).as_deref(), Ok(raw));
    }
}

#[test]
fn only_a_top_level_key_counts_as_a_timestamp() {
    for raw in [
        r#"{"a": {"timestamp": 1}}"#,
        r#"{"a": "timestamp"}"#,
        r#"{"a": ["timestamp", {"timestamp": 2}]}"#,
        r#"{"Timestamp": 1}"#,
        r#"{"timestamp ": 1}"#,
        r#"{"\\u0074imestamp": 1}"#,
        r#"{"timestam": 1, "": 2, "\u0000timestamp": 3}"#,
    ] {
        let expected = format!("{}, \"timestamp\": \"{TEXT}\"}}", &raw[..raw.len() - 1]);
        assert_eq!(prepared(raw), Ok(expected));
    }
}

#[test]
fn what_is_refused_says_what_and_where() {
    for (raw, kind, offset, words) in [
        (&b""[..], ErrorKind::Empty, None, "empty"),
        (b" \r\n\t", ErrorKind::Empty, None, "empty"),
        (b"{\"a\":\"\xff\"}", ErrorKind::NotUtf8, Some(6), "at byte 6 (line 1, column 7)"),
        (b"{\"a\":\"\xed\xa0\x80\"}", ErrorKind::NotUtf8, Some(6), "UTF-8"),
        (b"{\"a\":\"\xc0\xaf\"}", ErrorKind::NotUtf8, Some(6), "UTF-8"),
        (b"\xef\xbb\xbf{}", ErrorKind::NotJson, Some(0), "byte order mark"),
        (b"[1]", ErrorKind::NotAnObject, Some(0), "one JSON object"),
        (b" null ", ErrorKind::NotAnObject, Some(1), "one JSON object"),
        (b"-1.5E-7", ErrorKind::NotAnObject, Some(0), "one JSON object"),
        (b"nul", ErrorKind::NotJson, Some(0), "a value"),
        (b"[1", ErrorKind::NotJson, Some(2), "the end"),
        (b" \x0c", ErrorKind::NotJson, Some(1), "a value"),
        (b"event=login", ErrorKind::NotJson, Some(0), "a value"),
        (b"{\n \"a\": 01}", ErrorKind::NotJson, Some(9), "at byte 9 (line 2, column 8)"),
        (b"{\"a\" 1}", ErrorKind::NotJson, Some(5), "`:`"),
        (b"{\"a\":1,}", ErrorKind::NotJson, Some(7), "a key"),
        (b"{\"a\":1", ErrorKind::NotJson, Some(6), ", the end of the input: `,` or `}`"),
        (b"{\"a\":1}}", ErrorKind::NotJson, Some(7), "nothing may follow"),
        (b"{\"a\":1}\n{\"a\":1}", ErrorKind::NotJson, Some(8), "nothing may follow"),
        (b"{\"a\":\"x\ny\"}", ErrorKind::NotJson, Some(7), "control character"),
        (b"{\"a\":\"\\x41\"}", ErrorKind::NotJson, Some(7), "after `\\`"),
        (b"{\"a\":\"\\u12g4\"}", ErrorKind::NotJson, Some(10), "hexadecimal"),
        (b"{\"a\":[1,]}", ErrorKind::NotJson, Some(8), "a value"),
        (b"{\"a\":[1}", ErrorKind::NotJson, Some(7), "`,` or `]`"),
        (b"{\"a\":\"", ErrorKind::NotJson, Some(6), "not closed"),
        (b"{a:1}", ErrorKind::NotJson, Some(1), "double quotes"),
        (b"{\"a\":NaN}", ErrorKind::NotJson, Some(5), "a value"),
        (b"{\"a\":.5}", ErrorKind::NotJson, Some(5), "a value"),
        (b"{\"a\":5.}", ErrorKind::NotJson, Some(7), "a digit"),
        (b"{\"a\":1e}", ErrorKind::NotJson, Some(7), "a digit"),
        (b"{\"a\":+1}", ErrorKind::NotJson, Some(5), "a value"),
        (b"{\"a\":1}\0", ErrorKind::NotJson, Some(7), "nothing may follow"),
        (b"{\"a\":\xc2\xa01}", ErrorKind::NotJson, Some(5), "a value"),
    ] {
        let error = prepared(raw).expect_err("refused");
        assert_eq!((error.kind, error.offset), (kind, offset), "{error}");
        assert!(error.to_string().contains(words), "{error} lacks {words:?}");
    }
}

#[test]
fn half_surrogate_pairs_are_refused_and_whole_ones_kept() {
    for (raw, lone_at) in [
        (r#"{"a":"\ud83d\ude00"}"#, None),
        (r#"{"a":"\uD83D\uDE00x\ud83d\ude00"}"#, None),
        (r#"{"a":"\\ud800"}"#, None),
        (r#"{"a":"\ud800\udc00\udbff\udfff"}"#, None),
        (r#"{"a":"\udbff"}"#, Some(6)),
        (r#"{"a":"\udfff"}"#, Some(6)),
        (r#"{"a":"\ud800\n"}"#, Some(6)),
        (r#"{"a":"\ud7ff\ue000\uffff"}"#, None),
        (r#"{"a":"\ud800"}"#, Some(6)),
        (r#"{"a":"x\udc00"}"#, Some(7)),
        (r#"{"a":"\ud800\u0041"}"#, Some(6)),
        (r#"{"a":"\ud800\ud800\udc00"}"#, Some(6)),
        (r#"{"a":"\ude00\ud83d"}"#, Some(6)),
        (r#"{"\ud800":1}"#, Some(2)),
    ] {
        let result = prepared(raw);
        assert_eq!(result.as_ref().err().and_then(|error| error.offset), lone_at, "{raw}: {result:?}");
        assert_eq!(result.is_ok(), serde_json::from_str::<serde_json::Value>(raw).is_ok(), "{raw}");
        assert_eq!(one_line(raw.as_bytes(), None).is_ok(), result.is_ok(), "{raw}");
    }
}

#[test]
fn every_byte_is_judged_in_every_place_as_serde_json_does() {
    for byte in 0..=u8::MAX {
        for (before, after) in [
            ("{\"a\":\"", "\"}"),
            ("{\"a\":\"\\", "\"}"),
            ("{\"a\":\"\\u00", "0\"}"),
            ("{\"a\":1", "}"),
            ("{\"a\":1.", "5}"),
            ("{\"a\":1e", "5}"),
            ("{", "\"a\":1}"),
            ("{\"a\"", "1}"),
            ("", "{}"),
            ("{}", ""),
        ] {
            let raw = [before.as_bytes(), &[byte], after.as_bytes()].concat();
            let judged = serde_json::from_slice::<serde_json::Value>(&raw);
            assert_eq!(prepared(&raw).is_ok(), judged.is_ok(), "{}: {judged:?}", raw.escape_ascii());
        }
    }
}

#[test]
fn every_byte_is_judged_at_every_distance_in_a_string_as_serde_json_does() {
    for byte in 0..=u8::MAX {
        for (before, after) in (0..18).flat_map(|before| [(before, 0), (before, 9)]) {
            for filler in ["x", " ", "é", "\u{7f}"] {
                let (before, after) = (filler.repeat(before), filler.repeat(after));
                let raw =
                    [b"{\"a\":\"", before.as_bytes(), &[byte], after.as_bytes(), b"\",\"b\":1}"].concat();
                let judged = serde_json::from_slice::<serde_json::Value>(&raw);
                assert_eq!(prepared(&raw).is_ok(), judged.is_ok(), "{}: {judged:?}", raw.escape_ascii());
            }
        }
    }
}

#[test]
fn depth_is_allowed_up_to_its_limit() {
    assert_eq!(kind(nested(64)), None);
    assert_eq!(kind(nested(65)), Some(ErrorKind::TooDeep));
    assert_eq!(kind("{\"a\":".repeat(100_000)), Some(ErrorKind::TooDeep));
    assert_eq!(kind("[".repeat(100_000)), Some(ErrorKind::TooDeep));
    let flat = Limits { max_depth: 1, ..LIMITS };
    assert!(prepare(b"{\"a\":1}", &stamp(), &flat, &mut Vec::new()).is_ok());
    assert!(prepare(b"{\"a\":{}}", &stamp(), &flat, &mut Vec::new()).is_err());
}

#[test]
fn no_limit_goes_deeper_than_readers_follow() {
    let boundless = Limits { max_depth: usize::MAX, ..LIMITS };
    for (depth, is_fine) in [(127, true), (128, false)] {
        let raw = nested(depth);
        assert_eq!(prepare(raw.as_bytes(), &stamp(), &boundless, &mut Vec::new()).is_ok(), is_fine);
        assert_eq!(one_line(raw.as_bytes(), None).is_ok(), is_fine);
        assert_eq!(serde_json::from_str::<serde_json::Value>(&raw).is_ok(), is_fine);
    }
}

#[test]
fn size_counts_the_finished_line_and_not_the_space_around_it() {
    let line = prepared("{\"a\":1}").expect("valid");
    let exact = Limits { max_event_bytes: line.len(), ..LIMITS };
    let mut out = Vec::new();
    prepare(b"  {\"a\":1}\n\n", &stamp(), &exact, &mut out).expect("fits");
    assert_eq!(out, line.as_bytes());
    let short = Limits { max_event_bytes: line.len() - 1, ..LIMITS };
    let error = prepare(b"{\"a\":1}", &stamp(), &short, &mut out).expect_err("one byte too many");
    assert_eq!((error.kind, error.offset), (ErrorKind::TooLarge, None));
    assert!(error.message.contains(&format!("at most {}", line.len() - 1)), "{error}");
    prepare(line.as_bytes(), &stamp(), &exact, &mut Vec::new()).expect("already stamped");
    let huge = vec![b'x'; line.len() + 1];
    let error = prepare(&huge, &stamp(), &exact, &mut Vec::new()).expect_err("too large");
    assert_eq!(error.kind, ErrorKind::TooLarge, "before its bytes are parsed");
    assert_eq!(out, line.as_bytes());
}

#[test]
fn errors_never_repeat_the_payload() {
    for raw in ["{\"password\":\"hunter2\"", "{\"hunter2\" \"hunter2\"}", "hunter2", "[\"hunter2\"]"] {
        let error = prepared(raw).expect_err("refused");
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
    }
}

#[test]
fn kinds_have_distinct_stable_words() {
    let words = ErrorKind::ALL.map(ErrorKind::as_str);
    assert_eq!(words, ["empty", "not_utf8", "not_json", "not_an_object", "too_deep", "too_large"]);
}

#[test]
fn keys_are_what_other_producers_would_take() {
    let line = r#"{"s":"A\u00e9\n","p":"Aé","n":-1.50,"b":false,"z":null,"o":{"n":1},
        "l":[],"e":"","é":7,"n2":1,"n2":"last"}"#;
    for (field, key) in [
        ("s", Some("Aé\n")),
        ("p", Some("Aé")),
        ("n", Some("-1.50")),
        ("b", Some("false")),
        ("z", None),
        ("o", None),
        ("l", None),
        ("e", Some("")),
        ("é", Some("7")),
        ("n2", Some("last")),
        ("none", None),
    ] {
        let found = key_of(line.as_bytes(), field);
        assert_eq!(found.as_deref(), key.map(str::as_bytes), "{field}");
        assert_eq!(matches!(found, Some(Cow::Owned(_))), field == "s", "only escapes need an allocation");
    }
    for no_event in ["", "[]", "{\"s\":1", "s"] {
        assert_eq!(key_of(no_event.as_bytes(), "s"), None);
    }
}

#[test]
fn each_member_that_was_asked_for_is_found_in_one_scan() {
    let raw = br#"{"id":"\u0041","n":{"client":1},"client":7,"\u0069d":"last","x":null}"#;
    let event = read_event(raw, &LIMITS, &["client", "id", "timestamp", "x", "id"]).expect("valid");
    let texts = event.members.map(|member| member.map(Value::text));
    let text = |text: &'static str| Some(Some(Cow::Borrowed(text.as_bytes())));
    assert_eq!(texts, [text("7"), text("last"), None, Some(None), text("last")]);
}

#[test]
fn members_are_added_in_order_and_count_for_the_limit() {
    for (raw, added, line) in [
        ("{}", &[][..], "{}"),
        ("{}", &["\"a\": 1"], r#"{"a": 1}"#),
        ("{\n}", &["\"a\": 1", "\"b\": \"2\""], r#"{ "a": 1, "b": "2"}"#),
        (r#"{"x":0}"#, &["\"a\": 1", "\"b\": \"2\""], r#"{"x":0, "a": 1, "b": "2"}"#),
    ] {
        let event = read_event(raw.as_bytes(), &LIMITS, &[]).expect("valid");
        let added: Vec<&[u8]> = added.iter().map(|member| member.as_bytes()).collect();
        let mut out = Vec::new();
        event.write(&added, &Limits { max_event_bytes: line.len(), ..LIMITS }, &mut out).expect("fits");
        assert_eq!(out, line.as_bytes());
        let short = Limits { max_event_bytes: line.len() - 1, ..LIMITS };
        assert_eq!(
            event.write(&added, &short, &mut out).map_err(|error| error.kind),
            Err(ErrorKind::TooLarge)
        );
        assert_eq!(out, line.as_bytes());
    }
}

#[test]
fn records_of_other_producers_become_one_line_without_a_timestamp() {
    for (value, line) in
        [("{}", "{}"), ("\n{\"a\": 1}\r\n", "{\"a\": 1}"), ("{\r\n  \"a\": [\n1]\n}", "{    \"a\": [ 1] }")]
    {
        let found = one_line(value.as_bytes(), None).expect("valid").text;
        assert_eq!(&*found, line.as_bytes());
        assert_eq!(matches!(found, Cow::Owned(_)), line.contains("[ "), "copied only if something changes");
    }
    for (value, kind) in [
        (&b""[..], ErrorKind::Empty),
        (b"plain text", ErrorKind::NotJson),
        (b"\"text\"", ErrorKind::NotAnObject),
        (b"{\"a\":\"\xff\"}", ErrorKind::NotUtf8),
        (b"{\"a\":\"line\nbreak\"}", ErrorKind::NotJson),
    ] {
        assert_eq!(one_line(value, None).expect_err("refused").kind, kind);
    }
}
