//! Encodes the headers of records in the form that they have in a batch. Does no I/O.

use crate::broker::protocol::push_varint;

/// Most headers of one record, so that their number is a single byte.
const MAX_HEADERS: u8 = 63;

/// Names and values that a record has in addition to its key and its value. They are encoded once, for all records of
/// a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers(Vec<u8>);

impl Headers {
    /// Adds a header; there are at most 63.
    pub fn push(&mut self, name: &str, value: &[u8]) {
        if self.0.is_empty() {
            self.0.push(0);
        }
        let count = self.0[0] / 2 + 1;
        assert!(count <= MAX_HEADERS, "settings name far fewer headers");
        // As a varint, whose sign is in its lowest bit.
        self.0[0] = 2 * count;
        push_varint(&mut self.0, name.len() as i64);
        self.0.extend_from_slice(name.as_bytes());
        push_varint(&mut self.0, value.len() as i64);
        self.0.extend_from_slice(value);
    }

    /// Their number and the headers, as in a batch; nothing at all if there are none.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Bytes of memory that they hold.
    pub fn held_bytes(&self) -> usize {
        self.0.capacity()
    }
}

#[cfg(test)]
pub mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::broker::protocol::{Malformed, Reader};

    /// Reads the headers of a record.
    pub fn read(bytes: &[u8]) -> Result<Vec<(String, Vec<u8>)>, Malformed> {
        if bytes.is_empty() {
            return Ok(Vec::new());
        }
        let mut r = Reader::new(bytes);
        let count = r.varint()?;
        let mut text = || {
            let length = usize::try_from(r.varint()?).map_err(|_| Malformed)?;
            r.slice(length)
        };
        let header = |_| Ok((String::from_utf8(text()?.to_vec()).map_err(|_| Malformed)?, text()?.to_vec()));
        let headers = (0..count).map(header).collect::<Result<_, _>>()?;
        assert!(r.is_at_end());
        Ok(headers)
    }

    #[test]
    fn none_take_no_memory() {
        assert_eq!((Headers::default().as_bytes(), Headers::default().held_bytes()), (&b""[..], 0));
    }

    #[test]
    fn they_are_encoded_as_the_guide_of_the_protocol_says() {
        let mut headers = Headers::default();
        headers.push("a", b"xy");
        headers.push("bc", b"");
        assert_eq!(headers.as_bytes(), b"\x04\x02a\x04xy\x04bc\x00");
    }

    proptest! {
        #[test]
        fn what_is_pushed_is_read_back(
            pushed in prop::collection::vec(("[a-z-]{0,80}", prop::collection::vec(any::<u8>(), 0..300)), 0..63),
        ) {
            let mut headers = Headers::default();
            for (name, value) in &pushed {
                headers.push(name, value);
            }
            prop_assert_eq!(read(headers.as_bytes()), Ok(pushed));
        }
    }
}
