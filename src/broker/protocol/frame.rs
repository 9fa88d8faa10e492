//! Encodes and decodes the primitives of the Kafka protocol, never reading past the end. Does no I/O.

/// Shorter bytes are copied, which costs less than one more part of a write.
const LEAST_LENT_BYTES: usize = 2048;

/// Builds a request body. Integers are big-endian.
#[derive(Default)]
pub struct Writer<'a> {
    bytes: Vec<u8>,
    /// Bytes that are sent from where they are, each with its place in `bytes`.
    lent: Vec<(usize, &'a [u8])>,
}

impl<'a> Writer<'a> {
    pub fn i8(mut self, value: i8) -> Self {
        self.bytes.extend_from_slice(&value.to_be_bytes());
        self
    }

    pub fn i16(mut self, value: i16) -> Self {
        self.bytes.extend_from_slice(&value.to_be_bytes());
        self
    }

    pub fn i32(mut self, value: i32) -> Self {
        self.bytes.extend_from_slice(&value.to_be_bytes());
        self
    }

    pub fn i64(mut self, value: i64) -> Self {
        self.bytes.extend_from_slice(&value.to_be_bytes());
        self
    }

    /// Appends a string of at most 32,767 bytes: topic, group and client names, which settings keep far
    /// shorter.
    pub fn str(self, value: &str) -> Self {
        let length = i16::try_from(value.len()).expect("a name fits 32,767 bytes");
        let mut writer = self.i16(length);
        writer.bytes.extend_from_slice(value.as_bytes());
        writer
    }

    pub fn array<T>(self, items: &[T], each: impl Fn(Self, &T) -> Self) -> Self {
        let count = i32::try_from(items.len()).expect("far fewer than 2^31 items");
        items.iter().fold(self.i32(count), each)
    }

    /// Appends bytes with an `i32` length, at most 2 GiB.
    pub fn bytes(self, value: &[u8]) -> Self {
        let length = i32::try_from(value.len()).expect("a request is far smaller than 2 GiB");
        let mut writer = self.i32(length);
        writer.bytes.extend_from_slice(value);
        writer
    }

    /// Appends bytes like [`Writer::bytes`], but without copying them, unless they are short.
    pub fn lend(self, value: &'a [u8]) -> Self {
        if value.len() < LEAST_LENT_BYTES {
            return self.bytes(value);
        }
        let length = i32::try_from(value.len()).expect("a request is far smaller than 2 GiB");
        let mut writer = self.i32(length);
        writer.lent.push((writer.bytes.len(), value));
        writer
    }

    /// What was written, as slices in order.
    pub fn parts(&self) -> Vec<&[u8]> {
        let mut parts = Vec::with_capacity(2 * self.lent.len() + 1);
        let mut from = 0;
        for (place, value) in &self.lent {
            parts.extend([&self.bytes[from..*place], value]);
            from = *place;
        }
        parts.push(&self.bytes[from..]);
        parts
    }

    /// What was written, in one piece.
    #[cfg(test)]
    pub fn into_bytes(self) -> Vec<u8> {
        self.parts().concat()
    }
}

/// Bytes that [`push_varint`] appends.
pub fn varint_bytes(value: i64) -> usize {
    (64 - (zigzag(value) | 1).leading_zeros()).div_ceil(7) as usize
}

/// Appends a number in groups of seven bits, lowest first, with its sign in the lowest bit.
pub fn push_varint(bytes: &mut Vec<u8>, value: i64) {
    let mut rest = zigzag(value);
    while rest > 0x7f {
        bytes.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    bytes.push(rest as u8);
}

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

/// The response is shorter than it claims, or claims something impossible.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

/// Reads a response from front to back.
#[derive(Clone, Copy)]
pub struct Reader<'a> {
    rest: &'a [u8],
    throttle_ms: i32,
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, throttle_ms: 0 }
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (head, rest) = self.rest.split_first_chunk::<N>().ok_or(Malformed)?;
        self.rest = rest;
        Ok(*head)
    }

    pub fn i8(&mut self) -> Result<i8, Malformed> {
        self.take().map(i8::from_be_bytes)
    }

    pub fn i16(&mut self) -> Result<i16, Malformed> {
        self.take().map(i16::from_be_bytes)
    }

    pub fn i32(&mut self) -> Result<i32, Malformed> {
        self.take().map(i32::from_be_bytes)
    }

    pub fn i64(&mut self) -> Result<i64, Malformed> {
        self.take().map(i64::from_be_bytes)
    }

    /// Reads a number in groups of seven bits, lowest first, with its sign in the lowest bit.
    #[inline]
    pub fn varint(&mut self) -> Result<i64, Malformed> {
        // The lengths and offsets of most records fit in one byte.
        if let [byte @ ..0x80, rest @ ..] = self.rest {
            self.rest = rest;
            return Ok(i64::from(byte >> 1) ^ -i64::from(byte & 1));
        }
        self.long_varint()
    }

    fn long_varint(&mut self) -> Result<i64, Malformed> {
        let value = self.unsigned_varint()?;
        Ok((value >> 1).cast_signed() ^ -(value & 1).cast_signed())
    }

    /// Reads a number in groups of seven bits, lowest first.
    pub fn unsigned_varint(&mut self) -> Result<u64, Malformed> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let [byte] = self.take()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Malformed)
    }

    /// Reads the time in milliseconds during which the broker reads no requests on this connection, and keeps
    /// it for the connection.
    pub fn throttle(&mut self) -> Result<(), Malformed> {
        self.throttle_ms = self.i32()?;
        Ok(())
    }

    /// The value that [`Reader::throttle`] has read; 0 if no quota is exceeded.
    pub fn throttle_ms(&self) -> u64 {
        u64::try_from(self.throttle_ms).unwrap_or(0)
    }

    /// True when nothing is left.
    pub fn is_at_end(&self) -> bool {
        self.rest.is_empty()
    }

    /// Takes everything that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }

    /// Skips everything that is left.
    pub fn skip_rest(&mut self) {
        self.rest = &[];
    }

    pub fn slice(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let (head, rest) = self.rest.split_at_checked(length).ok_or(Malformed)?;
        self.rest = rest;
        Ok(head)
    }

    /// Reads a string; null reads as empty.
    pub fn str(&mut self) -> Result<&'a str, Malformed> {
        let length = usize::try_from(self.i16()?).unwrap_or(0);
        std::str::from_utf8(self.slice(length)?).map_err(|_| Malformed)
    }

    /// Reads bytes with an `i32` length; null reads as empty.
    pub fn bytes(&mut self) -> Result<&'a [u8], Malformed> {
        let length = usize::try_from(self.i32()?).unwrap_or(0);
        self.slice(length)
    }

    /// Reads each element of an array. A count that the remaining bytes cannot hold is rejected before
    /// anything is allocated.
    pub fn array<T>(
        &mut self,
        mut each: impl FnMut(&mut Self) -> Result<T, Malformed>,
    ) -> Result<Vec<T>, Malformed> {
        let count = usize::try_from(self.i32()?).unwrap_or(0);
        if count > self.rest.len() {
            return Err(Malformed);
        }
        (0..count).map(|_| each(self)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let bytes = Writer::default()
            .i8(-2)
            .i16(300)
            .str("événement")
            .array(&[7, 8], |w, n| w.i64(*n))
            .i32(5)
            .into_bytes();
        let mut reader = Reader::new(&bytes);
        assert_eq!((reader.i8(), reader.i16(), reader.str()), (Ok(-2), Ok(300), Ok("événement")));
        assert_eq!(reader.array(Reader::i64), Ok(vec![7, 8]));
        assert_eq!(reader.i32(), Ok(5));
        assert_eq!(reader.i8(), Err(Malformed));
    }

    #[test]
    fn what_is_lent_is_in_its_place_without_a_copy() {
        let (first, second) = ([7; LEAST_LENT_BYTES], [8; LEAST_LENT_BYTES]);
        let writer = Writer::default().i8(1).lend(&first).lend(&[9]).lend(&second).i8(2);
        let copied = Writer::default().i8(1).bytes(&first).bytes(&[9]).bytes(&second).i8(2);
        assert!(writer.parts().iter().any(|part| std::ptr::eq(*part, &first[..])));
        assert_eq!(writer.into_bytes(), copied.into_bytes());
    }

    #[test]
    fn varints_are_read_back_and_have_the_length_that_was_reckoned() {
        for value in [0, -1, 1, 63, 64, -64, -65, 8191, 8192, i64::from(i32::MAX), i64::MAX, i64::MIN] {
            let mut bytes = Vec::new();
            push_varint(&mut bytes, value);
            assert_eq!((bytes.len(), Reader::new(&bytes).varint()), (varint_bytes(value), Ok(value)));
        }
    }

    #[test]
    fn a_varint_ends_after_ten_bytes() {
        let read = |bytes: &[u8]| Reader::new(bytes).varint();
        for (bytes, value) in
            [(&[0][..], 0), (&[1], -1), (&[2], 1), (&[0x80, 0x01], 64), (&[0xff, 0x01], -128)]
        {
            assert_eq!(read(bytes), Ok(value));
        }
        assert_eq!(read(&[0x80]), Err(Malformed));
        assert_eq!(read(&[0xff; 11]), Err(Malformed));
        let least = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
        assert_eq!(read(&least), Ok(i64::MIN));
    }

    #[test]
    fn a_length_beyond_the_bytes_is_refused_and_null_is_empty() {
        let absurd = Writer::default().i32(i32::MAX).i64(0).into_bytes();
        assert_eq!(Reader::new(&absurd).array(Reader::i8), Err(Malformed));
        assert_eq!(Reader::new(&absurd).bytes(), Err(Malformed));
        let null = Writer::default().i32(-1).i16(-1).into_bytes();
        let mut reader = Reader::new(&null);
        assert_eq!((reader.bytes(), reader.str()), (Ok(&[][..]), Ok("")));
    }
}
