//! Holds the bytes of a client that have not been parsed.

use crate::producer::head::Headers;

/// A larger buffer is given back once it is empty, so that an idle connection is small.
const KEPT_BYTES: usize = 4 << 10;

/// Bytes that have not been parsed.
#[derive(Debug, Default)]
pub struct Input {
    bytes: Vec<u8>,
    /// Where they begin.
    at: usize,
}

impl Input {
    /// Adds `bytes` at the end.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.drain(..self.at);
        self.at = 0;
        self.bytes.extend_from_slice(bytes);
    }

    /// All of them.
    pub fn unparsed(&self) -> &[u8] {
        &self.bytes[self.at..]
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.at == self.bytes.len()
    }

    /// The first `count` have been parsed.
    pub fn consume(&mut self, count: usize) {
        self.at += count;
        if self.is_empty() {
            self.at = 0;
            self.bytes.clear();
            if self.bytes.capacity() > KEPT_BYTES {
                self.bytes = Vec::new();
            }
        }
    }

    /// Memory held, in bytes.
    #[cfg(any(test, fuzzing))]
    pub fn held_bytes(&self) -> usize {
        self.bytes.capacity()
    }
}

impl Headers for Input {
    /// Searches the head with which they begin.
    fn nth(&self, name: &str, n: usize) -> Option<&[u8]> {
        let mut lines = self.unparsed().split(|byte| *byte == b'\n').skip(1);
        let head = lines
            .by_ref()
            .map(|line| line.strip_suffix(b"\r").unwrap_or(line))
            .take_while(|line| !line.is_empty());
        let mut values = head.filter_map(|line| {
            let at = line.iter().position(|byte| *byte == b':')?;
            line[..at].eq_ignore_ascii_case(name.as_bytes()).then_some(&line[at + 1..])
        });
        values.nth(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::producer::head::Others;

    #[test]
    fn a_header_is_found_in_any_case_and_only_in_the_head() {
        let mut input = Input::default();
        input.push(b"GET /?a:b HTTP/1.1\r\nHost: h\r\nX-Api-KEY:  k \r\nX-Api-Key: second\r\nA: \xff\r\n\r\nB: body\r\n");
        let headers = Others::of(&input);
        assert_eq!((headers.get("x-api-key"), headers.get("host")), (Some("k"), Some("h")));
        assert_eq!((headers.value("A"), headers.get("A")), (Some(&b"\xff"[..]), None));
        assert_eq!((headers.get("B"), headers.get("GET /?a")), (None, None));
        let keys: Vec<&[u8]> = headers.values("X-API-Key").collect();
        assert_eq!(keys, [&b"k"[..], b"second"]);
        assert_eq!((headers.only("X-API-Key"), headers.only("host")), (None, Some(&b"h"[..])));
    }

    #[test]
    fn what_is_consumed_is_gone_and_its_memory_too() {
        let mut input = Input::default();
        input.push(b"abc");
        input.consume(1);
        input.push(&[b'x'; 5000]);
        assert_eq!((&input.unparsed()[..3], input.unparsed().len()), (&b"bcx"[..], 5002));
        input.consume(5002);
        assert!(input.is_empty() && input.held_bytes() == 0);
    }
}
