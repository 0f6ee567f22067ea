//! Tokens to a tree, macros expanded on the way. Only well-formed text is parsed here; what is wrong with other text is found
//! by [`crate::syntax`].

use crate::ast::{Element, Entry, Expr, ExprKind, Field, Literal};
use crate::issue::Issues;
use crate::lex::{self, Kind, Token};
use crate::{macros, syntax};

/// Longest expression, in characters.
const MAX_LENGTH: usize = 100_000;
/// How deep rules may nest, and how deep the tree may become.
pub(crate) const MAX_DEPTH: u32 = 250;
/// Most nodes after macros are expanded: a macro that repeats its target doubles the tree each time.
const MAX_NODES: usize = 1 << 20;

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

/// A parsed expression: its tree and where each node starts, in characters.
pub(crate) struct Parsed {
    pub(crate) expr: Expr,
    pub(crate) offsets: Vec<u32>,
}

/// Parses `text`; `bind` enables the `cel.bind` macro.
pub(crate) fn parse(text: &str, bind: bool) -> Result<Parsed, Issues> {
    let mut issues = Issues::new(text);
    let chars: Vec<char> = text.chars().collect();
    if chars.len() > MAX_LENGTH {
        let message = format!("expression code point size exceeds limit: size: {}, limit {MAX_LENGTH}", chars.len());
        issues.report(None, message);
        return Err(issues);
    }
    let tokens = lex::tokens(&chars);
    let mut dropped = Vec::new();
    for (at, what) in tokens.unrecognized {
        dropped.push((at, at + u32::try_from(what.chars().count()).expect("a part of the text")));
        issues.report(Some(at), format!("Syntax error: token recognition error at: '{what}'"));
    }
    let mut parser = Parser {
        text: &chars,
        tokens: &tokens.list,
        next: 0,
        depth: [0; RULES],
        offsets: Vec::new(),
        found: Vec::new(),
        too_deep: false,
        bind,
    };
    match parser.start() {
        Ok(expr) => {
            if parser.too_deep {
                parser.found.clear();
                issues.report(None, "max recursion depth exceeded");
            }
            for (at, message) in parser.found {
                issues.report(Some(at), message);
            }
            if issues.is_empty() { Ok(Parsed { expr, offsets: parser.offsets }) } else { Err(issues) }
        }
        Err(Malformed) => {
            syntax::diagnose(&chars, &tokens.list, &dropped, &mut issues);
            if issues.is_empty() {
                // Both follow one grammar, so this is out of reach; a fault without a reason is still a fault.
                issues.report(Some(0), "Syntax error: malformed expression");
            }
            Err(issues)
        }
    }
}

/// The text does not follow the grammar, or nests too deep.
struct Malformed;

type Result<T, E = Malformed> = std::result::Result<T, E>;

/// A node and how deep the tree below it is, counting what the reference counts.
struct Node {
    expr: Expr,
    depth: u32,
}

/// Rules whose nesting is limited.
#[derive(Clone, Copy)]
enum Rule {
    Expr,
    Relation,
    Calc,
}

const RULES: usize = 3;

/// The state of parsing, which macros use to make nodes.
pub(crate) struct Parser<'a> {
    text: &'a [char],
    tokens: &'a [Token],
    next: usize,
    depth: [u32; RULES],
    offsets: Vec<u32>,
    found: Vec<(u32, String)>,
    too_deep: bool,
    pub(crate) bind: bool,
}

impl Parser<'_> {
    /// A new node that starts at `offset`.
    pub(crate) fn node(&mut self, offset: u32, kind: ExprKind) -> Expr {
        Expr { id: self.id(offset), kind }
    }

    pub(crate) fn id(&mut self, offset: u32) -> u32 {
        let id = u32::try_from(self.offsets.len()).expect("fewer nodes than the limit");
        self.offsets.push(offset);
        id
    }

    pub(crate) fn offset(&self, expr: &Expr) -> u32 {
        self.offsets[expr.id as usize]
    }

    /// Whether a macro may still repeat what it was given.
    pub(crate) fn may_copy(&self) -> bool {
        self.offsets.len() < MAX_NODES
    }

    /// Reports a fault and stands in for what could not be made.
    fn fault(&mut self, at: u32, message: impl Into<String>) -> Expr {
        self.found.push((at, message.into()));
        self.node(at, ExprKind::Literal(Literal::Null))
    }

    fn start(&mut self) -> Result<Expr> {
        let node = self.expr()?;
        self.take(Kind::End)?;
        Ok(node.expr)
    }

    fn peek(&self) -> Kind {
        self.tokens[self.next].kind
    }

    fn ahead(&self, by: usize) -> Kind {
        self.tokens.get(self.next + by).map_or(Kind::End, |token| token.kind)
    }

    fn advance(&mut self) -> Token {
        let token = self.tokens[self.next];
        if token.kind != Kind::End {
            self.next += 1;
        }
        token
    }

    fn take(&mut self, kind: Kind) -> Result<Token> {
        if self.peek() == kind { Ok(self.advance()) } else { Err(Malformed) }
    }

    fn accept(&mut self, kind: Kind) -> Option<Token> {
        (self.peek() == kind).then(|| self.advance())
    }

    fn source(&self, token: Token) -> String {
        self.text[token.start as usize..token.end as usize].iter().collect()
    }

    fn nested<T>(&mut self, rule: Rule, parse: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        self.depth[rule as usize] += 1;
        if self.depth[rule as usize] > MAX_DEPTH {
            return Err(Malformed);
        }
        let parsed = parse(self)?;
        self.depth[rule as usize] -= 1;
        Ok(parsed)
    }

    /// A node one level above `below`; a tree that is too deep is cut off.
    fn above(&mut self, expr: Expr, below: u32) -> Node {
        if below < MAX_DEPTH {
            return Node { expr, depth: below + 1 };
        }
        self.too_deep = true;
        let offset = self.offset(&expr);
        Node { expr: self.node(offset, ExprKind::Literal(Literal::Null)), depth: 0 }
    }

    fn expr(&mut self) -> Result<Node> {
        self.nested(Rule::Expr, |this| {
            let condition = this.logic(Kind::Or)?;
            let Some(op) = this.accept(Kind::Question) else { return Ok(condition) };
            let id = this.id(op.start);
            let yes = this.logic(Kind::Or)?;
            this.take(Kind::Colon)?;
            let no = this.expr()?;
            let below = condition.depth.max(yes.depth).max(no.depth);
            let expr = call(id, "_?_:_", vec![condition.expr, yes.expr, no.expr]);
            Ok(this.above(expr, below))
        })
    }

    /// `||` over `&&` over relations. A long chain becomes a balanced tree.
    fn logic(&mut self, op: Kind) -> Result<Node> {
        let operand = |this: &mut Self| if op == Kind::Or { this.logic(Kind::And) } else { this.relation(0) };
        let first = operand(self)?;
        if self.peek() != op {
            return Ok(first);
        }
        let (mut depth, mut terms, mut ids) = (first.depth, vec![Some(first.expr)], Vec::new());
        while let Some(token) = self.accept(op) {
            let term = operand(self)?;
            depth = depth.max(term.depth);
            terms.push(Some(term.expr));
            ids.push(self.id(token.start));
        }
        let function = if op == Kind::Or { "_||_" } else { "_&&_" };
        Ok(Node { expr: balanced(function, &mut terms, &ids, 0, ids.len() - 1), depth })
    }

    fn relation(&mut self, level: u32) -> Result<Node> {
        self.nested(Rule::Relation, |this| {
            let mut left = this.calc(0)?;
            while level == 0
                && let Some(function) = relation_operator(this.peek())
            {
                let id = this.advance().start;
                let id = this.id(id);
                let right = this.relation(1)?;
                let below = left.depth.max(right.depth);
                left = this.above(call(id, function, vec![left.expr, right.expr]), below);
            }
            Ok(left)
        })
    }

    fn calc(&mut self, level: u32) -> Result<Node> {
        self.nested(Rule::Calc, |this| {
            let mut left = this.unary()?;
            while let Some((function, binds)) = calc_operator(this.peek()).filter(|(_, binds)| *binds > level) {
                let id = this.advance().start;
                let id = this.id(id);
                let right = this.calc(binds)?;
                let below = left.depth.max(right.depth);
                left = this.above(call(id, function, vec![left.expr, right.expr]), below);
            }
            Ok(left)
        })
    }

    fn unary(&mut self) -> Result<Node> {
        let (op, function) = match self.peek() {
            Kind::Not => (Kind::Not, "!_"),
            // A sign right before a number belongs to the number.
            Kind::Minus if !matches!(self.ahead(1), Kind::Int | Kind::Float) => (Kind::Minus, "-_"),
            _ => return self.member(),
        };
        let first = self.advance();
        let mut odd = true;
        while self.accept(op).is_some() {
            odd = !odd;
        }
        if !odd {
            return self.member();
        }
        let id = self.id(first.start);
        let node = self.member()?;
        Ok(Node { expr: call(id, function, vec![node.expr]), depth: node.depth })
    }

    fn member(&mut self) -> Result<Node> {
        let mut node = self.primary()?;
        loop {
            node = match self.peek() {
                Kind::Dot if self.ahead(1) == Kind::Identifier && self.ahead(2) == Kind::OpenParen => self.method(node)?,
                Kind::Dot => self.select(node)?,
                Kind::OpenBracket => self.index(node)?,
                _ => return Ok(node),
            };
        }
    }

    fn method(&mut self, target: Node) -> Result<Node> {
        self.take(Kind::Dot)?;
        let name = self.take(Kind::Identifier)?;
        let open = self.take(Kind::OpenParen)?;
        let (args, depth) = self.arguments()?;
        let below = target.depth.max(depth);
        let name = self.source(name);
        let expr = self.call_or_macro(open.start, Some(target.expr), name, args);
        Ok(self.above(expr, below))
    }

    fn select(&mut self, operand: Node) -> Result<Node> {
        let dot = self.take(Kind::Dot)?;
        let optional = self.accept(Kind::Question).is_some();
        let (at, field) = self.field_name()?;
        let expr = if optional {
            let id = self.id(dot.start);
            let name = self.node(at, ExprKind::Literal(Literal::String(field)));
            call(id, "_?._", vec![operand.expr, name])
        } else {
            self.node(dot.start, ExprKind::Select { operand: Box::new(operand.expr), field, test: false })
        };
        Ok(self.above(expr, operand.depth))
    }

    /// A name; one in backquotes is not enabled.
    fn field_name(&mut self) -> Result<(u32, String)> {
        if let Some(token) = self.accept(Kind::Escaped) {
            self.found.push((token.start, "unsupported syntax: '`'".to_owned()));
            return Ok((token.start, String::new()));
        }
        let token = self.take(Kind::Identifier)?;
        Ok((token.start, self.source(token)))
    }

    fn index(&mut self, target: Node) -> Result<Node> {
        let open = self.take(Kind::OpenBracket)?;
        let id = self.id(open.start);
        let function = if self.accept(Kind::Question).is_some() { "_[?_]" } else { "_[_]" };
        let index = self.expr()?;
        self.take(Kind::CloseBracket)?;
        let below = target.depth.max(index.depth);
        Ok(self.above(call(id, function, vec![target.expr, index.expr]), below))
    }

    fn primary(&mut self) -> Result<Node> {
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
        if RESERVED.contains(&text.as_str()) {
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
    fn arguments(&mut self) -> Result<(Vec<Expr>, u32)> {
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

    fn call_or_macro(&mut self, at: u32, target: Option<Expr>, function: String, args: Vec<Expr>) -> Expr {
        match macros::expand(self, at, target, &function, args) {
            macros::Outcome::Expanded(expr) => expr,
            macros::Outcome::Fault(at, message) => self.fault(at, message),
            macros::Outcome::Call(target, args) => self.node(at, ExprKind::Call { target: target.map(Box::new), function, args }),
        }
    }

    fn literal(&mut self) -> Result<Node> {
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

fn call(id: u32, function: &str, args: Vec<Expr>) -> Expr {
    Expr { id, kind: ExprKind::Call { target: None, function: function.to_owned(), args } }
}

fn balanced(function: &str, terms: &mut [Option<Expr>], ids: &[u32], low: usize, high: usize) -> Expr {
    let middle = (low + high).div_ceil(2);
    let leaf = |terms: &mut [Option<Expr>], i: usize| terms[i].take().expect("each term is used once");
    let left = if middle == low { leaf(terms, middle) } else { balanced(function, terms, ids, low, middle - 1) };
    let right = if middle == high { leaf(terms, middle + 1) } else { balanced(function, terms, ids, middle + 1, high) };
    call(ids[middle], function, vec![left, right])
}

fn relation_operator(kind: Kind) -> Option<&'static str> {
    Some(match kind {
        Kind::Less => "_<_",
        Kind::LessEquals => "_<=_",
        Kind::Greater => "_>_",
        Kind::GreaterEquals => "_>=_",
        Kind::Equals => "_==_",
        Kind::NotEquals => "_!=_",
        Kind::In => "@in",
        _ => return None,
    })
}

/// The function and how tightly it binds.
fn calc_operator(kind: Kind) -> Option<(&'static str, u32)> {
    Some(match kind {
        Kind::Star => ("_*_", 2),
        Kind::Slash => ("_/_", 2),
        Kind::Percent => ("_%_", 2),
        Kind::Plus => ("_+_", 1),
        Kind::Minus => ("_-_", 1),
        _ => return None,
    })
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

#[cfg(test)]
mod tests;
