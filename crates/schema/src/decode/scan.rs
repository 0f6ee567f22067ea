//! A JSON scanner whose faults are in the words of Go's `encoding/json`.

use std::borrow::Cow;

use super::DecodeError;

/// A cursor over JSON text.
pub(super) struct Scanner<'a> {
    bytes: &'a [u8],
    at: usize,
    /// Numbers with a fraction or an exponent stay doubles when they are read without a type.
    pub keeps_doubles: bool,
}

/// Deepest nesting that Go's scanner passes over.
const DEEPEST: usize = 10_000;

/// Where a fault was found: Go names what was expected there.
#[derive(Clone, Copy)]
pub(super) enum After {
    /// A value was expected.
    Value,
    /// A key was expected.
    Key,
}

impl<'a> Scanner<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0, keeps_doubles: false }
    }

    /// Where the next byte is.
    pub(super) fn position(&mut self) -> usize {
        self.skip_space();
        self.at
    }

    /// The bytes from a position up to here.
    pub(super) fn since(&self, start: usize) -> &'a [u8] {
        &self.bytes[start..self.at]
    }

    /// The first byte of the next token, which stays where it is.
    pub(super) fn peek(&mut self) -> Result<u8, DecodeError> {
        self.skip_space();
        self.bytes.get(self.at).copied().ok_or_else(unexpected_end)
    }

    /// Takes the next byte when it is this one.
    pub(super) fn eat(&mut self, byte: u8) -> Result<bool, DecodeError> {
        let found = self.peek()? == byte;
        self.at += usize::from(found);
        Ok(found)
    }

    /// The key of the next member of an object, or nothing when the object ends; `first` tells that none was read yet.
    pub(super) fn key(&mut self, first: bool) -> Result<Option<Cow<'a, str>>, DecodeError> {
        match self.peek()? {
            b'}' => {
                self.at += 1;
                return Ok(None);
            }
            b',' if !first => {
                self.at += 1;
                self.peek()?;
            }
            _ if first => {}
            _ => return Err(self.invalid("after object key:value pair")),
        }
        if self.bytes[self.at] != b'"' {
            return Err(self.unexpected(After::Key));
        }
        let key = self.string()?;
        if self.peek()? != b':' {
            return Err(self.invalid("after object key"));
        }
        self.at += 1;
        Ok(Some(key))
    }

    /// Whether an array has another item; `first` tells that none was read yet.
    pub(super) fn item(&mut self, first: bool) -> Result<bool, DecodeError> {
        match self.peek()? {
            b']' => {
                self.at += 1;
                Ok(false)
            }
            b',' if !first => {
                self.at += 1;
                self.peek()?;
                Ok(true)
            }
            _ if first => Ok(true),
            _ => Err(self.invalid("after array element")),
        }
    }

    /// Checks that nothing follows.
    pub(super) fn end(&mut self) -> Result<(), DecodeError> {
        self.skip_space();
        if self.at < self.bytes.len() { Err(self.invalid("after top-level value")) } else { Ok(()) }
    }

    /// Takes `true`, `false` or `null`.
    pub(super) fn literal(&mut self, literal: &'static str) -> Result<(), DecodeError> {
        for (at, expected) in literal.bytes().enumerate() {
            match self.bytes.get(self.at) {
                None => return Err(unexpected_end()),
                Some(byte) if *byte == expected => self.at += 1,
                Some(_) if at == 0 => return Err(self.unexpected(After::Value)),
                Some(_) => {
                    return Err(self.invalid(&format!("in literal {literal} (expecting {})", shown(expected))));
                }
            }
        }
        Ok(())
    }

    /// Takes a number; its text is valid JSON.
    pub(super) fn number(&mut self) -> Result<&'a str, DecodeError> {
        let start = self.at;
        self.at += usize::from(self.bytes[self.at] == b'-');
        match self.bytes.get(self.at) {
            None => return Err(unexpected_end()),
            Some(b'0') => self.at += 1,
            Some(b'1'..=b'9') => self.digits(),
            Some(_) => return Err(self.invalid("in numeric literal")),
        }
        if self.bytes.get(self.at) == Some(&b'.') {
            self.at += 1;
            self.some_digits("after decimal point in numeric literal")?;
        }
        if let Some(b'e' | b'E') = self.bytes.get(self.at) {
            self.at += 1;
            self.at += usize::from(matches!(self.bytes.get(self.at), Some(b'+' | b'-')));
            self.some_digits("in exponent of numeric literal")?;
        }
        // Only ASCII was taken.
        Ok(std::str::from_utf8(&self.bytes[start..self.at]).unwrap_or_default())
    }

    /// Takes a string and returns what is between its quotes, escapes and all.
    pub(super) fn raw_string(&mut self) -> Result<&'a [u8], DecodeError> {
        let start = self.at + 1;
        self.at = start;
        loop {
            let rest = &self.bytes[self.at..];
            let Some(plain) = rest.iter().position(|byte| matches!(byte, b'"' | b'\\' | 0..=0x1f)) else {
                self.at = self.bytes.len();
                return Err(unexpected_end());
            };
            self.at += plain;
            match self.bytes[self.at] {
                b'"' => {
                    self.at += 1;
                    return Ok(&self.bytes[start..self.at - 1]);
                }
                b'\\' => {
                    self.at += 1;
                    self.escape()?;
                }
                _ => return Err(self.invalid("in string literal")),
            }
        }
    }

    /// Takes a string. What is not UTF-8 or half a surrogate pair becomes U+FFFD, as in Go.
    pub(super) fn string(&mut self) -> Result<Cow<'a, str>, DecodeError> {
        let raw = self.raw_string()?;
        if !raw.contains(&b'\\') {
            return Ok(String::from_utf8_lossy(raw));
        }
        Ok(Cow::Owned(unescaped(raw)))
    }

    /// Takes any value without looking at it; needs no stack however deep it is.
    pub(super) fn skip(&mut self) -> Result<(), DecodeError> {
        // What is open: true for an object.
        let mut open: Vec<bool> = Vec::new();
        loop {
            let mut closed = true;
            match self.peek()? {
                byte @ (b'{' | b'[') if open.len() >= DEEPEST => {
                    return Err(DecodeError::Syntax(format!("invalid character {} exceeded max depth", shown(byte))));
                }
                b'{' => {
                    self.at += 1;
                    if self.key(true)?.is_some() {
                        open.push(true);
                        closed = false;
                    }
                }
                b'[' => {
                    self.at += 1;
                    if self.item(true)? {
                        open.push(false);
                        closed = false;
                    }
                }
                b'"' => {
                    self.raw_string()?;
                }
                b't' => self.literal("true")?,
                b'f' => self.literal("false")?,
                b'n' => self.literal("null")?,
                b'-' | b'0'..=b'9' => {
                    self.number()?;
                }
                _ => return Err(self.unexpected(After::Value)),
            }
            while closed {
                let more = match open.last() {
                    None => return Ok(()),
                    Some(true) => self.key(false)?.is_some(),
                    Some(false) => self.item(false)?,
                };
                closed = !more;
                if closed {
                    open.pop();
                }
            }
        }
    }

    /// The next byte cannot begin what is expected.
    pub(super) fn unexpected(&self, after: After) -> DecodeError {
        self.invalid(match after {
            After::Value => "looking for beginning of value",
            After::Key => "looking for beginning of object key string",
        })
    }

    fn invalid(&self, context: &str) -> DecodeError {
        match self.bytes.get(self.at) {
            None => unexpected_end(),
            Some(byte) => DecodeError::Syntax(format!("invalid character {} {context}", shown(*byte))),
        }
    }

    fn escape(&mut self) -> Result<(), DecodeError> {
        match self.bytes.get(self.at) {
            None => Err(unexpected_end()),
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => {
                self.at += 1;
                Ok(())
            }
            Some(b'u') => {
                self.at += 1;
                for _ in 0..4 {
                    if !self.bytes.get(self.at).is_some_and(u8::is_ascii_hexdigit) {
                        return Err(self.invalid("in \\u hexadecimal character escape"));
                    }
                    self.at += 1;
                }
                Ok(())
            }
            Some(_) => Err(self.invalid("in string escape code")),
        }
    }

    fn some_digits(&mut self, context: &str) -> Result<(), DecodeError> {
        if !self.bytes.get(self.at).is_some_and(u8::is_ascii_digit) {
            return Err(self.invalid(context));
        }
        self.digits();
        Ok(())
    }

    fn digits(&mut self) {
        while self.bytes.get(self.at).is_some_and(u8::is_ascii_digit) {
            self.at += 1;
        }
    }

    fn skip_space(&mut self) {
        while matches!(self.bytes.get(self.at), Some(b' ' | b'\t' | b'\r' | b'\n')) {
            self.at += 1;
        }
    }
}

pub(super) fn unexpected_end() -> DecodeError {
    DecodeError::Syntax("unexpected end of JSON input".into())
}

pub(super) fn too_deep() -> DecodeError {
    DecodeError::Syntax("exceeded max depth".into())
}

/// A byte as Go quotes it.
fn shown(byte: u8) -> String {
    match byte {
        b'\'' => "'\\''".into(),
        b'"' => "'\"'".into(),
        b'\\' => "'\\\\'".into(),
        b'\n' => "'\\n'".into(),
        b'\r' => "'\\r'".into(),
        b'\t' => "'\\t'".into(),
        0x07 => "'\\a'".into(),
        0x08 => "'\\b'".into(),
        0x0b => "'\\v'".into(),
        0x0c => "'\\f'".into(),
        0x20..=0x7e => format!("'{}'", char::from(byte)),
        0x80..=0xa0 => format!("'\\u{byte:04x}'"),
        0xad => "'\\u00ad'".into(),
        0xa1..=0xff => format!("'{}'", char::from(byte)),
        _ => format!("'\\x{byte:02x}'"),
    }
}

/// The text of a string whose escapes were checked.
fn unescaped(raw: &[u8]) -> String {
    let mut out = String::with_capacity(raw.len());
    let mut rest = raw;
    while let Some(slash) = rest.iter().position(|byte| *byte == b'\\') {
        out.push_str(&String::from_utf8_lossy(&rest[..slash]));
        let code = rest[slash + 1];
        rest = &rest[slash + 2..];
        out.push(match code {
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let unit = hex(rest);
                rest = &rest[4..];
                let low = rest.strip_prefix(b"\\u").map(hex).filter(|low| (0xdc00..0xe000).contains(low));
                match (unit, low) {
                    (0xd800..0xdc00, Some(low)) => {
                        rest = &rest[6..];
                        let code = 0x10000 + ((unit - 0xd800) << 10) + (low - 0xdc00);
                        char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER)
                    }
                    _ => char::from_u32(unit).unwrap_or(char::REPLACEMENT_CHARACTER),
                }
            }
            other => char::from(other),
        });
    }
    out.push_str(&String::from_utf8_lossy(rest));
    out
}

fn hex(digits: &[u8]) -> u32 {
    digits.iter().take(4).fold(0, |value, digit| value * 16 + char::from(*digit).to_digit(16).unwrap_or(0))
}
