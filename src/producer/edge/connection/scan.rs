//! Finds the end of a request head in bytes that arrive piece by piece, and stops heads that are too large.
//!
//! It judges each line as soon as that line is complete, and each limit as soon as it is exceeded, so the
//! outcome does not depend on how the bytes were split.

use memchr::memchr_iter;

use super::limits::{MAX_HEADERS, MAX_TARGET_BYTES};
use super::refusal::Refusal;

/// Longest request line: the target, the method, the version and the spaces between them.
const MAX_REQUEST_LINE_BYTES: usize = MAX_TARGET_BYTES + 64;

/// How far a head has been examined.
#[derive(Clone, Copy, Debug, Default)]
pub struct Scan {
    /// Bytes examined.
    at: usize,
    /// Where the current line begins.
    line: usize,
    /// Complete lines.
    lines: usize,
}

impl Scan {
    /// Examines what `head`, which starts with the same bytes in each call, has beyond the last call. Returns
    /// the length of the head once it is complete.
    ///
    /// # Errors
    /// The head is too large, or not HTTP/1.1.
    pub fn advance(&mut self, head: &[u8], most: usize) -> Result<Option<usize>, Refusal> {
        for found in memchr_iter(b'\n', &head[self.at..]) {
            let end = self.at + found;
            let line = &head[self.line..end];
            self.check_size(line.len(), end + 1, most)?;
            let Some((b'\r', line)) = line.split_last() else {
                return Err(Refusal::BadHead("a line of the head does not end with CRLF"));
            };
            match (self.lines, line) {
                (0, line) => check_request_line(line)?,
                (_, []) => return Ok(Some(end + 1)),
                (lines, _) if lines > MAX_HEADERS => return Err(Refusal::TooManyHeaders(MAX_HEADERS)),
                _ => {}
            }
            self.lines += 1;
            self.line = end + 1;
        }
        self.at = head.len();
        self.check_size(head.len() - self.line, head.len(), most)?;
        Ok(None)
    }

    /// True if nothing has been examined.
    pub fn is_new(&self) -> bool {
        self.at == 0
    }

    fn check_size(&self, line: usize, head: usize, most: usize) -> Result<(), Refusal> {
        if self.lines == 0 && line > MAX_REQUEST_LINE_BYTES.min(most) {
            return Err(Refusal::TargetTooLong(MAX_TARGET_BYTES.min(most)));
        }
        if head > most {
            return Err(Refusal::HeadTooLarge(most));
        }
        Ok(())
    }
}

/// Checks the version and the target. This comes before the rest of the head, because a client that speaks
/// HTTP/2 waits for an answer to its first lines.
fn check_request_line(line: &[u8]) -> Result<(), Refusal> {
    let malformed = Refusal::BadHead("the request line is not METHOD TARGET HTTP/1.1");
    let mut parts = line.split(|&byte| byte == b' ');
    let (Some(_), Some(target), Some(version), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(malformed);
    };
    match version {
        b"HTTP/1.1" | b"HTTP/1.0" => {}
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
            if major.is_ascii_digit() && minor.is_ascii_digit() =>
        {
            return Err(Refusal::OtherVersion);
        }
        _ => return Err(malformed),
    }
    if target.len() > MAX_TARGET_BYTES {
        return Err(Refusal::TargetTooLong(MAX_TARGET_BYTES));
    }
    if target.is_empty() || !target.iter().all(u8::is_ascii_graphic) {
        return Err(Refusal::BadHead("the request target has characters that must be percent-encoded"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scan(head: &[u8]) -> Result<Option<usize>, Refusal> {
        let whole = Scan::default().advance(head, 32 << 10);
        let mut scan = Scan::default();
        let mut pieces = Ok(None);
        for end in 0..=head.len() {
            pieces = scan.advance(&head[..end], 32 << 10);
            if pieces != Ok(None) {
                break;
            }
        }
        assert_eq!(whole, pieces, "{}", String::from_utf8_lossy(head));
        whole
    }

    #[test]
    fn the_end_is_found_and_what_follows_is_not_part_of_it() {
        assert_eq!(scan(b"GET / HTTP/1.1\r\n\r\nGET"), Ok(Some(18)));
        assert_eq!(scan(b"GET / HTTP/1.0\r\na: b\r\n\r\n"), Ok(Some(24)));
        assert_eq!(scan(b"GET / HTTP/1.1\r\na: b\r\n\r"), Ok(None));
    }

    #[test]
    fn another_version_is_refused_after_the_first_line() {
        assert_eq!(scan(b"PRI * HTTP/2.0\r\n"), Err(Refusal::OtherVersion));
        assert_eq!(scan(b"GET / HTTP/1.2\r\n"), Err(Refusal::OtherVersion));
        for line in ["GET /\r\n", "GET / http/1.1\r\n", "GET / HTTP/11\r\n", "GET  / HTTP/1.1\r\n", "x\r\n"] {
            assert!(matches!(scan(line.as_bytes()), Err(Refusal::BadHead(_))), "{line}");
        }
        for line in [&b"GET /\xc3\xa3 HTTP/1.1\r\n"[..], b"GET /\x01 HTTP/1.1\r\n", b"GET / HTTP/1.1\n"] {
            assert!(matches!(scan(line), Err(Refusal::BadHead(_))), "{line:?}");
        }
    }

    #[test]
    fn a_head_that_is_too_large_is_stopped_early() {
        let target = [b"GET /", &[b'a'; 8191][..], b" HTTP/1.1\r\n\r\n"].concat();
        assert_eq!(scan(&target), Ok(Some(target.len())));
        let target = [b"GET /", &[b'a'; 8192][..], b" HTTP/1.1\r\n\r\n"].concat();
        assert_eq!(scan(&target), Err(Refusal::TargetTooLong(8192)));
        assert_eq!(scan(&[b'a'; 9000]), Err(Refusal::TargetTooLong(8192)));
        let line = [b"GET / HTTP/1.1\r\na:", &[b'b'; 33_000][..]].concat();
        assert_eq!(scan(&line), Err(Refusal::HeadTooLarge(32 << 10)));
        let many = |count| format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(count)).into_bytes();
        assert!(matches!(scan(&many(100)), Ok(Some(_))));
        assert_eq!(scan(&many(101)), Err(Refusal::TooManyHeaders(100)));
    }
}
