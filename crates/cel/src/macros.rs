//! Macros: calls that stand for something longer, mostly folds over a list or map.

use crate::ast::{Comprehension, Element, Expr, ExprKind, Literal};
use crate::parse::Parser;

/// The name of what a fold accumulates; no expression can spell it.
const ACCU: &str = "@result";
/// The name it had once, which is still refused as a variable.
const OLD_ACCU: &str = "__result__";
/// The variable of a fold that runs over nothing, only to name a value.
const UNUSED: &str = "#unused";

/// What became of a call.
pub(crate) enum Outcome {
    /// It was a macro.
    Expanded(Expr),
    /// It was a macro, wrongly used.
    Fault(u32, String),
    /// It is a call: its target and arguments back.
    Call(Option<Expr>, Vec<Expr>),
}

/// Expands the call of `function`, whose parenthesis opens at `at`, if it is a macro.
pub(crate) fn expand(parser: &mut Parser<'_>, at: u32, target: Option<Expr>, function: &str, args: Vec<Expr>) -> Outcome {
    let Some(target) = target else {
        return match (function, args.len()) {
            ("has", 1) => has(parser, at, args),
            _ => Outcome::Call(None, args),
        };
    };
    let make = &mut Make { parser, at };
    match (function, args.len()) {
        ("all" | "exists" | "exists_one" | "existsOne", 2) => quantifier(make, target, function, args, false),
        ("all" | "exists" | "exists_one" | "existsOne", 3) => quantifier(make, target, function, args, true),
        ("map", 2 | 3) => map(make, target, args),
        ("filter", 2) => filter(make, target, args),
        ("transformList" | "transformMap" | "transformMapEntry", 3 | 4) => transform(make, target, function, args),
        ("optMap" | "optFlatMap", 2) => optional(make, target, function, args),
        ("sortBy", 2) => sort_by(make, target, args),
        ("bind", 3) if make.parser.bind && matches!(&target.kind, ExprKind::Ident(name) if name == "cel") => bind(make, args),
        _ => Outcome::Call(Some(target), args),
    }
}

/// Makes nodes that all belong to the macro's place.
struct Make<'p, 'a> {
    parser: &'p mut Parser<'a>,
    at: u32,
}

impl Make<'_, '_> {
    fn node(&mut self, kind: ExprKind) -> Expr {
        self.parser.node(self.at, kind)
    }

    fn ident(&mut self, name: &str) -> Expr {
        self.node(ExprKind::Ident(name.to_owned()))
    }

    fn accu(&mut self) -> Expr {
        self.ident(ACCU)
    }

    fn bool(&mut self, value: bool) -> Expr {
        self.node(ExprKind::Literal(Literal::Bool(value)))
    }

    fn int(&mut self, value: i64) -> Expr {
        self.node(ExprKind::Literal(Literal::Int(value)))
    }

    fn list(&mut self, values: Vec<Expr>) -> Expr {
        self.node(ExprKind::List(values.into_iter().map(|value| Element { value, optional: false }).collect()))
    }

    fn call(&mut self, function: &str, args: Vec<Expr>) -> Expr {
        self.node(ExprKind::Call { target: None, function: function.to_owned(), args })
    }

    fn method(&mut self, target: Expr, function: &str, args: Vec<Expr>) -> Expr {
        self.node(ExprKind::Call { target: Some(Box::new(target)), function: function.to_owned(), args })
    }

    fn fold(&mut self, fold: Comprehension) -> Outcome {
        Outcome::Expanded(self.node(ExprKind::Comprehension(Box::new(fold))))
    }

    /// A value with a name, as a fold over nothing.
    fn named(&mut self, name: String, value: Expr, result: Expr) -> Expr {
        let (range, condition, step) = (self.list(Vec::new()), self.bool(false), self.ident(&name));
        let fold =
            Comprehension { range, variable: UNUSED.to_owned(), second: None, accu: name, init: value, condition, step, result };
        self.node(ExprKind::Comprehension(Box::new(fold)))
    }

    fn fault(&self, about: &Expr, message: impl Into<String>) -> Outcome {
        Outcome::Fault(self.parser.offset(about), message.into())
    }

    /// The name that `expr` is, if it may be a fold's variable.
    fn variable(&self, expr: &Expr, not_a_name: &str) -> Result<String, Outcome> {
        match &expr.kind {
            ExprKind::Ident(name) if name == ACCU || name == OLD_ACCU => {
                Err(self.fault(expr, "iteration variable overwrites accumulator variable"))
            }
            ExprKind::Ident(name) => Ok(name.clone()),
            _ => Err(self.fault(expr, not_a_name)),
        }
    }

    /// The two variables of a fold that has an index or key, and a value.
    fn variables(&self, args: &[Expr]) -> Result<(String, String), Outcome> {
        let name = |expr: &Expr| match &expr.kind {
            ExprKind::Ident(name) => Ok(name.clone()),
            _ => Err(self.fault(expr, "argument must be a simple name")),
        };
        let (first, second) = (name(&args[0])?, name(&args[1])?);
        if first == second {
            return Err(self.fault(&args[1], format!("duplicate variable name: {first}")));
        }
        self.variable(&args[0], "")?;
        self.variable(&args[1], "")?;
        Ok((first, second))
    }

    fn copy(&mut self, expr: &Expr) -> Expr {
        let mut copy = expr.clone();
        renew(self.parser, &mut copy);
        copy
    }
}

/// Gives a copied tree identities of its own.
fn renew(parser: &mut Parser<'_>, expr: &mut Expr) {
    let offset = parser.offset(expr);
    expr.id = parser.id(offset);
    match &mut expr.kind {
        ExprKind::Literal(_) | ExprKind::Ident(_) => {}
        ExprKind::Select { operand, .. } => renew(parser, operand),
        ExprKind::Call { target, args, .. } => {
            if let Some(target) = target {
                renew(parser, target);
            }
            args.iter_mut().for_each(|arg| renew(parser, arg));
        }
        ExprKind::List(elements) => elements.iter_mut().for_each(|element| renew(parser, &mut element.value)),
        ExprKind::Map(entries) => entries.iter_mut().for_each(|entry| {
            renew(parser, &mut entry.key);
            renew(parser, &mut entry.value);
        }),
        ExprKind::Struct { fields, .. } => fields.iter_mut().for_each(|field| renew(parser, &mut field.value)),
        ExprKind::Comprehension(fold) => {
            for part in [&mut fold.range, &mut fold.init, &mut fold.condition, &mut fold.step, &mut fold.result] {
                renew(parser, part);
            }
        }
    }
}

fn has(parser: &mut Parser<'_>, at: u32, mut args: Vec<Expr>) -> Outcome {
    let arg = args.pop().expect("has takes one argument");
    match arg.kind {
        ExprKind::Select { operand, field, .. } => {
            Outcome::Expanded(parser.node(at, ExprKind::Select { operand, field, test: true }))
        }
        _ => Outcome::Fault(parser.offset(&arg), "invalid argument to has() macro".to_owned()),
    }
}

fn quantifier(make: &mut Make<'_, '_>, range: Expr, function: &str, mut args: Vec<Expr>, two: bool) -> Outcome {
    let names = if two {
        make.variables(&args).map(|(first, second)| (first, Some(second)))
    } else {
        make.variable(&args[0], "argument must be a simple name").map(|name| (name, None))
    };
    let (variable, second) = match names {
        Ok(names) => names,
        Err(fault) => return fault,
    };
    let predicate = args.pop().expect("a quantifier has a predicate");
    let accu = make.accu();
    let (init, condition, step, result) = match function {
        "all" => {
            let step = make.accu();
            let step = make.call("_&&_", vec![step, predicate]);
            (make.bool(true), make.call("@not_strictly_false", vec![accu]), step, make.accu())
        }
        "exists" => {
            let step = make.accu();
            let step = make.call("_||_", vec![step, predicate]);
            let not = make.call("!_", vec![accu]);
            (make.bool(false), make.call("@not_strictly_false", vec![not]), step, make.accu())
        }
        _ => {
            let (one, old) = (make.int(1), make.accu());
            let more = make.call("_+_", vec![accu, one]);
            let step = make.call("_?_:_", vec![predicate, more, old]);
            let (one, old) = (make.int(1), make.accu());
            (make.int(0), make.bool(true), step, make.call("_==_", vec![old, one]))
        }
    };
    make.fold(Comprehension { range, variable, second, accu: ACCU.to_owned(), init, condition, step, result })
}

/// `step`, or what was accumulated when there is a filter and it does not hold.
fn filtered(make: &mut Make<'_, '_>, filter: Option<Expr>, step: Expr) -> Expr {
    let Some(filter) = filter else { return step };
    let old = make.accu();
    make.call("_?_:_", vec![filter, step, old])
}

fn appended(make: &mut Make<'_, '_>, value: Expr) -> Expr {
    let (accu, list) = (make.accu(), make.list(vec![value]));
    make.call("_+_", vec![accu, list])
}

/// A fold that collects something for each item.
fn collect(
    make: &mut Make<'_, '_>,
    range: Expr,
    (variable, second): (String, Option<String>),
    init: ExprKind,
    step: Expr,
) -> Outcome {
    let (init, condition, result) = (make.node(init), make.bool(true), make.accu());
    make.fold(Comprehension { range, variable, second, accu: ACCU.to_owned(), init, condition, step, result })
}

fn map(make: &mut Make<'_, '_>, range: Expr, mut args: Vec<Expr>) -> Outcome {
    let variable = match make.variable(&args[0], "argument is not an identifier") {
        Ok(variable) => variable,
        Err(fault) => return fault,
    };
    let value = args.pop().expect("map has a transformation");
    let filter = if args.len() == 2 { args.pop() } else { None };
    let step = appended(make, value);
    let step = filtered(make, filter, step);
    collect(make, range, (variable, None), ExprKind::List(Vec::new()), step)
}

fn filter(make: &mut Make<'_, '_>, range: Expr, mut args: Vec<Expr>) -> Outcome {
    let variable = match make.variable(&args[0], "argument is not an identifier") {
        Ok(variable) => variable,
        Err(fault) => return fault,
    };
    let predicate = args.pop();
    let item = args.pop().expect("filter has a variable");
    let step = appended(make, item);
    let step = filtered(make, predicate, step);
    collect(make, range, (variable, None), ExprKind::List(Vec::new()), step)
}

fn transform(make: &mut Make<'_, '_>, range: Expr, function: &str, mut args: Vec<Expr>) -> Outcome {
    let (first, second) = match make.variables(&args) {
        Ok(names) => names,
        Err(fault) => return fault,
    };
    let value = args.pop().expect("a transformation has a value");
    let filter = if args.len() == 3 { args.pop() } else { None };
    let (init, step) = match function {
        "transformList" => (ExprKind::List(Vec::new()), appended(make, value)),
        "transformMap" => {
            let (accu, key) = (make.accu(), make.ident(&first));
            (ExprKind::Map(Vec::new()), make.call("cel.@mapInsert", vec![accu, key, value]))
        }
        _ => {
            let accu = make.accu();
            (ExprKind::Map(Vec::new()), make.call("cel.@mapInsert", vec![accu, value]))
        }
    };
    let step = filtered(make, filter, step);
    collect(make, range, (first, Some(second)), init, step)
}

fn optional(make: &mut Make<'_, '_>, target: Expr, function: &str, mut args: Vec<Expr>) -> Outcome {
    let ExprKind::Ident(name) = &args[0].kind else {
        return make.fault(&args[0], format!("{function}() variable name must be a simple identifier"));
    };
    let name = name.clone();
    if !make.parser.may_copy() {
        return make.fault(&target, format!("{function}() repeats too large an expression"));
    }
    let copy = make.copy(&target);
    let has_value = make.method(target, "hasValue", Vec::new());
    let value = make.method(copy, "value", Vec::new());
    let result = args.pop().expect("the macro has two arguments");
    let mut mapped = make.named(name, value, result);
    if function == "optMap" {
        mapped = make.call("optional.of", vec![mapped]);
    }
    let none = make.call("optional.none", Vec::new());
    Outcome::Expanded(make.call("_?_:_", vec![has_value, mapped, none]))
}

fn sort_by(make: &mut Make<'_, '_>, target: Expr, args: Vec<Expr>) -> Outcome {
    const INPUT: &str = "@__sortBy_input__";
    if matches!(target.kind, ExprKind::Literal(_) | ExprKind::Map(_) | ExprKind::Struct { .. }) {
        let message = "sortBy can only be applied to a list, identifier, comprehension, call or select expression";
        return make.fault(&target, message);
    }
    let input = make.ident(INPUT);
    let keys = match map(make, input, args) {
        Outcome::Expanded(keys) => keys,
        other => return other,
    };
    let input = make.ident(INPUT);
    let sorted = make.method(input, "@sortByAssociatedKeys", vec![keys]);
    Outcome::Expanded(make.named(INPUT.to_owned(), target, sorted))
}

fn bind(make: &mut Make<'_, '_>, mut args: Vec<Expr>) -> Outcome {
    let ExprKind::Ident(name) = &args[0].kind else {
        return make.fault(&args[0], "cel.bind() variable names must be simple identifiers");
    };
    let name = name.clone();
    let (result, value) = (args.pop().expect("bind has three arguments"), args.pop().expect("bind has three arguments"));
    Outcome::Expanded(make.named(name, value, result))
}
