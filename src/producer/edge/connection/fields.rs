//! Interprets the headers that decide where a body ends and whether the connection survives.

use httparse::Header;

use crate::producer::status::ErrorTag;

use super::refusal::Refusal;

/// The length of a request's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    /// There is no body, and no `Content-Length`.
    Absent,
    /// `Content-Length`; a number beyond 64 bits counts as the largest.
    Known(u64),
    /// The body is chunked, so its length is not known before its end.
    Chunked,
}

/// What the headers say.
#[derive(Default)]
pub struct Fields<'a> {
    pub length: Option<&'a [u8]>,
    codings: usize,
    chunked: usize,
    /// The last coding is chunked.
    ends_chunked: bool,
    is_encoded: bool,
    pub hosts: usize,
    /// A Host has bytes that no host and port have.
    pub has_bad_host: bool,
    pub close: bool,
    pub keep_alive: bool,
    pub expect: Option<bool>,
    pub content_type: Option<&'a [u8]>,
    pub content_encoding: Option<&'a [u8]>,
    pub request_id: Option<&'a [u8]>,
}

impl<'a> Fields<'a> {
    pub fn of(headers: &[Header<'a>]) -> Result<Self, Refusal> {
        let mut fields = Self::default();
        for header in headers {
            let is = |name: &str| header.name.eq_ignore_ascii_case(name);
            let value = header.value;
            // The length is checked first because most headers of a request are none of these.
            match header.name.len() {
                4 if is("Host") => {
                    fields.hosts += 1;
                    fields.has_bad_host |= !value.iter().all(is_of_host);
                }
                6 if is("Expect") => {
                    let known = value.eq_ignore_ascii_case(b"100-continue");
                    fields.expect = Some(known && fields.expect.unwrap_or(true));
                }
                10 if is("Connection") => {
                    fields.close |= lists(value, b"close");
                    fields.keep_alive |= lists(value, b"keep-alive");
                }
                12 if is("Content-Type") => fields.content_type = Some(value),
                12 if is("X-Request-Id") => fields.request_id = Some(value),
                14 if is("Content-Length") && fields.length.is_some() => {
                    return Err(Refusal::BadLength(
                        ErrorTag::RepeatedLength,
                        "more than one Content-Length; send only one",
                    ));
                }
                14 if is("Content-Length") => fields.length = Some(value),
                16 if is("Content-Encoding") => fields.content_encoding = Some(value),
                17 if is("Transfer-Encoding") => fields.add_codings(value),
                _ => {}
            }
        }
        Ok(fields)
    }

    fn add_codings(&mut self, value: &[u8]) {
        self.is_encoded = true;
        for coding in items(value) {
            self.codings += 1;
            self.ends_chunked = coding.eq_ignore_ascii_case(b"chunked");
            self.chunked += usize::from(self.ends_chunked);
        }
    }

    pub fn body_length(&self, is_old: bool) -> Result<Length, Refusal> {
        let bad = |tag, text| Err(Refusal::BadLength(tag, text));
        match (self.is_encoded, self.length) {
            (true, Some(_)) => {
                bad(ErrorTag::AmbiguousLength, "Transfer-Encoding and Content-Length cannot be combined")
            }
            (true, None) if is_old => bad(ErrorTag::AmbiguousLength, "HTTP/1.0 has no Transfer-Encoding"),
            (true, None) => match (self.codings, self.chunked) {
                (1, 1) => Ok(Length::Chunked),
                (0, _) => bad(ErrorTag::AmbiguousLength, "Transfer-Encoding is empty"),
                (_, 2..) => bad(ErrorTag::AmbiguousLength, "Transfer-Encoding has chunked more than once"),
                // RFC 9112, 6.3: the end of such a body cannot be found.
                (_, 1) if !self.ends_chunked => {
                    bad(ErrorTag::AmbiguousLength, "chunked is not the last coding of Transfer-Encoding")
                }
                _ => Err(Refusal::UnknownCoding),
            },
            (false, None) => Ok(Length::Absent),
            (false, Some(digits)) => number(digits).map(Length::Known),
        }
    }
}

/// True for what a host with a port may have (RFC 3986, 3.2.2 and 3.2.3).
fn is_of_host(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=:[]".contains(byte)
}

/// The number that `digits` are; one beyond 64 bits counts as the largest.
fn number(digits: &[u8]) -> Result<u64, Refusal> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(Refusal::BadLength(ErrorTag::BadLength, "Content-Length is not a number of bytes"));
    }
    let add = |sum: u64, digit: &u8| sum.saturating_mul(10).saturating_add(u64::from(digit - b'0'));
    Ok(digits.iter().fold(0, add))
}

/// The items of a comma-separated list; empty ones do not count.
fn items(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    list.split(|&byte| byte == b',').map(<[u8]>::trim_ascii).filter(|item| !item.is_empty())
}

/// Whether `list` has `word`, ignoring case.
fn lists(list: &[u8], word: &[u8]) -> bool {
    items(list).any(|item| item.eq_ignore_ascii_case(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn length(lines: &[(&str, &str)], is_old: bool) -> Result<Length, Refusal> {
        let headers: Vec<_> =
            lines.iter().map(|(name, value)| Header { name, value: value.as_bytes() }).collect();
        Fields::of(&headers)?.body_length(is_old)
    }

    #[test]
    fn a_body_ends_where_its_headers_say() {
        assert_eq!(length(&[], false), Ok(Length::Absent));
        assert_eq!(length(&[("content-length", "007")], false), Ok(Length::Known(7)));
        assert_eq!(length(&[("Content-Length", "99999999999999999999")], false), Ok(Length::Known(u64::MAX)));
        assert_eq!(length(&[("Transfer-Encoding", "Chunked")], false), Ok(Length::Chunked));
        assert_eq!(length(&[("Transfer-Encoding", " , chunked,")], false), Ok(Length::Chunked));
    }

    #[test]
    fn an_uncertain_end_is_refused() {
        let (cl, te) = ("Content-Length", "Transfer-Encoding");
        for lines in [
            &[(cl, "5"), (cl, "5")][..],
            &[(cl, "5, 5")],
            &[(cl, "+5")],
            &[(cl, "-5")],
            &[(cl, "0x5")],
            &[(cl, "5 5")],
            &[(cl, "")],
            &[(cl, "5"), (te, "chunked")],
            &[(te, "chunked, chunked")],
            &[(te, "chunked, gzip")],
            &[(te, "chunked"), (te, "gzip")],
            &[(te, "chunked"), (te, "chunked")],
            &[(te, "")],
        ] {
            assert!(matches!(length(lines, false), Err(Refusal::BadLength(..))), "{lines:?}");
        }
        assert!(matches!(length(&[(te, "chunked")], true), Err(Refusal::BadLength(..))));
        for coding in ["gzip", "gzip, chunked", "identity", "xchunked", "chunked;a=b"] {
            assert_eq!(length(&[(te, coding)], false), Err(Refusal::UnknownCoding), "{coding}");
        }
    }
}
