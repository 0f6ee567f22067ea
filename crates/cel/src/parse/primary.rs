//! What an expression is made of: names, calls, messages, lists, maps, and what stands in parentheses.

use super::{Node, Parser, Result};
use crate::ast::{Element, Entry, Expr, ExprKind, Field};
use crate::lex::Kind;
use crate::macros;

/// Names that no variable may have.
const RESERVED: [&str; 21] = [
    "as",
    "break",
    "const",
    "continue",
    "else",
    "false",
    "for",
    "function",
    "if",
    "import",
    "in",
    "let",
    "loop",
    "package",
    "namespace",
    "null",
    "return",
    "true",
    "var",
    "void",
    "while",
];

/// Whether CEL keeps a word for itself, so that no variable may have it as its name.
#[must_use]
pub fn is_reserved(name: &str) -> bool {
    RESERVED.contains(&name)
}

impl Parser<'_> {
    pub(super) fn primary(&mut self) -> Result<Node> {
        match self.peek() {
            Kind::OpenParen => {
                self.advance();
                let inner = self.expr()?;
                self.take(Kind::CloseParen)?;
                Ok(inner)
            }
            Kind::OpenBracket => self.list(),
            Kind::OpenBrace => self.map(),
            Kind::Dot | Kind::Identifier => self.name(),
            _ => self.literal(),
        }
    }

    fn list(&mut self) -> Result<Node> {
        let open = self.advance();
        let id = self.id(open.start);
        let (mut elements, mut depth) = (Vec::new(), 0);
        self.separated(Kind::CloseBracket, |this| {
            let optional = this.accept(Kind::Question).is_some();
            let node = this.expr()?;
            depth = depth.max(node.depth);
            elements.push(Element { value: node.expr, optional });
            Ok(())
        })?;
        Ok(Node { expr: Expr { id, kind: ExprKind::List(elements) }, depth })
    }

    /// Items between commas up to `end`; a last comma may follow, also when there are no items.
    fn separated(&mut self, end: Kind, mut item: impl FnMut(&mut Self) -> Result<()>) -> Result<()> {
        if !matches!(self.peek(), Kind::Comma) && self.peek() != end {
            item(self)?;
            while self.peek() == Kind::Comma && self.ahead(1) != end {
                self.advance();
                item(self)?;
            }
        }
        self.accept(Kind::Comma);
        self.take(end)?;
        Ok(())
    }

    fn map(&mut self) -> Result<Node> {
        let open = self.advance();
        let id = self.id(open.start);
        let (mut entries, mut depth) = (Vec::new(), 0);
        self.separated(Kind::CloseBrace, |this| {
            let optional = this.accept(Kind::Question).is_some();
            let key = this.expr()?;
            let colon = this.take(Kind::Colon)?;
            let id = this.id(colon.start);
            let value = this.expr()?;
            depth = depth.max(key.depth).max(value.depth);
            entries.push(Entry { id, key: key.expr, value: value.expr, optional });
            Ok(())
        })?;
        Ok(Node { expr: Expr { id, kind: ExprKind::Map(entries) }, depth })
    }

    /// A variable, a function call or a message.
    fn name(&mut self) -> Result<Node> {
        let first = self.tokens[self.next];
        let lead = if self.accept(Kind::Dot).is_some() { "." } else { "" };
        let token = self.take(Kind::Identifier)?;
        let text = self.source(token);
        let mut dots = 0;
        while self.ahead(2 * dots) == Kind::Dot && self.ahead(2 * dots + 1) == Kind::Identifier {
            dots += 1;
        }
        if self.ahead(2 * dots) == Kind::OpenBrace {
            return self.message(format!("{lead}{text}"), dots);
        }
        let open = self.accept(Kind::OpenParen);
        let (args, depth) = if open.is_some() { self.arguments()? } else { (Vec::new(), 0) };
        if is_reserved(&text) {
            return Ok(Node { expr: self.fault(first.start, format!("reserved identifier: {text}")), depth });
        }
        let name = format!("{lead}{text}");
        let expr = match open {
            Some(open) => self.call_or_macro(open.start, None, name, args),
            None => self.node(token.start, ExprKind::Ident(name)),
        };
        Ok(Node { expr, depth })
    }

    fn message(&mut self, mut name: String, dots: usize) -> Result<Node> {
        for _ in 0..dots {
            self.take(Kind::Dot)?;
            let part = self.take(Kind::Identifier)?;
            name.push('.');
            name.push_str(&self.source(part));
        }
        let open = self.take(Kind::OpenBrace)?;
        let id = self.id(open.start);
        let (mut fields, mut depth) = (Vec::new(), 0);
        self.separated(Kind::CloseBrace, |this| {
            let optional = this.accept(Kind::Question).is_some();
            let (_, name) = this.field_name()?;
            let colon = this.take(Kind::Colon)?;
            let id = this.id(colon.start);
            let value = this.expr()?;
            depth = depth.max(value.depth);
            fields.push(Field { id, name, value: value.expr, optional });
            Ok(())
        })?;
        Ok(Node { expr: Expr { id, kind: ExprKind::Struct { name, fields } }, depth })
    }

    /// What follows an opening parenthesis, up to the closing one.
    pub(super) fn arguments(&mut self) -> Result<(Vec<Expr>, u32)> {
        let (mut args, mut depth) = (Vec::new(), 0);
        if self.accept(Kind::CloseParen).is_none() {
            loop {
                let node = self.expr()?;
                depth = depth.max(node.depth);
                args.push(node.expr);
                if self.accept(Kind::Comma).is_none() {
                    break;
                }
            }
            self.take(Kind::CloseParen)?;
        }
        Ok((args, depth))
    }

    pub(super) fn call_or_macro(&mut self, at: u32, target: Option<Expr>, function: String, args: Vec<Expr>) -> Expr {
        match macros::expand(self, at, target, &function, args) {
            macros::Outcome::Expanded(expr) => expr,
            macros::Outcome::Fault(at, message) => self.fault(at, message),
            macros::Outcome::Call(target, args) => self.node(at, ExprKind::Call { target: target.map(Box::new), function, args }),
        }
    }
}
