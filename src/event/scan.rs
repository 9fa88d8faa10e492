//! Checks JSON text (RFC 8259) in one pass without building values: the grammar, the nesting depth, and the
//! members of the outermost object.
//!
//! Bytes above 0x7F are accepted as they are; callers that need UTF-8 check it separately. This is written by
//! hand because `serde_json` cannot report the depth, the byte offset of an error, or half of a surrogate
//! pair without building values. Longer than most files, because it is one grammar.

use std::borrow::Cow;

use crate::event::error::{ErrorKind, Fault};

/// Deepest nesting that is ever followed. `serde_json` rejects deeper JSON anyway, and each level uses stack.
pub(super) const MAX_DEPTH: usize = 127;

/// A string as written in the text.
#[derive(Clone, Copy, Debug)]
pub struct Text<'a> {
    quoted: &'a [u8],
    escaped: bool,
}

impl<'a> Text<'a> {
    /// Returns the characters that the string represents, or `None` if they are not valid Unicode.
    pub fn decode(self) -> Option<Cow<'a, [u8]>> {
        if !self.escaped {
            return Some(Cow::Borrowed(&self.quoted[1..self.quoted.len() - 1]));
        }
        let text: String = serde_json::from_slice(self.quoted).ok()?;
        Some(Cow::Owned(text.into_bytes()))
    }

    /// Number of bytes, with the quotes.
    pub(super) fn len(self) -> usize {
        self.quoted.len()
    }

    /// Where it begins in the text that it was read from.
    pub(super) fn offset_in(self, text: &[u8]) -> usize {
        self.quoted.as_ptr().addr() - text.as_ptr().addr()
    }

    /// Returns true if the string represents exactly these characters, however they are escaped.
    pub(super) fn is(self, characters: &[u8]) -> bool {
        match self.escaped {
            false => &self.quoted[1..self.quoted.len() - 1] == characters,
            // Every escape is longer than the character it represents, and at most six times as long.
            true => {
                self.quoted.len() - 2 <= 6 * characters.len()
                    && self.decode().is_some_and(|decoded| *decoded == *characters)
            }
        }
    }
}

/// The kind of a value, as far as callers need to know it.
#[derive(Clone, Copy, Debug)]
pub enum Value<'a> {
    /// A string.
    Text(Text<'a>),
    /// The bytes of a number, of `true` or of `false`.
    Plain(&'a [u8]),
    /// `null`.
    Null,
    /// An object or an array.
    Nested,
}

impl<'a> Value<'a> {
    /// The characters of a string without quotes and escapes, or the text of a number or a boolean; `None` for
    /// everything else. Borrowed unless there are escapes.
    pub fn text(self) -> Option<Cow<'a, [u8]>> {
        match self {
            Self::Text(text) => text.decode(),
            Self::Plain(plain) => Some(Cow::Borrowed(plain)),
            Self::Null | Self::Nested => None,
        }
    }
}

/// True for the four bytes that JSON treats as white space; a form feed is not one of them.
fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

/// Strips the white space around the text.
pub(super) fn trim(mut text: &[u8]) -> &[u8] {
    while let [first, rest @ ..] = text
        && is_space(*first)
    {
        text = rest;
    }
    while let [rest @ .., last] = text
        && is_space(*last)
    {
        text = rest;
    }
    text
}

/// A cursor in JSON text. After an error its position is meaningless.
#[derive(Clone, Debug)]
pub(super) struct Scanner<'a> {
    bytes: &'a [u8],
    at: usize,
    max_depth: usize,
    /// Most levels of objects and arrays seen at once, counted like the `depth` of a value.
    pub deepest: usize,
    /// Whether a line break has been passed. In valid JSON these occur only between tokens.
    pub line_break: bool,
    /// Offset of the first `\u` escape that was half of a surrogate pair: the grammar allows it, but it is
    /// not a character.
    pub lone_surrogate: Option<usize>,
}

impl<'a> Scanner<'a> {
    /// Starts at the beginning of `bytes` and follows up to `max_depth` levels, at most `MAX_DEPTH`.
    pub fn new(bytes: &'a [u8], max_depth: usize) -> Self {
        let max_depth = max_depth.min(MAX_DEPTH);
        Self { bytes, at: 0, max_depth, deepest: 0, line_break: false, lone_surrogate: None }
    }

    /// Byte offset of the cursor.
    pub fn at(&self) -> usize {
        self.at
    }

    /// The text from `start` to the cursor.
    pub fn since(&self, start: usize) -> &'a [u8] {
        &self.bytes[start..self.at]
    }

    /// The byte at the cursor, or `None` at the end.
    pub fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    /// Consumes `byte` if it comes next, and returns whether it did.
    pub fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    /// Skips white space.
    pub fn skip_space(&mut self) {
        while let Some(byte) = self.peek() {
            match byte {
                b' ' | b'\t' => {}
                b'\n' | b'\r' => self.line_break = true,
                _ => return,
            }
            self.at += 1;
        }
    }

    /// Skips white space up to the end of the text; anything else there is an error.
    pub fn end(&mut self) -> Result<(), Fault> {
        self.skip_space();
        match self.peek() {
            None => Ok(()),
            Some(_) => Err(self.expected("nothing may follow the first value")),
        }
    }

    /// Parses one value that is nested in `depth` objects and arrays.
    pub fn value(&mut self, depth: usize) -> Result<Value<'a>, Fault> {
        match self.peek() {
            Some(b'"') => self.string().map(Value::Text),
            Some(b'{') => self.object(depth, |_, _| ()).map(|_| Value::Nested),
            Some(b'[') => self.array(depth).map(|()| Value::Nested),
            Some(b'-' | b'0'..=b'9') => self.number().map(Value::Plain),
            Some(b't') => self.literal("true").map(Value::Plain),
            Some(b'f') => self.literal("false").map(Value::Plain),
            Some(b'n') => self.literal("null").map(|_| Value::Null),
            _ => Err(self.expected("a value is expected")),
        }
    }

    /// Parses an object, calls `each` for its members in order, and returns their number.
    pub fn object(
        &mut self,
        depth: usize,
        mut each: impl FnMut(Text<'a>, Value<'a>),
    ) -> Result<usize, Fault> {
        self.open(depth)?;
        self.skip_space();
        if self.take(b'}') {
            return Ok(0);
        }
        let mut n_members = 0;
        loop {
            let key = match self.peek() {
                Some(b'"') => self.string()?,
                _ => return Err(self.expected("a key in double quotes is expected")),
            };
            self.skip_space();
            if !self.take(b':') {
                return Err(self.expected("`:` is expected after a key"));
            }
            self.skip_space();
            let value = self.value(depth + 1)?;
            each(key, value);
            n_members += 1;
            self.skip_space();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b'}') => break,
                _ => return Err(self.expected("`,` or `}` is expected after a member")),
            }
            self.skip_space();
        }
        self.at += 1;
        Ok(n_members)
    }

    fn array(&mut self, depth: usize) -> Result<(), Fault> {
        self.open(depth)?;
        self.skip_space();
        if self.take(b']') {
            return Ok(());
        }
        loop {
            self.value(depth + 1)?;
            self.skip_space();
            if self.take(b']') {
                return Ok(());
            }
            self.comma()?;
        }
    }

    /// Consumes the comma after an element and the white space that follows.
    pub fn comma(&mut self) -> Result<(), Fault> {
        if !self.take(b',') {
            return Err(self.expected("`,` or `]` is expected after an element"));
        }
        self.skip_space();
        Ok(())
    }

    fn open(&mut self, depth: usize) -> Result<(), Fault> {
        if depth >= self.max_depth {
            let reason = "more levels of objects and arrays than allowed";
            return Err(Fault { kind: ErrorKind::TooDeep, at: self.at, reason });
        }
        self.deepest = self.deepest.max(depth + 1);
        self.at += 1;
        Ok(())
    }

    fn string(&mut self) -> Result<Text<'a>, Fault> {
        let start = self.at;
        let mut escaped = false;
        self.at += 1;
        loop {
            self.skip_plain();
            match self.peek() {
                Some(b'"') => break,
                Some(b'\\') => self.escape()?,
                Some(_) => return Err(self.expected("a control character in a string must be escaped")),
                None => return Err(self.expected("a string is not closed")),
            }
            escaped = true;
        }
        self.at += 1;
        Ok(Text { quoted: &self.bytes[start..self.at], escaped })
    }

    /// Skips bytes that represent themselves inside a string, eight at a time.
    fn skip_plain(&mut self) {
        while let Some(eight) = self.bytes[self.at..].first_chunk() {
            let special = special_bytes(u64::from_le_bytes(*eight));
            if special != 0 {
                self.at += special.trailing_zeros() as usize / 8;
                return;
            }
            self.at += 8;
        }
        while self.peek().is_some_and(|byte| !matches!(byte, ..0x20 | b'"' | b'\\')) {
            self.at += 1;
        }
    }

    fn escape(&mut self) -> Result<(), Fault> {
        let start = self.at;
        self.at += 1;
        match self.peek() {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => {
                self.at += 1;
                return Ok(());
            }
            Some(b'u') => {}
            _ => return Err(self.expected("one of \" \\ / b f n r t u is expected after `\\`")),
        }
        let is_lone = match self.unit()? {
            0xD800..=0xDBFF if self.bytes[self.at..].starts_with(b"\\u") => {
                self.at += 1;
                !(0xDC00..=0xDFFF).contains(&self.unit()?)
            }
            0xD800..=0xDFFF => true,
            _ => false,
        };
        if is_lone {
            self.lone_surrogate.get_or_insert(start);
        }
        Ok(())
    }

    /// Parses `u` and four hexadecimal digits.
    fn unit(&mut self) -> Result<u32, Fault> {
        self.at += 1;
        let mut unit = 0;
        for _ in 0..4 {
            let digit = self.peek().and_then(|byte| char::from(byte).to_digit(16));
            unit = unit << 4
                | digit.ok_or_else(|| self.expected("four hexadecimal digits are expected after `\\u`"))?;
            self.at += 1;
        }
        Ok(unit)
    }

    fn number(&mut self) -> Result<&'a [u8], Fault> {
        let start = self.at;
        self.take(b'-');
        if !self.take(b'0') {
            self.digits()?;
        }
        if self.take(b'.') {
            self.digits()?;
        }
        if self.take(b'e') || self.take(b'E') {
            let _ = self.take(b'+') || self.take(b'-');
            self.digits()?;
        }
        Ok(&self.bytes[start..self.at])
    }

    fn digits(&mut self) -> Result<(), Fault> {
        let start = self.at;
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        match self.at == start {
            true => Err(self.expected("a digit is expected in a number")),
            false => Ok(()),
        }
    }

    fn literal(&mut self, word: &'static str) -> Result<&'a [u8], Fault> {
        if !self.bytes[self.at..].starts_with(word.as_bytes()) {
            return Err(self.expected("a value is expected"));
        }
        self.at += word.len();
        Ok(word.as_bytes())
    }

    /// Creates a grammar error at the cursor.
    pub fn expected(&self, reason: &'static str) -> Fault {
        Fault { kind: ErrorKind::NotJson, at: self.at, reason }
    }
}

/// Marks the bytes of `eight` that a string does not contain as they are: its quote, the backslash and control
/// characters. Bytes above the lowest mark may be marked wrongly, because subtractions borrow from them.
fn special_bytes(eight: u64) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGHS: u64 = ONES << 7;
    let below = |bytes: u64, limit: u64| bytes.wrapping_sub(ONES * limit) & !bytes;
    let equal = |byte: u8| below(eight ^ (ONES * u64::from(byte)), 1);
    (below(eight, 0x20) | equal(b'"') | equal(b'\\')) & HIGHS
}
