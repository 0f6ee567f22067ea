//! What is wrong with an expression, shown below the line of the source where it is.

use std::fmt::{self, Write as _};

/// More faults than these are counted, not shown.
const MAX_ISSUES: usize = 100;
/// Lines longer than these are not shown, in bytes.
const MAX_SNIPPET: usize = 16384;

/// Where in the text: an offset in characters. `None` belongs to the expression as a whole.
pub(crate) type Offset = Option<u32>;

/// All faults of one expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issues {
    text: String,
    found: Vec<(Offset, String)>,
    count: usize,
}

impl Issues {
    pub(crate) fn new(text: &str) -> Self {
        Self { text: text.to_owned(), found: Vec::new(), count: 0 }
    }

    pub(crate) fn report(&mut self, at: Offset, message: impl Into<String>) {
        self.count += 1;
        if self.count <= MAX_ISSUES {
            self.found.push((at, message.into()));
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The messages without their places, as they were found.
    pub fn messages(&self) -> impl Iterator<Item = &str> {
        self.found.iter().map(|(_, message)| message.as_str())
    }
}

impl std::error::Error for Issues {}

impl fmt::Display for Issues {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut ordered: Vec<_> = self.found.iter().collect();
        ordered.sort_by_key(|(at, _)| *at);
        for (i, (at, message)) in ordered.into_iter().enumerate() {
            if i > 0 {
                f.write_char('\n')?;
            }
            show(f, &self.text, *at, message)?;
        }
        if self.count > MAX_ISSUES {
            write!(f, "\n{} more errors were truncated", self.count - MAX_ISSUES)?;
        }
        Ok(())
    }
}

fn show(f: &mut fmt::Formatter<'_>, text: &str, at: Offset, message: &str) -> fmt::Result {
    let Some(offset) = at else {
        return write!(f, "ERROR: <input>:-1:0: {message}");
    };
    if text.is_empty() {
        // There is no line to show, and no first column in it.
        return write!(f, "ERROR: <input>:1:0: {message}");
    }
    let (mut line, mut column, mut start) = (1, 0, 0);
    for (byte, c) in text.char_indices().take(offset as usize).map(|(i, c)| (i + c.len_utf8(), c)) {
        column += 1;
        if c == '\n' {
            (line, column, start) = (line + 1, 0, byte);
        }
    }
    write!(f, "ERROR: <input>:{line}:{}: {message}", column + 1)?;
    let snippet = text[start..].split('\n').next().unwrap_or_default().replace('\t', " ");
    if snippet.len() > MAX_SNIPPET {
        return Ok(());
    }
    write!(f, "\n | {snippet}\n | ")?;
    let mut rest = snippet.chars();
    for c in rest.by_ref().take(column) {
        f.write_char(if c.len_utf8() > 1 { '\u{ff0e}' } else { '.' })?;
    }
    f.write_char(if rest.next().is_some_and(|c| c.len_utf8() > 1) { '\u{ff3e}' } else { '^' })
}
