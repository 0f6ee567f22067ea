//! Declarations of functions, written as lines of text: `name(int, list(A)) -> A`, or `.name(string, int) -> bool` for a method
//! whose receiver is the first argument. A capital letter is any type, the same one wherever the letter occurs.

use std::collections::HashMap;
use std::sync::Arc;

use crate::types::Type;

/// Types of libraries that have no fields.
const OPAQUE: [&str; 2] = ["net.IP", "net.CIDR"];

/// One signature of a function.
#[derive(Debug)]
pub(crate) struct Overload {
    pub(crate) method: bool,
    pub(crate) args: Vec<Type>,
    pub(crate) result: Type,
    /// The letters that stand for any type.
    pub(crate) params: Vec<char>,
}

/// Functions by name, their signatures in the order in which they are tried.
#[derive(Debug, Default, Clone)]
pub(crate) struct Functions(HashMap<&'static str, Vec<Arc<Overload>>>);

impl Functions {
    pub(crate) fn get(&self, name: &str) -> Option<&[Arc<Overload>]> {
        self.0.get(name).map(Vec::as_slice)
    }

    /// Adds the declarations in `lines`; empty lines are skipped.
    pub(crate) fn declare(&mut self, lines: &'static str) {
        for line in lines.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let (name, overload) = overload(line);
            self.0.entry(name).or_default().push(Arc::new(overload));
        }
    }
}

fn overload(line: &'static str) -> (&'static str, Overload) {
    let (left, result) = line.rsplit_once(" -> ").expect("a declaration has a result");
    let (name, args) = left.split_once('(').expect("a declaration has arguments");
    let (args, rest) = types(args);
    assert_eq!(rest, ")", "a declaration's arguments end: {line}");
    let (result, rest) = kind(result);
    assert!(rest.is_empty(), "a declaration ends with its result: {line}");
    let mut params = Vec::new();
    args.iter().for_each(|arg| letters(arg, &mut params));
    letters(&result, &mut params);
    let method = name.starts_with('.');
    (name.trim_start_matches('.'), Overload { method, args, result, params })
}

fn letters(kind: &Type, into: &mut Vec<char>) {
    match kind {
        Type::Param(letter) if !into.contains(letter) => into.push(*letter),
        Type::List(item) => letters(item, into),
        Type::Map(pair) => {
            letters(&pair.0, into);
            letters(&pair.1, into);
        }
        Type::Opaque(_, params) => params.iter().for_each(|param| letters(param, into)),
        Type::Type(Some(of)) => letters(of, into),
        _ => {}
    }
}

/// Types between commas, and what follows them.
fn types(text: &str) -> (Vec<Type>, &str) {
    let (mut found, mut rest) = (Vec::new(), text);
    while !rest.starts_with(')') {
        let (next, after) = kind(rest);
        found.push(next);
        rest = after.strip_prefix(", ").unwrap_or(after);
    }
    (found, rest)
}

/// The type at the start of `text`, and what follows it.
fn kind(text: &str) -> (Type, &str) {
    let len = text.find(['(', ')', ',']).unwrap_or(text.len());
    let (name, mut rest) = text.split_at(len);
    let mut params = Vec::new();
    if let Some(inner) = rest.strip_prefix('(') {
        let (inner, after) = types(inner);
        params = inner;
        rest = &after[1..];
    }
    let mut params = params.into_iter();
    let mut param = || params.next().expect("the type has its parameters");
    let found = match name {
        "any" => Type::Any,
        "bool" => Type::Bool,
        "bytes" => Type::Bytes,
        "double" => Type::Double,
        "duration" => Type::Duration,
        "dyn" => Type::Dyn,
        "int" => Type::Int,
        "list" => Type::list(param()),
        "map" => Type::map(param(), param()),
        "null" => Type::Null,
        "optional" => Type::optional(param()),
        "string" => Type::String,
        "timestamp" => Type::Timestamp,
        "type" => Type::Type(Some(Arc::new(param()))),
        "uint" => Type::Uint,
        _ if name.len() == 1 => Type::Param(name.chars().next().expect("the name has a letter")),
        _ if OPAQUE.contains(&name) => Type::Opaque(name.into(), [].into()),
        _ => Type::structure(name),
    };
    (found, rest)
}
