//! Tokens to a tree, macros expanded on the way. Only well-formed text is parsed here; what is wrong with other text is found
//! by [`crate::syntax`].

mod literal;
mod primary;

use crate::ast::{Expr, ExprKind, Literal};
use crate::issue::Issues;
use crate::lex::{self, Kind, Token};
use crate::syntax;

pub use primary::is_reserved;

/// Longest expression, in characters.
const MAX_LENGTH: usize = 100_000;
/// How deep rules may nest, and how deep the tree may become.
pub(crate) const MAX_DEPTH: u32 = 250;
/// Most nodes after macros are expanded: a macro that repeats its target doubles the tree each time.
const MAX_NODES: usize = 1 << 20;

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

#[cfg(test)]
mod tests;
