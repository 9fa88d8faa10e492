//! Holds the parts of a request head that decide how to handle the request.

use std::fmt;

/// Finds headers that only some set-ups need.
pub trait Headers {
    /// The value of the header of this name, in any case, that comes after `n` others of it.
    fn nth(&self, name: &str, n: usize) -> Option<&[u8]>;
}

/// The headers of a request.
#[derive(Clone, Copy, Default)]
pub struct Others<'a>(Option<&'a dyn Headers>);

impl<'a> Others<'a> {
    /// These headers.
    pub fn of(headers: &'a dyn Headers) -> Self {
        Self(Some(headers))
    }

    /// The value of the first header of this name, without white space around it.
    pub fn value(&self, name: &str) -> Option<&'a [u8]> {
        self.values(name).next()
    }

    /// The same if there is no other header of this name.
    pub fn only(&self, name: &str) -> Option<&'a [u8]> {
        let mut values = self.values(name);
        values.next().filter(|_| values.next().is_none())
    }

    /// The values of all headers of this name, in order.
    pub fn values(&self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        let headers = self.0;
        (0..).map_while(move |n| headers?.nth(name, n).map(<[u8]>::trim_ascii))
    }

    /// The same; `None` if it is not text.
    pub fn get(&self, name: &str) -> Option<&'a str> {
        std::str::from_utf8(self.value(name)?).ok()
    }
}

impl fmt::Debug for Others<'_> {
    /// They can hold keys.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

/// The parts of a request head that decide how to handle the request.
#[derive(Clone, Debug, Default)]
pub struct Head<'a> {
    /// As sent; known methods are in upper case.
    pub method: &'a str,
    /// Request target, including its query.
    pub target: &'a str,
    /// First `Content-Length`, as text.
    pub content_length: Option<&'a str>,
    /// There is more than one `Content-Length`.
    pub repeated_length: bool,
    /// There is a `Transfer-Encoding`.
    pub transfer_encoding: bool,
    /// `Connection` asks for an upgrade.
    pub upgrade: bool,
    /// There is an `Expect`.
    pub expects: bool,
    /// The whole body has already been read, so a refusal does not have to end the connection.
    pub body_is_here: bool,
    /// `Content-Type`, as text.
    pub content_type: Option<&'a str>,
    /// `Content-Encoding`, as text.
    pub content_encoding: Option<&'a str>,
    /// All headers.
    pub others: Others<'a>,
}

impl<'a> Head<'a> {
    /// Picks from `headers` (names and values) those that matter.
    pub fn new(method: &'a str, target: &'a str, headers: impl Iterator<Item = (&'a str, &'a str)>) -> Self {
        let mut head = Self { method, target, ..Self::default() };
        for (name, value) in headers {
            let is = |known: &str| name.eq_ignore_ascii_case(known);
            // The length is compared first because most headers of a request are none of these.
            match name.len() {
                6 if is("Expect") => head.expects = true,
                10 if is("Connection") => head.upgrade |= value.to_ascii_lowercase().contains("upgrade"),
                12 if is("Content-Type") => head.content_type = Some(value),
                14 if is("Content-Length") && head.content_length.is_some() => head.repeated_length = true,
                14 if is("Content-Length") => head.content_length = Some(value),
                16 if is("Content-Encoding") => head.content_encoding = Some(value),
                17 if is("Transfer-Encoding") => head.transfer_encoding = true,
                _ => {}
            }
        }
        head
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_headers_that_matter_are_found_in_any_case() {
        let headers = [
            ("content-length", "2"),
            ("Host", "x"),
            ("CONNECTION", "keep-alive, Upgrade"),
            ("Content-type", "text/json"),
            ("Content-Length", "3"),
        ];
        let head = Head::new("POST", "/register_event", headers.into_iter());
        assert_eq!((head.content_length, head.repeated_length, head.upgrade), (Some("2"), true, true));
        assert_eq!(
            (head.content_type, head.expects, head.transfer_encoding),
            (Some("text/json"), false, false)
        );
    }
}
