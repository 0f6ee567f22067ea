//! Numbers, strings, bytes and words that stand for a value.

use super::{Malformed, Node, Parser, Result};
use crate::ast::{ExprKind, Literal};
use crate::lex::Kind;

impl Parser<'_> {
    pub(super) fn literal(&mut self) -> Result<Node> {
        let first = self.tokens[self.next];
        let sign = if self.accept(Kind::Minus).is_some() { "-" } else { "" };
        let token = self.advance();
        let text = self.source(token);
        let parsed = match token.kind {
            Kind::Int => match text.strip_prefix("0x") {
                Some(hex) => i64::from_str_radix(&format!("{sign}{hex}"), 16).ok().map(Literal::Int),
                None => format!("{sign}{text}").parse().ok().map(Literal::Int),
            }
            .ok_or("invalid int literal"),
            Kind::Float => match format!("{sign}{text}").parse::<f64>() {
                Ok(number) if number.is_finite() => Ok(Literal::Double(number)),
                _ => Err("invalid double literal"),
            },
            _ if !sign.is_empty() => return Err(Malformed),
            Kind::Uint => {
                let digits = &text[..text.len() - 1];
                match digits.strip_prefix("0x") {
                    Some(hex) => u64::from_str_radix(hex, 16).ok(),
                    None => digits.parse().ok(),
                }
                .map(Literal::Uint)
                .ok_or("invalid uint literal")
            }
            Kind::String => unescape(&text, false).map(|bytes| {
                Literal::String(String::from_utf8(bytes).unwrap_or_else(|bad| String::from_utf8_lossy(bad.as_bytes()).into()))
            }),
            Kind::Bytes => unescape(&text[1..], true).map(Literal::Bytes),
            Kind::True => Ok(Literal::Bool(true)),
            Kind::False => Ok(Literal::Bool(false)),
            Kind::Null => Ok(Literal::Null),
            _ => return Err(Malformed),
        };
        let expr = match parsed {
            Ok(literal) => self.node(first.start, ExprKind::Literal(literal)),
            Err(message) => self.fault(first.start, message),
        };
        Ok(Node { expr, depth: 0 })
    }
}

/// The value of a string literal with its quotes. In bytes, an escaped number is a byte, in text a code point.
fn unescape(text: &str, bytes: bool) -> Result<Vec<u8>, &'static str> {
    let (raw, text) = match text.strip_prefix(['r', 'R']) {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let quotes = if text.len() >= 6 && (text.starts_with("\"\"\"") || text.starts_with("'''")) { 3 } else { 1 };
    let inner = text[quotes..text.len() - quotes].replace("\r\n", "\n").replace('\r', "\n");
    if raw || !inner.contains('\\') {
        return Ok(inner.into_bytes());
    }
    let mut out = Vec::with_capacity(inner.len());
    let mut rest = inner.chars();
    while let Some(c) = rest.next() {
        if c != '\\' {
            out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            continue;
        }
        let kind = rest.next().ok_or("unable to unescape string, found '\\' as last character")?;
        let (skip, digits, radix) = match kind {
            'x' | 'X' => (0, 2, 16),
            'u' => (0, 4, 16),
            'U' => (0, 8, 16),
            '0'..='3' => (1, 3, 8),
            _ => {
                out.push(match kind {
                    'a' => 7,
                    'b' => 8,
                    'f' => 12,
                    'n' => b'\n',
                    'r' => b'\r',
                    't' => b'\t',
                    'v' => 11,
                    other => u8::try_from(other).map_err(|_| "unable to unescape string")?,
                });
                continue;
            }
        };
        let mut number = if skip == 1 { kind.to_string() } else { String::new() };
        number.extend(rest.by_ref().take(digits - skip));
        let code = u32::from_str_radix(&number, radix).map_err(|_| "unable to unescape string")?;
        if bytes && digits < 4 {
            out.push(u8::try_from(code).map_err(|_| "unable to unescape octal sequence in bytes")?);
        } else {
            let c = char::from_u32(code).ok_or("invalid unicode code point")?;
            out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
        }
    }
    Ok(out)
}
