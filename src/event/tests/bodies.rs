//! Examples of splitting bodies into events.

use super::*;

#[test]
fn arrays_give_their_elements_whatever_these_are() {
    assert_slices("[]", Format::Array, &[]);
    assert_slices(" [ ] \n", Format::Array, &[]);
    assert_slices(
        " [ {\"a\":[1,\"]\"]} ,1,\n\"\\\",\" , null,[{}] ,\"\\ud800\",{\"a\":\"\\ud800\"},{\n}]\r\n",
        Format::Array,
        &[
            "{\"a\":[1,\"]\"]}",
            "1",
            "\"\\\",\"",
            "null",
            "[{}]",
            "\"\\ud800\"",
            "{\"a\":\"\\ud800\"}",
            "{\n}",
        ],
    );
    for depth in [64, 65, 127] {
        assert_slices(&format!("[{},1,{{}}]", nested(depth)), Format::Array, &[&nested(depth), "1", "{}"]);
    }
    let kinds: Vec<_> = read(b"[{\"a\":\"\xff\"},{}]", Format::Array)
        .expect("UTF-8 is checked per event")
        .into_iter()
        .map(|event| event.err().map(|error| error.kind))
        .collect();
    assert_eq!(kinds, [Some(ErrorKind::NotUtf8), None]);
}

#[test]
fn a_broken_array_is_one_error_before_any_element() {
    for (body, offset) in [
        ("", 0),
        ("{}", 0),
        ("[", 1),
        ("[{}", 3),
        ("[{},]", 4),
        ("[,{}]", 1),
        ("[{} {}]", 4),
        ("[{}]]", 4),
        ("[{}],", 4),
        ("[{},{\"a\":1]", 10),
        ("[{},{\"a\":\"}]", 12),
    ] {
        let error = read(body, Format::Array).expect_err(body);
        assert_eq!((error.kind, error.offset), (ErrorKind::NotJson, Some(offset)), "{body}: {error}");
    }
    let error = read("[".repeat(1 << 20), Format::Array).expect_err("too deep");
    assert_eq!(error.kind, ErrorKind::TooDeep);
}

#[test]
fn the_rest_of_an_array_is_checked_without_reading_its_events() {
    for (body, offset) in
        [("[{},7,{\"a\":[]} ]\n", None), ("[{}]", None), ("[{},7 {}]", Some(6)), ("[{}]x", Some(4))]
    {
        let mut events = Events::new(body.as_bytes(), Format::Array, LIMITS, []);
        events.next_event().expect("sound so far").expect("an event").expect("valid");
        let error = events.check_rest().err();
        assert_eq!(error.and_then(|error| error.offset), offset, "{body}");
    }
    let mut events = Events::new(b"{}\n{", Format::Ndjson, LIMITS, []);
    assert!(events.check_rest().is_ok(), "lines do not depend on each other");
    assert!(events.next_event().is_ok_and(|event| event.is_some_and(|event| event.is_ok())), "not read yet");
}

#[test]
fn lines_are_events_and_blank_lines_are_none() {
    assert_slices("", Format::Ndjson, &[]);
    assert_slices("\n\r\n \t\n", Format::Ndjson, &[]);
    assert_slices("{}\n{\"a\":1}", Format::Ndjson, &["{}", "{\"a\":1}"]);
    assert_slices("{}\r\n\r\n\n nonsense\n{\n", Format::Ndjson, &["{}\r", " nonsense", "{"]);
    assert_eq!(prepared("{}\r"), prepared("{}"));
    assert_eq!(kind("{}\r{}"), Some(ErrorKind::NotJson), "a lone CR does not end a line");
}

#[test]
fn one_object_is_the_whole_body() {
    assert_slices("", Format::Object, &[""]);
    assert_slices("{}\n{}", Format::Object, &["{}\n{}"]);
}

#[test]
fn detection_looks_at_the_first_byte_that_means_something() {
    for (body, format) in [
        (" \r\n\t[", Format::Array),
        ("[1]", Format::Array),
        ("{\"a\":[]}", Format::Object),
        ("", Format::Object),
        ("x[", Format::Object),
    ] {
        assert_eq!(detect(body.as_bytes()), format, "{body}");
    }
}
