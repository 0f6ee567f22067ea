//! Text to tokens, by the longest match, as the lexer rules of CEL's grammar say.

/// What a token is. The order is the grammar's, in which sets of expected tokens are listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Kind {
    End,
    Equals,
    NotEquals,
    In,
    Less,
    LessEquals,
    GreaterEquals,
    Greater,
    And,
    Or,
    OpenBracket,
    CloseBracket,
    OpenBrace,
    CloseBrace,
    OpenParen,
    CloseParen,
    Dot,
    Comma,
    Minus,
    Not,
    Question,
    Colon,
    Plus,
    Star,
    Slash,
    Percent,
    True,
    False,
    Null,
    Float,
    Int,
    Uint,
    String,
    Bytes,
    Identifier,
    Escaped,
}

impl Kind {
    /// The token's name in messages.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::End => "<EOF>",
            Self::Equals => "'=='",
            Self::NotEquals => "'!='",
            Self::In => "'in'",
            Self::Less => "'<'",
            Self::LessEquals => "'<='",
            Self::GreaterEquals => "'>='",
            Self::Greater => "'>'",
            Self::And => "'&&'",
            Self::Or => "'||'",
            Self::OpenBracket => "'['",
            Self::CloseBracket => "']'",
            Self::OpenBrace => "'{'",
            Self::CloseBrace => "'}'",
            Self::OpenParen => "'('",
            Self::CloseParen => "')'",
            Self::Dot => "'.'",
            Self::Comma => "','",
            Self::Minus => "'-'",
            Self::Not => "'!'",
            Self::Question => "'?'",
            Self::Colon => "':'",
            Self::Plus => "'+'",
            Self::Star => "'*'",
            Self::Slash => "'/'",
            Self::Percent => "'%'",
            Self::True => "'true'",
            Self::False => "'false'",
            Self::Null => "'null'",
            Self::Float => "NUM_FLOAT",
            Self::Int => "NUM_INT",
            Self::Uint => "NUM_UINT",
            Self::String => "STRING",
            Self::Bytes => "BYTES",
            Self::Identifier => "IDENTIFIER",
            Self::Escaped => "ESC_IDENTIFIER",
        }
    }
}

/// One token: its kind and the characters `start..end` that it is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) kind: Kind,
    pub(crate) start: u32,
    pub(crate) end: u32,
}

/// Tokens, the last of which is [`Kind::End`], and what was not one: its offset and text.
#[derive(Debug, Default)]
pub(crate) struct Tokens {
    pub(crate) list: Vec<Token>,
    pub(crate) unrecognized: Vec<(u32, String)>,
}

/// Splits `text`.
pub(crate) fn tokens(text: &[char]) -> Tokens {
    let mut found = Tokens::default();
    let mut at = 0;
    while at < text.len() {
        match text[at] {
            ' ' | '\t' | '\r' | '\n' | '\u{c}' => at += 1,
            '/' if text.get(at + 1) == Some(&'/') => {
                at += text[at..].iter().take_while(|c| **c != '\n').count();
            }
            _ => match token(&text[at..]) {
                Ok((kind, len)) => {
                    found.list.push(Token { kind, start: place(at), end: place(at + len) });
                    at += len;
                }
                // The character on which the match failed is dropped with what went before it.
                Err(len) => {
                    let end = (at + len + 1).min(text.len());
                    found.unrecognized.push((place(at), text[at..end].iter().collect()));
                    at = end;
                }
            },
        }
    }
    found.list.push(Token { kind: Kind::End, start: place(at), end: place(at) });
    found
}

fn place(at: usize) -> u32 {
    u32::try_from(at).expect("an expression is far smaller than 4 GiB")
}

/// The token at the start of `text` and its length, or how many characters were read before there could be none.
fn token(text: &[char]) -> Result<(Kind, usize), usize> {
    let second = text.get(1).copied();
    let two = |with: char, kind: Kind| (second == Some(with)).then_some((kind, 2));
    let simple = match text[0] {
        '=' => return two('=', Kind::Equals).ok_or(1),
        '&' => return two('&', Kind::And).ok_or(1),
        '|' => return two('|', Kind::Or).ok_or(1),
        '!' => return Ok(two('=', Kind::NotEquals).unwrap_or((Kind::Not, 1))),
        '<' => return Ok(two('=', Kind::LessEquals).unwrap_or((Kind::Less, 1))),
        '>' => return Ok(two('=', Kind::GreaterEquals).unwrap_or((Kind::Greater, 1))),
        '[' => Kind::OpenBracket,
        ']' => Kind::CloseBracket,
        '{' => Kind::OpenBrace,
        '}' => Kind::CloseBrace,
        '(' => Kind::OpenParen,
        ')' => Kind::CloseParen,
        ',' => Kind::Comma,
        '-' => Kind::Minus,
        '?' => Kind::Question,
        ':' => Kind::Colon,
        '+' => Kind::Plus,
        '*' => Kind::Star,
        '/' => Kind::Slash,
        '%' => Kind::Percent,
        '.' => {
            let digits = digits(&text[1..]);
            if digits > 0 {
                return Ok((Kind::Float, 1 + digits + exponent(&text[1 + digits..])));
            }
            Kind::Dot
        }
        '0'..='9' => return Ok(number(text)),
        '"' | '\'' => return quoted(text, false).map(|len| (Kind::String, len)),
        '`' => return escaped(text).map(|len| (Kind::Escaped, len)),
        'a'..='z' | 'A'..='Z' | '_' => return Ok(word(text)),
        _ => return Err(0),
    };
    Ok((simple, 1))
}

fn digits(text: &[char]) -> usize {
    text.iter().take_while(|c| c.is_ascii_digit()).count()
}

fn exponent(text: &[char]) -> usize {
    if !matches!(text.first(), Some('e' | 'E')) {
        return 0;
    }
    let sign = usize::from(matches!(text.get(1), Some('+' | '-')));
    match digits(&text[1 + sign..]) {
        0 => 0,
        digits => 1 + sign + digits,
    }
}

fn number(text: &[char]) -> (Kind, usize) {
    let hex = match text {
        ['0', 'x', rest @ ..] => rest.iter().take_while(|c| c.is_ascii_hexdigit()).count(),
        _ => 0,
    };
    let whole = if hex > 0 { 2 + hex } else { digits(text) };
    if hex == 0 {
        let fraction = match text.get(whole) {
            Some('.') => digits(&text[whole + 1..]),
            _ => 0,
        };
        let mantissa = if fraction > 0 { whole + 1 + fraction } else { whole };
        let exponent = exponent(&text[mantissa..]);
        if fraction > 0 || exponent > 0 {
            return (Kind::Float, mantissa + exponent);
        }
    }
    match text.get(whole) {
        Some('u' | 'U') => (Kind::Uint, whole + 1),
        _ => (Kind::Int, whole),
    }
}

fn word(text: &[char]) -> (Kind, usize) {
    if let Some((kind, len)) = prefixed(text) {
        return (kind, len);
    }
    let len = text.iter().take_while(|c| **c == '_' || c.is_ascii_alphanumeric()).count();
    let kind = match text[..len].iter().collect::<String>().as_str() {
        "in" => Kind::In,
        "true" => Kind::True,
        "false" => Kind::False,
        "null" => Kind::Null,
        _ => Kind::Identifier,
    };
    (kind, len)
}

/// A string with a prefix: `r` for raw text, `b` for bytes.
fn prefixed(text: &[char]) -> Option<(Kind, usize)> {
    let bytes = matches!(text[0], 'b' | 'B');
    let mut at = usize::from(bytes);
    let raw = matches!(text.get(at), Some('r' | 'R'));
    at += usize::from(raw);
    if at == 0 || !matches!(text.get(at), Some('"' | '\'')) {
        return None;
    }
    let len = at + quoted(&text[at..], raw).ok()?;
    Some((if bytes { Kind::Bytes } else { Kind::String }, len))
}

/// The length of the string literal at the start of `text`, or how many characters were read in vain.
fn quoted(text: &[char], raw: bool) -> Result<usize, usize> {
    let quote = text[0];
    if text.starts_with(&[quote; 3]) {
        // Without its end, three quotes are an empty string and one more quote.
        return Ok(triple(text, raw).unwrap_or(2));
    }
    let mut at = 1;
    loop {
        match text.get(at) {
            Some(c) if *c == quote => return Ok(at + 1),
            None | Some('\n' | '\r') => return Err(at),
            Some('\\') if !raw => at += escape(&text[at..]).map_err(|read| at + read)?,
            Some(_) => at += 1,
        }
    }
}

fn triple(text: &[char], raw: bool) -> Option<usize> {
    let mut at = 3;
    loop {
        if text[at..].starts_with(&[text[0]; 3]) {
            return Some(at + 3);
        }
        match text.get(at)? {
            '\\' if !raw => at += escape(&text[at..]).ok()?,
            _ => at += 1,
        }
    }
}

/// The length of the escape sequence at the start of `text`.
fn escape(text: &[char]) -> Result<usize, usize> {
    let run = |from: usize, count: usize| {
        let read = text[from..].iter().take(count).take_while(|c| c.is_ascii_hexdigit()).count();
        if read == count { Ok(from + count) } else { Err(from + read) }
    };
    match text.get(1) {
        Some('a' | 'b' | 'f' | 'n' | 'r' | 't' | 'v' | '"' | '\'' | '\\' | '?' | '`') => Ok(2),
        Some('x' | 'X') => run(2, 2),
        Some('u') => run(2, 4),
        Some('U') => run(2, 8),
        Some('0'..='3') => match text[2..].iter().take(2).take_while(|c| ('0'..='7').contains(*c)).count() {
            2 => Ok(4),
            read => Err(2 + read),
        },
        _ => Err(1),
    }
}

fn escaped(text: &[char]) -> Result<usize, usize> {
    let inner = |c: &&char| c.is_ascii_alphanumeric() || matches!(**c, '_' | '.' | '-' | '/' | ' ');
    let len = text[1..].iter().take_while(inner).count();
    if len > 0 && text.get(1 + len) == Some(&'`') { Ok(len + 2) } else { Err(1 + len) }
}
