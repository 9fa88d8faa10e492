//! Decodes a chunked body from bytes that arrive piece by piece.
//!
//! Extensions and trailers are checked, bounded and dropped.

use super::limits::{MAX_HEADERS, MAX_SIZE_LINE_BYTES, MAX_TRAILER_BYTES};
use super::refusal::Refusal;

/// Bytes that a body of tiny chunks may spend on their size lines, beyond what each byte of data allows.
const FREE_OVERHEAD_BYTES: u64 = 16 << 10;

/// Size lines that each byte of data allows: `1`, CRLF and CRLF are five, and some clients pad the number.
const OVERHEAD_PER_BYTE: u64 = 16;

/// Most digits of a chunk's size, so that it cannot overflow.
const MAX_DIGITS: usize = 15;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// In the digits of a chunk's size.
    Size,
    /// In white space that must lead to an extension.
    Space,
    /// In an extension.
    Extension,
    /// Before the LF of a size line.
    SizeEnd,
    /// In the data of a chunk.
    Data,
    /// Before the CR after the data.
    DataCr,
    /// Before the LF after the data.
    DataLf,
    /// At the start of a trailer line.
    Line,
    /// In the name of a trailer.
    Name,
    /// In the value of a trailer.
    Value,
    /// Before the LF of a trailer line.
    ValueEnd,
    /// Before the last LF.
    LastLf,
    /// After the body.
    Done,
}

/// How far a body has been decoded.
#[derive(Debug)]
pub struct Chunked {
    at: At,
    /// Size of the chunk, or what is left of it.
    left: u64,
    digits: usize,
    /// Bytes of this size line.
    line: usize,
    /// Bytes of all size lines.
    overhead: u64,
    /// Bytes of data so far.
    data: u64,
    trailers: usize,
    trailer_bytes: usize,
}

/// Why decoding stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pause {
    /// The input is used up.
    Input,
    /// The body has more data than there is room for.
    Room,
    /// The body is complete.
    Done,
}

impl Chunked {
    /// Starts before the first chunk.
    pub fn new() -> Self {
        Self {
            at: At::Size,
            left: 0,
            digits: 0,
            line: 0,
            overhead: 0,
            data: 0,
            trailers: 0,
            trailer_bytes: 0,
        }
    }

    /// Appends the data in `input` to `body`, which may hold `room` bytes in total. Returns how many bytes of
    /// `input` were used, and why no more.
    ///
    /// # Errors
    /// The body is malformed.
    pub fn decode(
        &mut self,
        input: &[u8],
        body: &mut Vec<u8>,
        room: usize,
    ) -> Result<(usize, Pause), Refusal> {
        let mut used = 0;
        while self.at != At::Done {
            if self.at == At::Data {
                let ready = (input.len() - used).min(usize::try_from(self.left).unwrap_or(usize::MAX));
                let fits = ready.min(room.saturating_sub(body.len()));
                body.extend_from_slice(&input[used..used + fits]);
                used += fits;
                self.left -= fits as u64;
                self.data += fits as u64;
                if self.left > 0 {
                    return Ok((used, if fits < ready { Pause::Room } else { Pause::Input }));
                }
                self.at = At::DataCr;
            }
            let Some(&byte) = input.get(used) else { return Ok((used, Pause::Input)) };
            used += 1;
            self.at = self.step(byte)?;
        }
        Ok((used, Pause::Done))
    }

    /// The state after a byte that is not data.
    fn step(&mut self, byte: u8) -> Result<At, Refusal> {
        match self.at {
            At::Size | At::Space | At::Extension | At::SizeEnd => self.size_line(byte),
            At::DataCr if byte == b'\r' => Ok(At::DataLf),
            At::DataLf if byte == b'\n' => Ok(At::Size),
            At::Data | At::DataCr | At::DataLf => {
                Err(Refusal::BadChunk("a chunk's data does not end with CRLF where its size says"))
            }
            At::Line | At::Name | At::Value | At::ValueEnd | At::LastLf => self.trailer(byte),
            At::Done => Ok(At::Done),
        }
    }

    fn size_line(&mut self, byte: u8) -> Result<At, Refusal> {
        let bad = Err(Refusal::BadChunk("a chunk's size is not a hexadecimal number that ends with CRLF"));
        self.line += 1;
        self.overhead += 1;
        if self.line > MAX_SIZE_LINE_BYTES
            || self.overhead > FREE_OVERHEAD_BYTES + OVERHEAD_PER_BYTE * self.data
        {
            return Err(Refusal::BadChunk("the chunks have too many bytes of sizes and extensions"));
        }
        match (self.at, byte) {
            (At::Size, _) if byte.is_ascii_hexdigit() => {
                self.digits += 1;
                let digit = (byte as char).to_digit(16).unwrap_or_default();
                self.left = self.left * 16 + u64::from(digit);
                if self.digits > MAX_DIGITS { bad } else { Ok(At::Size) }
            }
            (At::Size, _) if self.digits == 0 => bad,
            (At::Size | At::Space, b' ' | b'\t') => Ok(At::Space),
            (At::Size | At::Space, b';') => Ok(At::Extension),
            (At::Size | At::Extension, b'\r') => Ok(At::SizeEnd),
            (At::Extension, _) if is_text(byte) => Ok(At::Extension),
            (At::SizeEnd, b'\n') => {
                (self.digits, self.line) = (0, 0);
                Ok(if self.left == 0 { At::Line } else { At::Data })
            }
            _ => bad,
        }
    }

    fn trailer(&mut self, byte: u8) -> Result<At, Refusal> {
        self.trailer_bytes += 1;
        let too_large = Err(Refusal::BadChunk("the trailers are too large"));
        if self.trailer_bytes > MAX_TRAILER_BYTES {
            return too_large;
        }
        match (self.at, byte) {
            (At::Line, b'\r') => Ok(At::LastLf),
            (At::LastLf, b'\n') => Ok(At::Done),
            (At::Line | At::Name, _) if is_name(byte) => Ok(At::Name),
            (At::Name, b':') => Ok(At::Value),
            (At::Value, b'\r') => Ok(At::ValueEnd),
            (At::Value, _) if is_text(byte) => Ok(At::Value),
            (At::ValueEnd, b'\n') => {
                self.trailers += 1;
                if self.trailers > MAX_HEADERS { too_large } else { Ok(At::Line) }
            }
            _ => Err(Refusal::BadChunk("a trailer is malformed")),
        }
    }
}

/// A character that a value may have.
fn is_text(byte: u8) -> bool {
    byte == b'\t' || byte >= b' ' && byte != 0x7f
}

/// A character that a header's name may have.
fn is_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Decodes `input` whole and byte by byte, and returns the body and what follows it.
    fn decode(input: &str) -> Result<Option<(String, String)>, Refusal> {
        let whole = in_pieces(input.as_bytes(), input.len().max(1));
        assert_eq!(whole, in_pieces(input.as_bytes(), 1), "{input:?}");
        whole
    }

    fn in_pieces(input: &[u8], size: usize) -> Result<Option<(String, String)>, Refusal> {
        let (mut decoder, mut body, mut used) = (Chunked::new(), Vec::new(), 0);
        for piece in input.chunks(size) {
            let (more, pause) = decoder.decode(piece, &mut body, 1 << 20)?;
            used += more;
            if pause == Pause::Done {
                let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text");
                return Ok(Some((text(&body), text(&input[used..]))));
            }
            assert_eq!((more, pause), (piece.len(), Pause::Input));
        }
        Ok(None)
    }

    #[test]
    fn chunks_with_extensions_and_trailers_become_a_body() {
        let body = |input| decode(input).expect(input).expect(input);
        let is = |body: &str, rest: &str| (body.to_owned(), rest.to_owned());
        assert_eq!(body("0\r\n\r\n"), is("", ""));
        assert_eq!(body("3\r\nabc\r\n00A\r\n0123456789\r\n0\r\n\r\nGET"), is("abc0123456789", "GET"));
        assert_eq!(body("1;a=b;c=\"d;\"\r\nx\r\n0 ;y\r\nX-Sum: 1\r\nB:\r\n\r\n"), is("x", ""));
        assert_eq!(decode("3\r\nabc\r\n0\r\n"), Ok(None));
    }

    #[test]
    fn malformed_chunks_are_refused() {
        for input in [
            "\r\n",
            "x\r\n",
            "-1\r\n",
            "+1\r\n",
            "0x1\r\n",
            " 1\r\n",
            "1 \r\n",
            "1\n",
            "1\r\r",
            "1_0\r\n",
            ";a\r\n",
            "1;\x01\r\n",
            "1;a\n",
            "1\r\nab",
            "1\r\na\n",
            "1\r\na\rb",
            "0\r\nx\r\n",
            "0\r\n\n",
            "0\r\n: x\r\n",
            "0\r\na: b\n",
            "0\r\n b\r\n",
            "0\r\na : b\r\n",
            "0\r\na: \x01\r\n",
            "1000000000000000\r\n",
        ] {
            assert!(matches!(decode(input), Err(Refusal::BadChunk(_))), "{input:?}");
        }
    }

    #[test]
    fn overhead_is_bounded() {
        let refused = |input: String| assert!(matches!(decode(&input), Err(Refusal::BadChunk(_))));
        refused(format!("1;{}", "a".repeat(1 << 10)));
        refused(format!("1;{}\r\na\r\n", "a".repeat(1000)).repeat(20));
        refused(format!("0\r\n{}", "a: b\r\n".repeat(101)));
        refused(format!("0\r\na:{}", " ".repeat(8 << 10)));
        let tiny = "1\r\na\r\n".repeat(100_000) + "0\r\n\r\n";
        assert_eq!(decode(&tiny).map(|body| body.map(|(body, _)| body.len())), Ok(Some(100_000)));
    }

    #[test]
    fn it_stops_where_the_room_ends_and_goes_on_with_more() {
        let (mut decoder, mut body) = (Chunked::new(), Vec::new());
        let input = b"5\r\nabcde\r\n0\r\n\r\n";
        assert_eq!(decoder.decode(input, &mut body, 2), Ok((5, Pause::Room)));
        assert_eq!(decoder.decode(&input[5..], &mut body, 5), Ok((input.len() - 5, Pause::Done)));
        assert_eq!(body, b"abcde");
        let mut decoder = Chunked::new();
        assert_eq!(decoder.decode(b"5\r\nabcde", &mut Vec::new(), 5), Ok((8, Pause::Input)), "exactly full");
    }
}
