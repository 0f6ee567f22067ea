//! Finds the type of every part of an expression, and what does not fit.

use crate::ast::{Comprehension, Element, Entry, Expr, ExprKind, Field, Literal};
use crate::declare::Overload;
use crate::environment::{Checked, Environment};
use crate::issue::Issues;
use crate::parse::Parsed;
use crate::types::{Type, Unifier, most_general};

/// Checks `parsed`; names in the tree become the full names of what they refer to.
pub(crate) fn check(environment: &Environment, parsed: Parsed, issues: &mut Issues) -> Checked {
    let Parsed { mut expr, offsets } = parsed;
    let types = vec![Type::Error; offsets.len()];
    let mut checker = Checker { environment, offsets, types, scopes: Vec::new(), unifier: Unifier::default(), issues };
    checker.check(&mut expr);
    let Checker { offsets, types, unifier, .. } = checker;
    let types = types.into_iter().map(|kind| unifier.resolve(&kind, true)).collect();
    Checked { expr, types, offsets }
}

struct Checker<'a> {
    environment: &'a Environment,
    offsets: Vec<u32>,
    types: Vec<Type>,
    /// The variables of folds, the innermost last.
    scopes: Vec<(String, Type)>,
    unifier: Unifier,
    issues: &'a mut Issues,
}

impl Checker<'_> {
    fn check(&mut self, expr: &mut Expr) -> Type {
        let id = expr.id;
        let kind = match &mut expr.kind {
            ExprKind::Literal(literal) => literal_type(literal),
            ExprKind::Ident(name) => self.ident(id, name),
            ExprKind::Select { .. } => self.select(expr),
            ExprKind::Call { .. } => self.call(expr),
            ExprKind::List(elements) => self.list(elements),
            ExprKind::Map(entries) => self.map(entries),
            ExprKind::Struct { name, fields } => self.message(id, name, fields),
            ExprKind::Comprehension(fold) => self.fold(fold),
        };
        self.types[id as usize] = kind.clone();
        kind
    }

    fn kind(&self, expr: &Expr) -> Type {
        self.types[expr.id as usize].clone()
    }

    fn fault(&mut self, id: u32, message: impl Into<String>) {
        let at = self.offsets.get(id as usize).copied();
        self.issues.report(at, message);
    }

    fn undeclared(&mut self, id: u32, name: &str) -> Type {
        self.fault(id, format!("undeclared reference to '{name}' (in container '')"));
        Type::Error
    }

    fn mismatch(&mut self, id: u32, expected: &Type, actual: &Type) {
        self.fault(id, format!("expected type '{}' but found '{}'", expected.shown(), actual.shown()));
    }

    fn local(&self, name: &str) -> Option<&Type> {
        self.scopes.iter().rev().find(|(scoped, _)| scoped == name).map(|(_, kind)| kind)
    }

    fn ident(&mut self, id: u32, name: &mut String) -> Type {
        if let Some(local) = self.local(name) {
            return local.clone();
        }
        let full = name.strip_prefix('.').unwrap_or(name);
        match self.environment.name(full) {
            Some(kind) => {
                // A dot stays where a fold's variable would hide the name.
                if full.len() != name.len() && self.local(full).is_none() {
                    *name = full.to_owned();
                }
                kind
            }
            None => self.undeclared(id, &name.clone()),
        }
    }

    fn select(&mut self, expr: &mut Expr) -> Type {
        if let Some(name) = qualified(expr) {
            let root = name.split('.').next().unwrap_or_default();
            let full = name.strip_prefix('.').unwrap_or(&name);
            if (name.starts_with('.') || self.local(root).is_none())
                && let Some(kind) = self.environment.name(full)
            {
                expr.kind = ExprKind::Ident(full.to_owned());
                return kind;
            }
        }
        let id = expr.id;
        let ExprKind::Select { operand, field, test } = &mut expr.kind else { return Type::Error };
        let kind = self.select_field(id, operand, field, false);
        if *test { Type::Bool } else { self.unifier.resolve(&kind, false) }
    }

    fn select_field(&mut self, id: u32, operand: &mut Expr, field: &str, optional: bool) -> Type {
        let operand = self.check(operand);
        let operand = self.unifier.resolve(&operand, false);
        let inner = operand.unwrapped();
        let target = inner.unwrap_or(&operand);
        let result = match target {
            Type::Map(pair) => pair.1.clone(),
            Type::Struct(name) => self.field_type(id, name, field).unwrap_or(Type::Error),
            Type::Var(_) => {
                self.unifier.assignable(&Type::Dyn, target);
                Type::Dyn
            }
            _ => {
                if !target.is_dyn_or_error() {
                    self.fault(id, format!("type '{}' does not support field selection", target.shown()));
                }
                Type::Dyn
            }
        };
        if optional || inner.is_some() { Type::optional(result) } else { result }
    }

    fn field_type(&mut self, id: u32, message: &str, field: &str) -> Option<Type> {
        if !self.environment.has_message(message) {
            self.fault(id, format!("unexpected failed resolution of '{message}'"));
            return None;
        }
        let found = self.environment.field(message, field);
        if found.is_none() {
            self.fault(id, format!("undefined field '{field}'"));
        }
        found
    }

    fn call(&mut self, expr: &mut Expr) -> Type {
        let id = expr.id;
        let ExprKind::Call { target, function, args } = &mut expr.kind else { return Type::Error };
        if function == "_?._" {
            return self.optional_select(id, args);
        }
        for arg in args.iter_mut() {
            self.check(arg);
        }
        let environment = self.environment;
        let Some(receiver) = target else {
            let name = function.strip_prefix('.').unwrap_or(function);
            let Some(overloads) = environment.functions().get(name) else {
                return self.undeclared(id, &function.clone());
            };
            *function = name.to_owned();
            return self.resolve(id, function, overloads, None, args);
        };
        if let Some(prefix) = qualified(receiver) {
            let name = format!("{}.{function}", prefix.strip_prefix('.').unwrap_or(&prefix));
            if let Some(overloads) = environment.functions().get(&name) {
                *target = None;
                *function = name;
                return self.resolve(id, function, overloads, None, args);
            }
        }
        self.check(receiver);
        match environment.functions().get(function) {
            Some(overloads) => self.resolve(id, function, overloads, Some(receiver), args),
            None => self.undeclared(id, &function.clone()),
        }
    }

    fn optional_select(&mut self, id: u32, args: &mut [Expr]) -> Type {
        let [operand, field] = args else { return Type::Error };
        self.types[field.id as usize] = Type::String;
        let ExprKind::Literal(Literal::String(name)) = &field.kind else { return Type::Error };
        let kind = self.select_field(id, operand, &name.clone(), true);
        self.unifier.resolve(&kind, false)
    }

    fn resolve(
        &mut self,
        id: u32,
        function: &str,
        overloads: &[std::sync::Arc<Overload>],
        target: Option<&Expr>,
        args: &[Expr],
    ) -> Type {
        let types: Vec<Type> = target.into_iter().chain(args).map(|arg| self.kind(arg)).collect();
        if matches!(function, "_&&_" | "_||_") {
            return self.logic(args, &types);
        }
        let mut result: Option<Type> = None;
        for overload in overloads.iter().filter(|overload| overload.method == target.is_some()) {
            let (wanted, returned) = self.instance(overload);
            if self.unifier.all_assignable(&types, &wanted) {
                let returned = self.unifier.resolve(&returned, false);
                result = match result {
                    None => Some(returned),
                    Some(first) if first.is_dyn() || first == returned => Some(first),
                    Some(_) => Some(Type::Dyn),
                };
            }
        }
        result.unwrap_or_else(|| {
            let shown: Vec<String> = types.iter().map(|kind| self.unifier.resolve(kind, true).shown()).collect();
            let signature = match (target, shown.split_first()) {
                (Some(_), Some((receiver, rest))) => format!("{receiver}.({})", rest.join(", ")),
                _ => format!("({})", shown.join(", ")),
            };
            self.fault(id, format!("found no matching overload for '{function}' applied to '{signature}'"));
            Type::Error
        })
    }

    fn logic(&mut self, args: &[Expr], types: &[Type]) -> Type {
        let mut result = Type::Bool;
        for (arg, kind) in args.iter().zip(types) {
            if !self.unifier.assignable(kind, &Type::Bool) {
                self.mismatch(arg.id, &Type::Bool, kind);
                result = Type::Error;
            }
        }
        result
    }

    /// The arguments and result of `overload` with types of their own for its letters.
    fn instance(&mut self, overload: &Overload) -> (Vec<Type>, Type) {
        if overload.params.is_empty() {
            return (overload.args.clone(), overload.result.clone());
        }
        let vars: Vec<(char, Type)> = overload.params.iter().map(|letter| (*letter, self.unifier.fresh())).collect();
        let args = overload.args.iter().map(|arg| filled(arg, &vars)).collect();
        (args, filled(&overload.result, &vars))
    }

    fn list(&mut self, elements: &mut [Element]) -> Type {
        let mut joined = None;
        for element in elements {
            let mut kind = self.check(&mut element.value);
            if element.optional {
                kind = self.unwrap_optional(element.value.id, kind);
            }
            joined = Some(self.join(element.value.id, joined, kind));
        }
        Type::list(joined.unwrap_or_else(|| self.unifier.fresh()))
    }

    fn map(&mut self, entries: &mut [Entry]) -> Type {
        let (mut keys, mut values) = (None, None);
        for entry in entries {
            let key = self.check(&mut entry.key);
            keys = Some(self.join(entry.key.id, keys, key));
            let mut value = self.check(&mut entry.value);
            if entry.optional {
                value = self.unwrap_optional(entry.value.id, value);
            }
            values = Some(self.join(entry.value.id, values, value));
        }
        let keys = keys.unwrap_or_else(|| self.unifier.fresh());
        Type::map(keys, values.unwrap_or_else(|| self.unifier.fresh()))
    }

    fn unwrap_optional(&mut self, id: u32, kind: Type) -> Type {
        if let Some(inner) = kind.unwrapped() {
            return inner.clone();
        }
        if !kind.is_dyn() {
            self.mismatch(id, &Type::optional(kind.clone()), &kind);
        }
        kind
    }

    /// The type of several items: literals hold items of one type.
    fn join(&mut self, id: u32, previous: Option<Type>, current: Type) -> Type {
        let Some(previous) = previous else { return current };
        if self.unifier.assignable(&previous, &current) {
            return most_general(&previous, &current).clone();
        }
        self.mismatch(id, &previous, &current);
        Type::Error
    }

    fn message(&mut self, id: u32, name: &mut String, fields: &mut [Field]) -> Type {
        let full = name.strip_prefix('.').unwrap_or(name);
        let Some(result) = self.environment.type_name(full) else {
            return self.undeclared(id, &name.clone());
        };
        if !matches!(result, Type::Struct(_)) {
            self.fault(id, format!("'{result}' is not a message type"));
        }
        *name = full.to_owned();
        for field in fields {
            let mut value = self.check(&mut field.value);
            let wanted = self.field_type(field.id, name, &field.name).unwrap_or(Type::Error);
            if field.optional {
                value = self.unwrap_optional(field.value.id, value);
            }
            if !self.unifier.assignable(&wanted, &value) {
                let (wanted, value) = (wanted.shown(), value.shown());
                let message = format!("expected type of field '{}' is '{wanted}' but provided type is '{value}'", field.name);
                self.fault(field.id, message);
            }
        }
        if matches!(result, Type::Struct(_)) { result } else { Type::Error }
    }

    fn fold(&mut self, fold: &mut Comprehension) -> Type {
        let range = self.check(&mut fold.range);
        let accu = self.check(&mut fold.init);
        let range = self.unifier.resolve(&range, false);
        let outer = self.scopes.len();
        self.scopes.push((fold.accu.clone(), accu.clone()));
        let inner = self.scopes.len();
        let (first, second) = self.items(fold.range.id, &range, fold.second.is_some());
        self.scopes.push((fold.variable.clone(), first));
        if let Some(name) = &fold.second {
            self.scopes.push((name.clone(), second));
        }
        self.check(&mut fold.condition);
        self.expect(&fold.condition, &Type::Bool);
        self.check(&mut fold.step);
        self.expect(&fold.step, &accu);
        self.scopes.truncate(inner);
        let result = self.check(&mut fold.result);
        self.scopes.truncate(outer);
        self.unifier.resolve(&result, false)
    }

    /// The types of a fold's variables.
    fn items(&mut self, id: u32, range: &Type, two: bool) -> (Type, Type) {
        match range {
            Type::List(item) if two => (Type::Int, (**item).clone()),
            Type::List(item) => ((**item).clone(), Type::Error),
            Type::Map(pair) => (pair.0.clone(), pair.1.clone()),
            Type::Dyn | Type::Error | Type::Var(_) => {
                self.unifier.assignable(&Type::Dyn, range);
                (Type::Dyn, Type::Dyn)
            }
            _ => {
                let shown = range.shown();
                let message =
                    format!("expression of type '{shown}' cannot be range of a comprehension (must be list, map, or dynamic)");
                self.fault(id, message);
                (Type::Error, Type::Error)
            }
        }
    }

    fn expect(&mut self, expr: &Expr, expected: &Type) {
        let actual = self.kind(expr);
        if !self.unifier.assignable(expected, &actual) {
            self.mismatch(expr.id, expected, &actual);
        }
    }
}

fn literal_type(literal: &Literal) -> Type {
    match literal {
        Literal::Null => Type::Null,
        Literal::Bool(_) => Type::Bool,
        Literal::Int(_) => Type::Int,
        Literal::Uint(_) => Type::Uint,
        Literal::Double(_) => Type::Double,
        Literal::String(_) => Type::String,
        Literal::Bytes(_) => Type::Bytes,
    }
}

/// The dotted name that `expr` may be, a leading dot kept.
fn qualified(expr: &Expr) -> Option<String> {
    let (mut parts, mut expr) = (Vec::new(), expr);
    loop {
        match &expr.kind {
            ExprKind::Ident(name) => {
                parts.push(name.as_str());
                parts.reverse();
                return Some(parts.join("."));
            }
            ExprKind::Select { operand, field, test: false } => {
                parts.push(field);
                expr = operand;
            }
            _ => return None,
        }
    }
}

fn filled(kind: &Type, vars: &[(char, Type)]) -> Type {
    let inner = |kind: &Type| filled(kind, vars);
    match kind {
        Type::Param(letter) => {
            vars.iter().find(|(known, _)| known == letter).map_or_else(|| kind.clone(), |(_, var)| var.clone())
        }
        Type::List(item) => Type::list(inner(item)),
        Type::Map(pair) => Type::map(inner(&pair.0), inner(&pair.1)),
        Type::Opaque(name, params) => Type::Opaque(name.clone(), params.iter().map(inner).collect()),
        Type::Type(Some(of)) => Type::Type(Some(std::sync::Arc::new(inner(of)))),
        _ => kind.clone(),
    }
}

#[cfg(test)]
mod tests;
