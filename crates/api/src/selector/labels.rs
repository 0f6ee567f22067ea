//! Label selectors in string form: `app in (web, api), tier, !canary`.

use std::fmt;

use super::{Labels, SelectorError};
use crate::field::quoted;
use crate::names;

mod lexer;

use lexer::{Lexer, Token};

/// Requirements that must all hold, sorted by key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelSelector {
    requirements: Vec<Requirement>,
    nothing: bool,
}

/// One requirement on one label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    key: String,
    operator: Operator,
    values: Vec<String>,
}

/// What a requirement asks of a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    /// `key in (a, b)`
    In,
    /// `key notin (a, b)`
    NotIn,
    /// `key=a`
    Equals,
    /// `key==a`
    DoubleEquals,
    /// `key!=a`
    NotEquals,
    /// `key`
    Exists,
    /// `!key`
    DoesNotExist,
    /// `key>1`
    GreaterThan,
    /// `key<1`
    LessThan,
}

// === impl LabelSelector ===

impl LabelSelector {
    /// Matches every object.
    #[must_use]
    pub fn everything() -> Self {
        Self::default()
    }

    /// Matches no object.
    #[must_use]
    pub fn nothing() -> Self {
        Self { requirements: Vec::new(), nothing: true }
    }

    /// Reads the string form.
    ///
    /// # Errors
    ///
    /// [`SelectorError`], whose text is what the reference API server answers.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let mut parser = Parser { tokens: lexer::tokens(text), at: 0 };
        parser.selector().map(Self::of).map_err(SelectorError)
    }

    /// A selector of these requirements.
    #[must_use]
    pub fn of(mut requirements: Vec<Requirement>) -> Self {
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        Self { requirements, nothing: false }
    }

    /// Whether every object matches.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        !self.nothing && self.requirements.is_empty()
    }

    /// Whether no object can match.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        self.nothing
    }

    /// The requirements, sorted by key.
    #[must_use]
    pub fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }

    /// Whether an object with these labels is selected.
    pub fn matches<L: Labels + ?Sized>(&self, labels: &L) -> bool {
        !self.nothing && self.requirements.iter().all(|requirement| requirement.matches(labels))
    }
}

impl fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, requirement) in self.requirements.iter().enumerate() {
            if at > 0 {
                f.write_str(",")?;
            }
            write!(f, "{requirement}")?;
        }
        Ok(())
    }
}

// === impl Requirement ===

impl Requirement {
    /// A requirement whose key and values are right.
    ///
    /// # Errors
    ///
    /// [`SelectorError`] with upstream's texts, several in brackets.
    pub fn new(key: &str, operator: Operator, values: Vec<String>) -> Result<Self, SelectorError> {
        let mut faults: Vec<String> = Vec::new();
        let mut fault = |text: String| {
            if !faults.contains(&text) {
                faults.push(text);
            }
        };
        let key_faults = names::qualified_name(key);
        if !key_faults.is_empty() {
            fault(format!("key: Invalid value: {}: {}", quoted(key), key_faults.join("; ")));
        }
        let listed = || format!("[{}]", values.iter().map(|value| quoted(value)).collect::<Vec<_>>().join(","));
        let one = values.len() == 1;
        match operator {
            Operator::In | Operator::NotIn if values.is_empty() => {
                fault(format!("values: Invalid value: {}: for 'in', 'notin' operators, values set can't be empty", listed()));
            }
            Operator::Equals | Operator::DoubleEquals | Operator::NotEquals if !one => {
                fault(format!("values: Invalid value: {}: exact-match compatibility requires one single value", listed()));
            }
            Operator::Exists | Operator::DoesNotExist if !values.is_empty() => {
                fault(format!("values: Invalid value: {}: values set must be empty for exists and does not exist", listed()));
            }
            Operator::GreaterThan | Operator::LessThan => {
                if !one {
                    fault(format!(
                        "values: Invalid value: {}: for 'Gt', 'Lt' operators, exactly one value is required",
                        listed()
                    ));
                }
                for (at, value) in values.iter().enumerate().filter(|(_, value)| number(value).is_none()) {
                    fault(format!(
                        "values[{at}]: Invalid value: {}: for 'Gt', 'Lt' operators, the value must be an integer",
                        quoted(value)
                    ));
                }
            }
            _ => {}
        }
        for (at, value) in values.iter().enumerate() {
            let value_faults = names::label_value(value);
            if !value_faults.is_empty() {
                fault(format!("values[{at}][{key}]: Invalid value: {}: {}", quoted(value), value_faults.join("; ")));
            }
        }
        match faults.as_slice() {
            [] => Ok(Self { key: key.into(), operator, values }),
            [one] => Err(SelectorError(one.clone())),
            many => Err(SelectorError(format!("[{}]", many.join(", ")))),
        }
    }

    /// `key=value`, unchecked.
    #[must_use]
    pub fn exact(key: &str, value: &str) -> Self {
        Self { key: key.into(), operator: Operator::Equals, values: vec![value.into()] }
    }

    /// The label's key.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    /// What is asked.
    #[must_use]
    pub fn operator(&self) -> Operator {
        self.operator
    }

    /// The values it is compared with.
    #[must_use]
    pub fn values(&self) -> &[String] {
        &self.values
    }

    /// Whether labels meet it.
    pub fn matches<L: Labels + ?Sized>(&self, labels: &L) -> bool {
        let label = labels.label(&self.key);
        let listed = |label: &str| self.values.iter().any(|value| value == label);
        match self.operator {
            Operator::In | Operator::Equals | Operator::DoubleEquals => label.is_some_and(listed),
            Operator::NotIn | Operator::NotEquals => label.is_none_or(|label| !listed(label)),
            Operator::Exists => label.is_some(),
            Operator::DoesNotExist => label.is_none(),
            Operator::GreaterThan | Operator::LessThan => {
                let (Some(label), [bound]) = (label.and_then(number), self.values.as_slice()) else { return false };
                let Some(bound) = number(bound) else { return false };
                if self.operator == Operator::GreaterThan { label > bound } else { label < bound }
            }
        }
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut sorted: Vec<&str> = self.values.iter().map(String::as_str).collect();
        sorted.sort_unstable();
        let (key, values) = (&self.key, sorted.join(","));
        match self.operator {
            Operator::In => write!(f, "{key} in ({values})"),
            Operator::NotIn => write!(f, "{key} notin ({values})"),
            Operator::Equals => write!(f, "{key}={values}"),
            Operator::DoubleEquals => write!(f, "{key}=={values}"),
            Operator::NotEquals => write!(f, "{key}!={values}"),
            Operator::Exists => write!(f, "{key}"),
            Operator::DoesNotExist => write!(f, "!{key}"),
            Operator::GreaterThan => write!(f, "{key}>{values}"),
            Operator::LessThan => write!(f, "{key}<{values}"),
        }
    }
}

/// A whole number as Go reads it: a sign is allowed.
fn number(text: &str) -> Option<i64> {
    text.parse().ok()
}

// === impl Parser ===

/// Recursive descent over the tokens. Where values are expected, `in` and `notin` are values.
struct Parser<'a> {
    tokens: Vec<Lexer<'a>>,
    at: usize,
}

impl<'a> Parser<'a> {
    fn peek(&self) -> (Token, &'a str) {
        let Lexer { token, text } = self.tokens.get(self.at).copied().unwrap_or(Lexer { token: Token::End, text: "" });
        match token {
            Token::In | Token::NotIn => (Token::Identifier, text),
            token => (token, text),
        }
    }

    fn next(&mut self) -> (Token, &'a str) {
        let next = self.peek();
        self.at += 1;
        next
    }

    fn selector(&mut self) -> Result<Vec<Requirement>, String> {
        let mut requirements = Vec::new();
        loop {
            match self.peek() {
                (Token::Identifier | Token::Not, _) => {
                    let requirement = self.requirement().map_err(|err| format!("unable to parse requirement: {err}"))?;
                    requirements.push(requirement);
                    match self.next() {
                        (Token::End, _) => return Ok(requirements),
                        (Token::Comma, _) => {
                            let (token, text) = self.peek();
                            if !matches!(token, Token::Identifier | Token::Not) {
                                return Err(format!("found '{text}', expected: identifier after ','"));
                            }
                        }
                        (_, text) => return Err(format!("found '{text}', expected: ',' or 'end of string'")),
                    }
                }
                (Token::End, _) => return Ok(requirements),
                (_, text) => return Err(format!("found '{text}', expected: !, identifier, or 'end of string'")),
            }
        }
    }

    fn requirement(&mut self) -> Result<Requirement, String> {
        let (mut token, mut key) = self.next();
        let negated = token == Token::Not;
        if negated {
            (token, key) = self.next();
        }
        if token != Token::Identifier {
            return Err(format!("found '{key}', expected: identifier"));
        }
        let faults = names::qualified_name(key);
        if !faults.is_empty() {
            return Err(format!("<nil>: Invalid value: {}: {}", quoted(key), faults.join("; ")));
        }
        let ends = matches!(self.peek().0, Token::End | Token::Comma);
        let requirement = |operator, values| Requirement::new(key, operator, values).map_err(|err| err.0);
        if negated {
            return requirement(Operator::DoesNotExist, Vec::new());
        }
        if ends {
            return requirement(Operator::Exists, Vec::new());
        }
        let operator = self.operator()?;
        let values = match operator {
            Operator::In | Operator::NotIn => self.values()?,
            _ => self.exact_value()?,
        };
        requirement(operator, values)
    }

    fn operator(&mut self) -> Result<Operator, String> {
        let found = self.tokens.get(self.at).copied().unwrap_or(Lexer { token: Token::End, text: "" });
        self.at += 1;
        Ok(match found.token {
            Token::In => Operator::In,
            Token::NotIn => Operator::NotIn,
            Token::Equals => Operator::Equals,
            Token::DoubleEquals => Operator::DoubleEquals,
            Token::NotEquals => Operator::NotEquals,
            Token::Greater => Operator::GreaterThan,
            Token::Less => Operator::LessThan,
            _ => return Err(format!("found '{}', expected: in, notin, =, ==, !=, gt, lt", found.text)),
        })
    }

    fn values(&mut self) -> Result<Vec<String>, String> {
        match self.next() {
            (Token::Open, _) => {}
            (_, text) => return Err(format!("found '{text}' expected: '('")),
        }
        match self.peek() {
            (Token::Identifier | Token::Comma, first) => {
                let values = self.identifiers()?;
                match self.next() {
                    (Token::Close, _) => Ok(values),
                    _ => Err(format!("found '{first}', expected: ')'")),
                }
            }
            (Token::Close, _) => {
                self.next();
                Ok(vec![String::new()])
            }
            (_, text) => Err(format!("found '{text}', expected: ',', ')' or identifier")),
        }
    }

    /// Identifiers up to the closing parenthesis, sorted, each once; nothing between commas is the empty value.
    fn identifiers(&mut self) -> Result<Vec<String>, String> {
        let mut values: Vec<String> = Vec::new();
        let mut insert = |value: &str| {
            if let Err(at) = values.binary_search_by(|known| known.as_str().cmp(value)) {
                values.insert(at, value.into());
            }
        };
        let mut any = false;
        loop {
            match self.next() {
                (Token::Identifier, value) => {
                    insert(value);
                    any = true;
                    match self.peek() {
                        (Token::Comma, _) => {}
                        (Token::Close, _) => return Ok(values),
                        (_, text) => return Err(format!("found '{text}', expected: ',' or ')'")),
                    }
                }
                (Token::Comma, _) => {
                    if !any {
                        insert("");
                        any = true;
                    }
                    match self.peek().0 {
                        Token::Close => {
                            insert("");
                            return Ok(values);
                        }
                        Token::Comma => insert(""),
                        _ => {}
                    }
                }
                (_, text) => return Err(format!("found '{text}', expected: ',', or identifier")),
            }
        }
    }

    fn exact_value(&mut self) -> Result<Vec<String>, String> {
        if matches!(self.peek().0, Token::End | Token::Comma) {
            return Ok(vec![String::new()]);
        }
        match self.next() {
            (Token::Identifier, value) => Ok(vec![value.into()]),
            (_, text) => Err(format!("found '{text}', expected: identifier")),
        }
    }
}
