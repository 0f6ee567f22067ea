//! Tokens of a label selector.

/// A token and the text it was made of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lexer<'a> {
    pub token: Token,
    pub text: &'a str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token {
    Identifier,
    In,
    NotIn,
    Equals,
    DoubleEquals,
    NotEquals,
    Greater,
    Less,
    Not,
    Open,
    Close,
    Comma,
    End,
}

/// The tokens of a text; the last one is the end.
pub(super) fn tokens(text: &str) -> Vec<Lexer<'_>> {
    // A NUL ends a selector, as it does upstream.
    let mut rest = text.split('\0').next().unwrap_or(text);
    let mut out = Vec::new();
    loop {
        rest = rest.trim_start_matches(is_space);
        if rest.is_empty() {
            out.push(Lexer { token: Token::End, text: "" });
            return out;
        }
        let (token, length) = match symbol(rest) {
            Some(found) => found,
            None => identifier(rest),
        };
        out.push(Lexer { token, text: &rest[..length] });
        rest = &rest[length..];
    }
}

fn symbol(text: &str) -> Option<(Token, usize)> {
    let bytes = text.as_bytes();
    let next = bytes.get(1) == Some(&b'=');
    Some(match bytes[0] {
        b'=' if next => (Token::DoubleEquals, 2),
        b'=' => (Token::Equals, 1),
        b'!' if next => (Token::NotEquals, 2),
        b'!' => (Token::Not, 1),
        b'(' => (Token::Open, 1),
        b')' => (Token::Close, 1),
        b',' => (Token::Comma, 1),
        b'>' => (Token::Greater, 1),
        b'<' => (Token::Less, 1),
        _ => return None,
    })
}

fn identifier(text: &str) -> (Token, usize) {
    let ends = |c: char| is_space(c) || matches!(c, '=' | '!' | '(' | ')' | ',' | '>' | '<');
    let length = text.find(ends).unwrap_or(text.len());
    let token = match &text[..length] {
        "in" => Token::In,
        "notin" => Token::NotIn,
        _ => Token::Identifier,
    };
    (token, length)
}

fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\n')
}
