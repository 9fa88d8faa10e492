//! Encodes rows for COPY in PostgreSQL's binary format. Pure.

/// What a COPY begins with: the signature, no flags, no extension.
pub const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
/// What it ends with.
pub const TRAILER: &[u8] = &[0xff, 0xff];

/// Milliseconds from 1970 to 2000, when PostgreSQL's times begin.
const EPOCH_MILLIS: i64 = 946_684_800_000;

/// Type of the column with the event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventType {
    /// `jsonb`, whose binary form begins with a version.
    Jsonb,
    /// `json` or `text`, which keep the bytes.
    Text,
}

/// Appends rows to `bytes`.
pub struct RowWriter<'a> {
    bytes: &'a mut Vec<u8>,
}

impl<'a> RowWriter<'a> {
    /// Begins a row with so many columns.
    pub fn begin(bytes: &'a mut Vec<u8>, columns: i16) -> Self {
        bytes.extend_from_slice(&columns.to_be_bytes());
        Self { bytes }
    }

    /// Where it ends now.
    pub fn end(&self) -> usize {
        self.bytes.len()
    }

    /// A column of bytes: text in UTF-8, or `bytea`.
    pub fn bytes(self, value: &[u8]) -> Self {
        self.bytes.extend_from_slice(&length(value.len()));
        self.bytes.extend_from_slice(value);
        self
    }

    /// A column that may be null.
    pub fn optional(self, value: Option<&[u8]>) -> Self {
        match value {
            Some(value) => self.bytes(value),
            None => {
                self.bytes.extend_from_slice(&(-1_i32).to_be_bytes());
                self
            }
        }
    }

    /// A column `integer`.
    pub fn i32(self, value: i32) -> Self {
        self.bytes(&value.to_be_bytes())
    }

    /// A column `bigint`.
    pub fn i64(self, value: i64) -> Self {
        self.bytes(&value.to_be_bytes())
    }

    /// A column `timestamptz`.
    pub fn time(self, unix_millis: i64) -> Self {
        self.i64(unix_millis.saturating_sub(EPOCH_MILLIS).saturating_mul(1000))
    }

    /// The column with the event.
    pub fn event(self, text: &[u8], kind: EventType) -> Self {
        const JSONB_VERSION: u8 = 1;
        if kind == EventType::Text {
            return self.bytes(text);
        }
        self.bytes.extend_from_slice(&length(text.len() + 1));
        self.bytes.push(JSONB_VERSION);
        self.bytes.extend_from_slice(text);
        self
    }
}

/// The length before a value. A record is smaller than the 2 GiB of a fetch.
fn length(bytes: usize) -> [u8; 4] {
    i32::try_from(bytes).expect("a record is smaller than 2 GiB").to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_its_columns_each_with_its_length() {
        let mut bytes = Vec::new();
        RowWriter::begin(&mut bytes, 6)
            .bytes(b"t")
            .i32(2)
            .i64(-1)
            .time(EPOCH_MILLIS + 1)
            .event(b"{}", EventType::Jsonb)
            .optional(None);
        let expected = [
            &b"\0\x06"[..],
            b"\0\0\0\x01t",
            b"\0\0\0\x04\0\0\0\x02",
            b"\0\0\0\x08\xff\xff\xff\xff\xff\xff\xff\xff",
            b"\0\0\0\x08\0\0\0\0\0\0\x03\xe8",
            b"\0\0\0\x03\x01{}",
            b"\xff\xff\xff\xff",
        ];
        assert_eq!(bytes, expected.concat());
        let mut text = Vec::new();
        RowWriter::begin(&mut text, 1).event(b"{}", EventType::Text);
        assert_eq!(text, b"\0\x01\0\0\0\x02{}");
    }
}
