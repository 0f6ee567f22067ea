//! What upstream's environment checks once the types fit: literal arguments that could never be read, and literals that mix
//! types where the checker lets `dyn` pass.

use crate::ast::{Expr, ExprKind, Literal};
use crate::environment::Checked;
use crate::functions::time::{self, Time};
use crate::issue::Issues;
use crate::types::Type;

/// Reports what is wrong with `checked`.
pub(crate) fn validate(checked: &Checked, issues: &mut Issues) {
    visit(checked, &checked.expr, false, issues);
}

/// `mixed` allows literals of mixed types: the arguments of `format` are printed, not compared.
fn visit(checked: &Checked, expr: &Expr, mixed: bool, issues: &mut Issues) {
    let mut mixed = mixed;
    match &expr.kind {
        ExprKind::Call { function, args, .. } => {
            mixed |= function == "format";
            if let Some(Expr { id, kind: ExprKind::Literal(literal) }) = args.first()
                && !is_readable(function, literal)
            {
                report(checked, *id, format!("invalid {function} argument"), issues);
            }
        }
        ExprKind::List(elements) if !mixed => {
            let types = elements.iter().map(|element| (element.value.id, item_type(checked, &element.value, element.optional)));
            // One fault for a list is enough.
            same(checked, types, true, issues);
        }
        ExprKind::Map(entries) if !mixed => {
            same(checked, entries.iter().map(|entry| (entry.key.id, item_type(checked, &entry.key, false))), false, issues);
            let values = entries.iter().map(|entry| (entry.value.id, item_type(checked, &entry.value, entry.optional)));
            same(checked, values, false, issues);
        }
        _ => {}
    }
    for child in expr.children() {
        visit(checked, child, mixed, issues);
    }
}

fn item_type<'a>(checked: &'a Checked, expr: &Expr, optional: bool) -> &'a Type {
    let kind = &checked.types[expr.id as usize];
    if optional { kind.unwrapped().unwrap_or(kind) } else { kind }
}

fn same<'a>(checked: &Checked, mut types: impl Iterator<Item = (u32, &'a Type)>, once: bool, issues: &mut Issues) {
    let Some((_, first)) = types.next() else { return };
    for (id, kind) in types.filter(|(_, kind)| *kind != first) {
        report(checked, id, format!("expected type '{}' but found '{}'", first.shown(), kind.shown()), issues);
        if once {
            return;
        }
    }
}

fn report(checked: &Checked, id: u32, message: String, issues: &mut Issues) {
    issues.report(checked.offsets.get(id as usize).copied(), message);
}

fn is_readable(function: &str, literal: &Literal) -> bool {
    match (function, literal) {
        ("duration", Literal::String(text)) => time::duration(text).is_some(),
        ("timestamp", Literal::String(text)) => Time::parse(text).is_some(),
        ("timestamp", Literal::Int(seconds)) => Time::new(*seconds, 0).is_some(),
        ("matches", Literal::String(text)) => regex::Regex::new(text).is_ok(),
        _ => true,
    }
}
