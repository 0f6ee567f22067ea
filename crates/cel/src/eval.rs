//! Runs a checked expression. What it may cost is limited, in upstream's units: one for each name, selection and call, more for
//! what is made and for texts that are gone through.

use std::borrow::Cow;
use std::rc::Rc;

use crate::ast::{Comprehension, Expr, ExprKind, Literal};
use crate::environment::Checked;
use crate::functions;
use crate::value::{EvalError, List, Map, Value};

/// What one expression may cost.
pub const PER_CALL_LIMIT: u64 = 1_000_000;

/// How deep an expression may nest while it runs, so that it fits the stack of a server's thread.
const MAX_DEPTH: u32 = 400;

const LIST_COST: u64 = 10;
const MAP_COST: u64 = 30;
const STRUCT_COST: u64 = 40;

/// Gives a variable its value.
pub type Variables<'e, 'a> = &'e dyn Fn(&str) -> Option<Value<'a>>;

/// The value of an expression, and what it cost whether or not it has one.
#[derive(Debug)]
pub struct Outcome<'a> {
    /// The value.
    pub value: Result<Value<'a>, EvalError>,
    /// The cost.
    pub cost: u64,
}

/// Runs `checked` with `variables`; it may cost `limit`.
pub fn evaluate<'e, 'a>(checked: &'e Checked, variables: Variables<'e, 'a>, limit: u64) -> Outcome<'a> {
    let mut run = Run { variables, scopes: Vec::new(), cost: 0, limit, depth: 0 };
    let value = run.value(&checked.expr);
    Outcome { value, cost: run.cost }
}

type Result<T, E = EvalError> = std::result::Result<T, E>;

struct Run<'e, 'a> {
    variables: Variables<'e, 'a>,
    scopes: Vec<(&'e str, Value<'a>)>,
    cost: u64,
    limit: u64,
    depth: u32,
}

impl<'e, 'a> Run<'e, 'a> {
    fn charge(&mut self, cost: u64) -> Result<()> {
        self.cost = self.cost.saturating_add(cost);
        if self.cost > self.limit { Err(EvalError::TooCostly) } else { Ok(()) }
    }

    fn value(&mut self, expr: &'e Expr) -> Result<Value<'a>> {
        if self.depth == MAX_DEPTH {
            return Err(EvalError::failed("expression nests too deep"));
        }
        self.depth += 1;
        let value = self.value_here(expr);
        self.depth -= 1;
        value
    }

    fn value_here(&mut self, expr: &'e Expr) -> Result<Value<'a>> {
        match &expr.kind {
            ExprKind::Literal(literal) => Ok(literal_value(literal)),
            ExprKind::Ident(name) => {
                self.charge(1)?;
                self.name(name)
            }
            ExprKind::Select { operand, field, test } => {
                let operand = self.value(operand)?;
                self.charge(u64::from(!*test))?;
                if *test { has(&operand, field).map(Value::Bool) } else { select(&operand, field) }
            }
            ExprKind::Call { target, function, args } => self.call(target.as_deref(), function, args),
            ExprKind::List(elements) => {
                self.charge(LIST_COST)?;
                let mut items = Vec::with_capacity(elements.len());
                for element in elements {
                    let value = self.value(&element.value)?;
                    items.extend(present(value, element.optional)?);
                }
                Ok(Value::list(items))
            }
            ExprKind::Map(entries) => {
                self.charge(MAP_COST)?;
                let mut made: Vec<(Value<'a>, Value<'a>)> = Vec::with_capacity(entries.len());
                for entry in entries {
                    let key = self.value(&entry.key)?;
                    let value = self.value(&entry.value)?;
                    if let Some(value) = present(value, entry.optional)? {
                        if made.iter().any(|(known, _)| *known == key) {
                            return Err(EvalError::failed(format!("Failed with repeated key: {}", functions::shown(&key))));
                        }
                        made.push((key, value));
                    }
                }
                Ok(Value::Map(Map::Made(Rc::new(made))))
            }
            ExprKind::Struct { fields, .. } => {
                self.charge(STRUCT_COST)?;
                let mut made = Vec::with_capacity(fields.len());
                for field in fields {
                    let value = self.value(&field.value)?;
                    if let Some(value) = present(value, field.optional)? {
                        made.push((Value::text(field.name.as_str()), value));
                    }
                }
                Ok(Value::Map(Map::Made(Rc::new(made))))
            }
            ExprKind::Comprehension(fold) => self.fold(fold),
        }
    }

    fn name(&self, name: &str) -> Result<Value<'a>> {
        if let Some((_, value)) = self.scopes.iter().rev().find(|(scoped, _)| *scoped == name) {
            return Ok(value.clone());
        }
        let name = name.strip_prefix('.').unwrap_or(name);
        if let Some(value) = (self.variables)(name) {
            return Ok(value);
        }
        match name {
            "bool"
            | "bytes"
            | "double"
            | "google.protobuf.Duration"
            | "google.protobuf.Timestamp"
            | "int"
            | "list"
            | "map"
            | "null_type"
            | "optional_type"
            | "string"
            | "type"
            | "uint" => Ok(Value::Type(Cow::Owned(name.to_owned()))),
            _ => Err(EvalError::failed(format!("no such attribute(s): {name}"))),
        }
    }

    fn call(&mut self, target: Option<&'e Expr>, function: &str, args: &'e [Expr]) -> Result<Value<'a>> {
        match (function, args) {
            ("_&&_", [left, right]) => return self.logic(left, right, false),
            ("_||_", [left, right]) => return self.logic(left, right, true),
            ("_?_:_", [condition, yes, no]) => {
                return match self.value(condition)? {
                    Value::Bool(true) => self.value(yes),
                    Value::Bool(false) => self.value(no),
                    _ => Err(EvalError::NoSuchOverload),
                };
            }
            ("@not_strictly_false", [value]) => {
                let value = self.value(value);
                return match value {
                    Err(EvalError::TooCostly) => Err(EvalError::TooCostly),
                    value => Ok(Value::Bool(!matches!(value, Ok(Value::Bool(false))))),
                };
            }
            ("_?._", [operand, Expr { kind: ExprKind::Literal(Literal::String(field)), .. }]) => {
                let operand = self.value(operand)?;
                self.charge(1)?;
                return optional_select(&operand, &Value::text(field.as_str()));
            }
            // What a fold collects grows in place.
            ("_+_", [Expr { kind: ExprKind::Ident(accu), .. }, Expr { kind: ExprKind::List(_), .. }]) if accu == "@result" => {
                return self.append(&args[1]);
            }
            ("orValue" | "or", [other]) => {
                let Some(target) = target else { return Err(EvalError::NoSuchOverload) };
                let value = self.value(target)?;
                self.charge(1)?;
                return match value {
                    Value::Optional(Some(inner)) if function == "orValue" => Ok((*inner).clone()),
                    Value::Optional(Some(_)) => Ok(value),
                    Value::Optional(None) => self.value(other),
                    _ => Err(EvalError::NoSuchOverload),
                };
            }
            _ => {}
        }
        let mut values = Vec::with_capacity(args.len() + 1);
        for arg in target.into_iter().chain(args) {
            values.push(self.value(arg)?);
        }
        self.charge(1 + functions::cost(function, &values))?;
        functions::call(function, target.is_some(), &values)
    }

    /// `&&` and `||`: either side may settle the result, even if the other one fails.
    fn logic(&mut self, left: &'e Expr, right: &'e Expr, settles: bool) -> Result<Value<'a>> {
        let first = self.value(left);
        match first {
            Ok(Value::Bool(value)) if value == settles => return Ok(Value::Bool(settles)),
            Err(EvalError::TooCostly) => return first,
            _ => {}
        }
        match (first, self.value(right)) {
            (_, Ok(Value::Bool(value))) if value == settles => Ok(Value::Bool(settles)),
            (_, Err(EvalError::TooCostly)) => Err(EvalError::TooCostly),
            (Err(fault), _) | (Ok(Value::Bool(_)), Err(fault)) => Err(fault),
            (Ok(Value::Bool(_)), Ok(Value::Bool(_))) => Ok(Value::Bool(!settles)),
            _ => Err(EvalError::NoSuchOverload),
        }
    }

    fn append(&mut self, items: &'e Expr) -> Result<Value<'a>> {
        let added = self.value(items)?;
        self.charge(2)?;
        let Some(slot) = self.scopes.iter_mut().rev().find(|(name, _)| *name == "@result") else {
            return Err(EvalError::NoSuchOverload);
        };
        match (std::mem::replace(&mut slot.1, Value::Null), added) {
            (Value::List(List::Made(mut list)), Value::List(added)) => {
                Rc::make_mut(&mut list).extend(added.iter());
                Ok(Value::List(List::Made(list)))
            }
            _ => Err(EvalError::NoSuchOverload),
        }
    }

    fn fold(&mut self, fold: &'e Comprehension) -> Result<Value<'a>> {
        let range = self.value(&fold.range)?;
        let init = self.value(&fold.init);
        let outer = self.scopes.len();
        let items: Vec<(Value<'a>, Value<'a>)> = match &range {
            Value::List(list) => {
                let items = list.iter().zip(0..);
                items.map(|(item, at)| if fold.second.is_some() { (Value::Int(at), item) } else { (item, Value::Null) }).collect()
            }
            Value::Map(map) => map.entries(),
            _ => return Err(EvalError::NoSuchOverload),
        };
        let mut accu = init;
        for (first, second) in items {
            self.scopes.push((fold.variable.as_str(), first));
            if let Some(name) = &fold.second {
                self.scopes.push((name.as_str(), second));
            }
            let (next, more) = match accu {
                Ok(value) => self.step(fold, value),
                Err(fault) => self.step_after_fault(fold, fault),
            };
            self.scopes.truncate(outer);
            accu = next;
            if !more {
                break;
            }
        }
        self.scopes.push((fold.accu.as_str(), accu?));
        let result = self.value(&fold.result);
        self.scopes.truncate(outer);
        result
    }

    /// The next value of what is accumulated, and whether there may be another.
    fn step(&mut self, fold: &'e Comprehension, accu: Value<'a>) -> (Result<Value<'a>>, bool) {
        // Variables were pushed before, so one of the same name would be hidden; macros refuse such names.
        let place = self.scopes.len();
        self.scopes.push((fold.accu.as_str(), accu));
        match self.value(&fold.condition) {
            Ok(Value::Bool(true)) => (self.value(&fold.step), true),
            Ok(_) => (Ok(std::mem::replace(&mut self.scopes[place].1, Value::Null)), false),
            Err(fault) => (Err(fault), false),
        }
    }

    /// A step of `all` or `exists` after an item failed: another item may still settle the result.
    fn step_after_fault(&mut self, fold: &'e Comprehension, fault: EvalError) -> (Result<Value<'a>>, bool) {
        let (settles, predicate) = match &fold.step.kind {
            ExprKind::Call { function, args, .. } if function == "_||_" => (true, args.last()),
            ExprKind::Call { function, args, .. } if function == "_&&_" => (false, args.last()),
            _ => return (Err(fault), false),
        };
        let Some(predicate) = predicate.filter(|_| fault != EvalError::TooCostly) else { return (Err(fault), false) };
        match self.value(predicate) {
            Ok(Value::Bool(value)) if value == settles => (Ok(Value::Bool(settles)), false),
            Err(EvalError::TooCostly) => (Err(EvalError::TooCostly), false),
            _ => (Err(fault), true),
        }
    }
}

fn literal_value<'a>(literal: &Literal) -> Value<'a> {
    match literal {
        Literal::Null => Value::Null,
        Literal::Bool(value) => Value::Bool(*value),
        Literal::Int(value) => Value::Int(*value),
        Literal::Uint(value) => Value::Uint(*value),
        Literal::Double(value) => Value::Double(*value),
        Literal::String(text) => Value::text(text.as_str()),
        Literal::Bytes(bytes) => Value::Bytes(bytes.as_slice().into()),
    }
}

/// The value of an element that may be an optional one.
fn present(value: Value<'_>, optional: bool) -> Result<Option<Value<'_>>> {
    match value {
        value if !optional => Ok(Some(value)),
        Value::Optional(value) => Ok(value.map(|value| (*value).clone())),
        _ => Err(EvalError::NoSuchOverload),
    }
}

fn has(operand: &Value<'_>, field: &str) -> Result<bool> {
    match operand {
        Value::Map(map) => Ok(map.get(&Value::text(field)).is_some()),
        Value::Host(host) => Ok(host.field(field).is_ok()),
        Value::Optional(None) => Ok(false),
        Value::Optional(Some(inner)) => has(inner, field),
        _ => Err(EvalError::NoSuchOverload),
    }
}

pub(crate) fn select<'a>(operand: &Value<'a>, field: &str) -> Result<Value<'a>> {
    match operand {
        Value::Map(map) => map.get(&Value::text(field)).ok_or_else(|| EvalError::NoSuchKey(field.to_owned())),
        Value::Host(host) => host.field(field),
        Value::Optional(_) => optional_select(operand, &Value::text(field)),
        _ => Err(EvalError::NoSuchOverload),
    }
}

/// `a.?b` and `a[?b]`.
pub(crate) fn optional_select<'a>(operand: &Value<'a>, key: &Value<'a>) -> Result<Value<'a>> {
    let found = match operand {
        Value::Optional(None) => None,
        Value::Optional(Some(inner)) => return optional_select(inner, key),
        Value::Map(map) => map.get(key),
        Value::Host(host) => key.as_str().and_then(|name| host.field(name).ok()),
        Value::List(list) => match key {
            Value::Int(index) => usize::try_from(*index).ok().and_then(|index| list.get(index)),
            _ => return Err(EvalError::NoSuchOverload),
        },
        _ => return Err(EvalError::NoSuchOverload),
    };
    Ok(Value::Optional(found.map(Rc::new)))
}

#[cfg(test)]
mod tests;
