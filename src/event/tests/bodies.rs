//! Examples of splitting bodies into events.

use super::*;

#[test]
fn arrays_give_their_elements_whatever_these_are() {
    assert_eq!(slices("[]", Format::Array), [""; 0]);
    assert_eq!(slices(" [ ] \n", Format::Array), [""; 0]);
    assert_eq!(
        slices(" [ {\"a\":[1,\"]\"]} ,1,\n\"\\\",\" , null,[{}] ,\"\\ud800\"]\r\n", Format::Array),
        ["{\"a\":[1,\"]\"]}", "1", "\"\\\",\"", "null", "[{}]", "\"\\ud800\""]
    );
    let deep = format!("[{},1]", nested(127));
    assert_eq!(slices(&deep, Format::Array), [&nested(127), "1"]);
    let bytes = split(b"[{\"a\":\"\xff\"},{}]", Format::Array).expect("UTF-8 is checked per event");
    assert_eq!(bytes.map(kind).collect::<Vec<_>>(), [Some(ErrorKind::NotUtf8), None]);
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
        let error = split(body.as_bytes(), Format::Array).expect_err(body);
        assert_eq!((error.kind, error.offset), (ErrorKind::NotJson, Some(offset)), "{body}: {error}");
    }
    let error = split("[".repeat(1 << 20).as_bytes(), Format::Array).expect_err("too deep");
    assert_eq!(error.kind, ErrorKind::TooDeep);
}

#[test]
fn lines_are_events_and_blank_lines_are_none() {
    assert_eq!(slices("", Format::Ndjson), [""; 0]);
    assert_eq!(slices("\n\r\n \t\n", Format::Ndjson), [""; 0]);
    assert_eq!(slices("{}\n{\"a\":1}", Format::Ndjson), ["{}", "{\"a\":1}"]);
    assert_eq!(slices("{}\r\n\r\n\n nonsense\n{\n", Format::Ndjson), ["{}\r", " nonsense", "{"]);
    assert_eq!(prepared("{}\r"), prepared("{}"));
    assert_eq!(kind("{}\r{}"), Some(ErrorKind::NotJson), "a lone CR does not end a line");
}

#[test]
fn one_object_is_the_whole_body() {
    assert_eq!(slices("", Format::Object), [""]);
    assert_eq!(slices("{}\n{}", Format::Object), ["{}\n{}"]);
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
