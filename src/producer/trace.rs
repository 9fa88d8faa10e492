//! Checks the trace context of a request, as the W3C recommendation defines it. Does no I/O.
//!
//! See <https://www.w3.org/TR/trace-context/>. What is not valid is left out, because tracing systems have to ignore it.

/// Bytes of a `traceparent` of version 00, and of what every later version begins with.
const TRACEPARENT_BYTES: usize = 55;

/// Longest `traceparent` of a later version.
const MAX_TRACEPARENT_BYTES: usize = 128;

/// Longest `tracestate`; the recommendation asks for at least this.
const MAX_TRACESTATE_BYTES: usize = 512;

/// Most entries of a `tracestate`.
const MAX_ENTRIES: usize = 32;

/// Longest key, and longest value, of an entry.
const MAX_ENTRY_BYTES: usize = 256;

/// True if `value` is a valid `traceparent`: `version-trace-parent-flags`, in lower-case hexadecimal.
pub fn is_traceparent(value: &[u8]) -> bool {
    let Some((start, rest)) = value.split_at_checked(TRACEPARENT_BYTES) else { return false };
    let mut fields = start.split(|byte| *byte == b'-');
    let mut is_hex = |digits: usize, zeros_are_valid: bool| {
        fields.next().is_some_and(|field| {
            field.len() == digits
                && field.iter().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'))
                && (zeros_are_valid || field.iter().any(|digit| *digit != b'0'))
        })
    };
    let is_sound = is_hex(2, true) && is_hex(32, false) && is_hex(16, false) && is_hex(2, true);
    is_sound
        && match &start[..2] {
            b"ff" => false,
            b"00" => rest.is_empty(),
            // A later version may add fields.
            _ => {
                value.len() <= MAX_TRACEPARENT_BYTES
                    && (rest.is_empty() || rest[0] == b'-')
                    && rest.iter().all(u8::is_ascii_graphic)
            }
        }
}

/// The entries of all `tracestate` headers of a request, in order. `None` if there are none, one is not valid, or they
/// are too long together.
pub fn tracestate<'a>(values: impl Iterator<Item = &'a [u8]>) -> Option<Vec<u8>> {
    let mut entries = Vec::new();
    let mut length = 0;
    for value in values {
        for entry in
            value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|entry| !entry.is_empty())
        {
            length += entry.len() + 1;
            if !is_entry(entry) || entries.len() == MAX_ENTRIES || length > MAX_TRACESTATE_BYTES + 1 {
                return None;
            }
            entries.push(entry);
        }
    }
    (!entries.is_empty()).then(|| entries.join(&b','))
}

/// True for `key=value`.
fn is_entry(entry: &[u8]) -> bool {
    let Some(at) = entry.iter().position(|byte| *byte == b'=') else { return false };
    let (key, value) = (&entry[..at], &entry[at + 1..]);
    let is_of_key = |byte: &u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'*' | b'/' | b'@');
    let is_of_value = |byte: &u8| matches!(byte, b' '..=b'~') && *byte != b'=';
    (1..=MAX_ENTRY_BYTES).contains(&key.len())
        && (key[0].is_ascii_lowercase() || key[0].is_ascii_digit())
        && key.iter().all(is_of_key)
        && (1..=MAX_ENTRY_BYTES).contains(&value.len())
        && value.iter().all(is_of_value)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const VALID: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_traceparent_is_valid_or_not() {
        for valid in [
            VALID,
            "00-ffffffffffffffffffffffffffffffff-ffffffffffffffff-ff",
            "00-00000000000000000000000000000001-0000000000000001-00",
            "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-what-the-future-brings",
        ] {
            assert!(is_traceparent(valid.as_bytes()), "{valid}");
        }
        let long = format!("01{}-{}", &VALID[2..], "x".repeat(73));
        for bad in [
            "",
            "00",
            // The version that is none, another case, and other digits.
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-B7AD6B7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319g-b7ad6b7169203331-01",
            "0x-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0X",
            // Ids of zeros.
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            // Other lengths.
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0",
            "00-0af7651916cd43dd8448eb211c80319-cb7ad6b7169203331-01",
            "000-af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00_0af7651916cd43dd8448eb211c80319c_b7ad6b7169203331_01",
            "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01more",
            "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-a b",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01, 00",
            &long,
        ] {
            assert!(!is_traceparent(bad.as_bytes()), "{bad}");
        }
        assert!(is_traceparent(&long.as_bytes()[..128]), "the longest");
    }

    #[test]
    fn a_tracestate_is_the_entries_of_all_headers_or_nothing() {
        let all = |values: &[&str]| {
            let found = tracestate(values.iter().map(|value| value.as_bytes()));
            found.map(|found| String::from_utf8(found).expect("ASCII"))
        };
        let many = "a=1,".repeat(32);
        let longest = format!("a={},b={}", "x".repeat(256), "y".repeat(251));
        for (values, found) in [
            (&["rojo=00f067aa0ba902b7"][..], "rojo=00f067aa0ba902b7"),
            (&["rojo=1 , congo=t61rcWkgMzE,, "], "rojo=1,congo=t61rcWkgMzE"),
            (&["rojo=1", "fw529a3039@dt=FfAB/, 0a_-*/=~ !"], "rojo=1,fw529a3039@dt=FfAB/,0a_-*/=~ !"),
            (&[&many], many.trim_end_matches(',')),
            (&[&longest], &longest),
        ] {
            assert_eq!(all(values).as_deref(), Some(found));
        }
        let more = "a=1,".repeat(33);
        let longer = format!("{longest}y");
        let (key, value) = (format!("{}=1", "k".repeat(257)), format!("k={}", "v".repeat(257)));
        for bad in [
            &[][..],
            &[""],
            &[" , "],
            &["rojo"],
            &["rojo="],
            &["=1"],
            &["Rojo=1"],
            &["@a=1"],
            &["a b=1"],
            &["a=b=c"],
            &["a=\u{e9}"],
            &["a=1\t2"],
            &["a=1", "b"],
            &[&more],
            &[&longer],
            &[&key],
            &[&value],
        ] {
            assert_eq!(all(bad), None, "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn one_changed_byte_is_seen_unless_it_is_another_digit(at in 0usize..55, byte in any::<u8>()) {
            let mut value = VALID.as_bytes().to_vec();
            value[at] = byte;
            let is_digit = matches!(byte, b'0'..=b'9' | b'a'..=b'f') && VALID.as_bytes()[at] != b'-';
            let is_dash = byte == b'-' && VALID.as_bytes()[at] == b'-';
            prop_assert_eq!(is_traceparent(&value), is_digit || is_dash);
        }

        #[test]
        fn nothing_panics_and_what_is_passed_on_is_short_and_printable(value in prop::collection::vec(any::<u8>(), 0..700)) {
            if is_traceparent(&value) {
                prop_assert!(value.len() <= 128 && value.is_ascii());
            }
            if let Some(state) = tracestate([&value[..], b"a=1"].into_iter()) {
                prop_assert!(state.len() <= 512 && state.iter().all(|byte| matches!(byte, b' '..=b'~')));
            }
        }
    }
}
