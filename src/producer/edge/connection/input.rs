//! Holds the bytes of a client that have not been parsed.

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

#[cfg(test)]
mod tests {
    use super::*;

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
