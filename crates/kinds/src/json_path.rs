//! Whether a text is a JSONPath template as kubectl reads them (`{.spec.a[0]}`), and if not why, in the words of the
//! reference's parser.

/// Reads a template: text with expressions in braces.
pub(crate) fn parse(template: &str) -> Result<(), String> {
    let mut reader = Reader { rest: template };
    while let Some(at) = reader.rest.find('{') {
        reader.rest = &reader.rest[at + 1..];
        reader.action()?;
    }
    Ok(())
}

struct Reader<'t> {
    rest: &'t str,
}

fn is_terminator(c: char) -> bool {
    c.is_whitespace() || ".,[]$@{}".contains(c)
}

impl Reader<'_> {
    fn peek(&self) -> Option<char> {
        self.rest.chars().next()
    }

    fn skip(&mut self, bytes: usize) {
        self.rest = &self.rest[bytes..];
    }

    /// An expression up to and with its closing brace.
    fn action(&mut self) -> Result<(), String> {
        let mut descended = false;
        loop {
            if self.rest.starts_with('}') {
                self.skip(1);
                return Ok(());
            }
            if self.rest.starts_with("[?(") {
                self.filter()?;
                descended = false;
                continue;
            }
            if self.rest.starts_with("..") {
                if descended {
                    return Err("invalid multiple recursive descent".into());
                }
                self.skip(2);
                descended = !self.peek().is_some_and(|c| c == '_' || c.is_alphanumeric());
                if !descended {
                    self.field();
                }
                continue;
            }
            let Some(c) = self.peek().filter(|c| !matches!(c, '\r' | '\n')) else {
                return Err("unclosed action".into());
            };
            if !matches!(c, ' ' | '@' | '$') {
                descended = false;
            }
            match c {
                ' ' | '@' | '$' => self.skip(1),
                '[' => self.array()?,
                '"' | '\'' => self.quote(c)?,
                '.' => {
                    self.skip(1);
                    self.field();
                }
                '+' | '-' | '0'..='9' => self.number()?,
                c if c == '_' || c.is_alphanumeric() => {
                    let end = self.rest.find(is_terminator).unwrap_or(self.rest.len());
                    self.skip(end);
                }
                c => return Err(format!("unrecognized character in action: U+{:04X} '{c}'", c as u32)),
            }
        }
    }

    /// A name; a backslash takes the character after it as it is.
    fn field(&mut self) {
        let mut escaped = false;
        let end = self.rest.find(|c| {
            let taken = std::mem::take(&mut escaped);
            escaped = !taken && c == '\\';
            !taken && is_terminator(c)
        });
        self.skip(end.unwrap_or(self.rest.len()));
    }

    fn number(&mut self) -> Result<(), String> {
        let sign = usize::from(self.rest.starts_with(['+', '-']));
        let end = self.rest[sign..].find(|c: char| c != '.' && !c.is_ascii_digit()).map_or(self.rest.len(), |end| end + sign);
        let text = &self.rest[..end];
        if text.parse::<f64>().is_err() {
            return Err(format!("cannot parse number {text}"));
        }
        self.skip(end);
        Ok(())
    }

    fn quote(&mut self, mark: char) -> Result<(), String> {
        let end = self.rest[1..].find([mark, '\n']).map(|end| end + 1);
        match end {
            Some(end) if self.rest[end..].starts_with(mark) => {
                self.skip(end + 1);
                Ok(())
            }
            _ => Err("unterminated quoted string".into()),
        }
    }

    fn array(&mut self) -> Result<(), String> {
        let end = self.rest.find([']', '\n']).filter(|end| self.rest[*end..].starts_with(']'));
        let Some(end) = end else {
            return Err("unterminated array".into());
        };
        let inside = &self.rest[1..end];
        let quoted = |text: &str| text.len() > 1 && text.starts_with('\'') && text.ends_with('\'');
        let bound = |text: &str| text.strip_prefix('-').unwrap_or(text).bytes().all(|b| b.is_ascii_digit());
        let range = |text: &str| text.split(':').count() <= 3 && text.split(':').all(bound);
        let fits = |text: &str| text == "*" || quoted(text) || range(text);
        if let Some(wrong) = inside.split(',').map(str::trim).find(|text| !fits(text)) {
            return Err(format!("invalid array index {wrong}"));
        }
        self.skip(end + 1);
        Ok(())
    }

    fn filter(&mut self) -> Result<(), String> {
        let Some(end) = self.rest.find(")]") else {
            return Err("unterminated filter".into());
        };
        self.skip(end + 2);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_those_of_the_reference() {
        for fits in ["{.spec.a}", "{spec.validations[0].expression}", "{..a}", "{.a[?(@.b==1)].c}", "{.a['b']}", "{.a[1:2]}", "x"]
        {
            assert_eq!(parse(fits), Ok(()), "{fits}");
        }
        let cases = [
            ("{-a}", "cannot parse number -"),
            ("{2001:db8}", "unrecognized character in action: U+003A ':'"),
            ("{.a", "unclosed action"),
            ("{.a[1", "unterminated array"),
            ("{.a[b]}", "invalid array index b"),
            ("{....a}", "invalid multiple recursive descent"),
            ("{'a}", "unterminated quoted string"),
        ];
        for (text, why) in cases {
            assert_eq!(parse(text), Err(why.into()), "{text}");
        }
    }
}
