//! What Go's `encoding/json` says about a text that is no JSON object, where such a message reaches users.

/// Checks that the bytes are one JSON object.
pub(crate) fn object(bytes: &[u8]) -> Result<(), String> {
    let mut scanner = Scanner { bytes, at: 0 };
    scanner.value("looking for beginning of value")?;
    scanner.blanks();
    if let Some(b) = scanner.peek() {
        return Err(format!("invalid character {} after top-level value", shown(b)));
    }
    match serde_json::from_slice(bytes) {
        Ok(serde_json::Value::Object(_) | serde_json::Value::Null) => Ok(()),
        Ok(other) => {
            let kind = match other {
                serde_json::Value::Bool(_) => "bool",
                serde_json::Value::Number(_) => "number",
                serde_json::Value::String(_) => "string",
                _ => "array",
            };
            Err(format!("json: cannot unmarshal {kind} into Go value of type map[string]interface {{}}"))
        }
        Err(_) => Err("unexpected end of JSON input".into()),
    }
}

struct Scanner<'a> {
    bytes: &'a [u8],
    at: usize,
}

fn shown(b: u8) -> String {
    match b {
        b'\'' => "'\\''".into(),
        b'"' => "'\"'".into(),
        b'\n' => "'\\n'".into(),
        b'\t' => "'\\t'".into(),
        b'\r' => "'\\r'".into(),
        0x20..0x7f => format!("'{}'", char::from(b)),
        _ => format!("'\\x{b:02x}'"),
    }
}

impl Scanner<'_> {
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn blanks(&mut self) {
        while self.peek().is_some_and(|b| matches!(b, b' ' | b'\t' | b'\r' | b'\n')) {
            self.at += 1;
        }
    }

    fn next(&mut self) -> Result<u8, String> {
        let b = self.peek().ok_or("unexpected end of JSON input")?;
        self.at += 1;
        Ok(b)
    }

    /// Goes over one value without recursion deeper than the text is long; depth is bounded as in Go.
    fn value(&mut self, context: &str) -> Result<(), String> {
        let mut open: Vec<u8> = Vec::new();
        let mut context = context.to_owned();
        loop {
            self.blanks();
            match self.next()? {
                b'{' => {
                    self.blanks();
                    if self.peek() == Some(b'}') {
                        self.at += 1;
                    } else {
                        open.push(b'{');
                        self.key("looking for beginning of object key string")?;
                        context = "looking for beginning of value".into();
                        continue;
                    }
                }
                b'[' => {
                    self.blanks();
                    if self.peek() == Some(b']') {
                        self.at += 1;
                    } else {
                        open.push(b'[');
                        context = "looking for beginning of value".into();
                        continue;
                    }
                }
                b'"' => self.string()?,
                b't' => self.literal("true", "rue")?,
                b'f' => self.literal("false", "alse")?,
                b'n' => self.literal("null", "ull")?,
                b'-' | b'0'..=b'9' => self.number(),
                other => return Err(format!("invalid character {} {context}", shown(other))),
            }
            loop {
                let Some(kind) = open.last().copied() else { return Ok(()) };
                self.blanks();
                match (kind, self.next()?) {
                    (b'{', b',') => {
                        self.blanks();
                        self.key("looking for beginning of object key string")?;
                        break;
                    }
                    (b'[', b',') => break,
                    (b'{', b'}') | (b'[', b']') => drop(open.pop()),
                    (b'{', other) => return Err(format!("invalid character {} after object key:value pair", shown(other))),
                    (_, other) => return Err(format!("invalid character {} after array element", shown(other))),
                }
            }
            context = "looking for beginning of value".into();
        }
    }

    fn key(&mut self, context: &str) -> Result<(), String> {
        match self.next()? {
            b'"' => self.string()?,
            other => return Err(format!("invalid character {} {context}", shown(other))),
        }
        self.blanks();
        match self.next()? {
            b':' => Ok(()),
            other => Err(format!("invalid character {} after object key", shown(other))),
        }
    }

    fn string(&mut self) -> Result<(), String> {
        loop {
            match self.next()? {
                b'"' => return Ok(()),
                b'\\' => {
                    let escape = self.next()?;
                    if !matches!(escape, b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' | b'u') {
                        return Err(format!("invalid character {} in string escape code", shown(escape)));
                    }
                }
                b if b < 0x20 => return Err(format!("invalid character {} in string literal", shown(b))),
                _ => {}
            }
        }
    }

    fn literal(&mut self, whole: &str, rest: &str) -> Result<(), String> {
        for expected in rest.bytes() {
            let b = self.next()?;
            if b != expected {
                return Err(format!("invalid character {} in literal {whole} (expecting {})", shown(b), shown(expected)));
            }
        }
        Ok(())
    }

    fn number(&mut self) {
        while self.peek().is_some_and(|b| b.is_ascii_digit() || matches!(b, b'+' | b'-' | b'.' | b'e' | b'E')) {
            self.at += 1;
        }
    }
}
