//! The types of expressions, and how one stands in for another.

use std::fmt;
use std::sync::Arc;

/// The type of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Type {
    /// No type at all: a field that exists but has none.
    Unspecified,
    /// Some message whose type is known when the expression runs.
    Any,
    /// `bool`
    Bool,
    /// `bytes`
    Bytes,
    /// `double`
    Double,
    /// `google.protobuf.Duration`
    Duration,
    /// Known when the expression runs.
    Dyn,
    /// The type of what is wrong; everything fits it, so that one fault is told once.
    Error,
    /// `int`
    Int,
    /// `list(item)`
    List(Arc<Type>),
    /// `map(key, value)`
    Map(Arc<(Type, Type)>),
    /// `null_type`
    Null,
    /// A type of a library that has no fields, with its parameters.
    Opaque(Arc<str>, Arc<[Type]>),
    /// `string`
    String,
    /// A message: a type with fields.
    Struct(Arc<str>),
    /// `google.protobuf.Timestamp`
    Timestamp,
    /// The type of a type.
    Type(Option<Arc<Type>>),
    /// A parameter of a function's declaration.
    Param(char),
    /// A type that is to be found out.
    Var(u32),
    /// `uint`
    Uint,
}

const OPTIONAL: &str = "optional_type";

impl Type {
    /// `list(item)`
    #[must_use]
    pub fn list(item: Self) -> Self {
        Self::List(Arc::new(item))
    }

    /// `map(key, value)`
    #[must_use]
    pub fn map(key: Self, value: Self) -> Self {
        Self::Map(Arc::new((key, value)))
    }

    /// A message called `name`.
    #[must_use]
    pub fn structure(name: &str) -> Self {
        Self::Struct(name.into())
    }

    /// `optional_type(of)`
    #[must_use]
    pub fn optional(of: Self) -> Self {
        Self::Opaque(OPTIONAL.into(), [of].into())
    }

    /// What an optional holds.
    pub(crate) fn unwrapped(&self) -> Option<&Self> {
        match self {
            Self::Opaque(name, params) if &**name == OPTIONAL => params.first(),
            _ => None,
        }
    }

    pub(crate) fn is_dyn(&self) -> bool {
        matches!(self, Self::Dyn | Self::Any)
    }

    pub(crate) fn is_dyn_or_error(&self) -> bool {
        self.is_dyn() || *self == Self::Error
    }

    /// The name by which the type is declared, without parameters.
    fn name(&self) -> &str {
        match self {
            Self::Unspecified => "",
            Self::Any => "google.protobuf.Any",
            Self::Bool => "bool",
            Self::Bytes => "bytes",
            Self::Double => "double",
            Self::Duration => "google.protobuf.Duration",
            Self::Dyn => "dyn",
            Self::Error => "*error*",
            Self::Int => "int",
            Self::List(_) => "list",
            Self::Map(_) => "map",
            Self::Null => "null_type",
            Self::Opaque(name, _) | Self::Struct(name) => name,
            Self::String => "string",
            Self::Timestamp => "google.protobuf.Timestamp",
            Self::Type(_) => "type",
            Self::Param(_) | Self::Var(_) => "",
            Self::Uint => "uint",
        }
    }

    fn params(&self) -> Vec<&Self> {
        match self {
            Self::List(item) => vec![item],
            Self::Map(pair) => vec![&pair.0, &pair.1],
            Self::Opaque(_, params) => params.iter().collect(),
            Self::Type(Some(of)) => vec![of],
            _ => Vec::new(),
        }
    }

    /// The type as the checker's messages name it.
    pub(crate) fn shown(&self) -> String {
        match self {
            Self::Any => "any".to_owned(),
            Self::Duration => "duration".to_owned(),
            Self::Error => "!error!".to_owned(),
            Self::Null => "null".to_owned(),
            Self::Timestamp => "timestamp".to_owned(),
            Self::Param(letter) => letter.to_string(),
            Self::Var(number) => format!("_var{number}"),
            _ => self.written(Self::shown),
        }
    }

    fn written(&self, inner: impl Fn(&Self) -> String) -> String {
        let params = self.params();
        if params.is_empty() {
            return self.name().to_owned();
        }
        let params: Vec<String> = params.into_iter().map(inner).collect();
        format!("{}({})", self.name(), params.join(", "))
    }
}

/// The type as results of a whole expression are told.
impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Param(_) | Self::Var(_) => f.write_str(&self.shown()),
            _ => f.write_str(&self.written(Self::to_string)),
        }
    }
}

/// What the types that were to be found out turned out to be. A failed comparison leaves no trace.
#[derive(Debug, Default)]
pub(crate) struct Unifier {
    found: Vec<Option<Type>>,
    undo: Vec<(usize, Option<Type>)>,
}

impl Unifier {
    /// A type that is to be found out.
    pub(crate) fn fresh(&mut self) -> Type {
        self.found.push(None);
        Type::Var(u32::try_from(self.found.len() - 1).expect("fewer types than characters"))
    }

    /// Whether each of `left` can be used where the one of `right` is.
    pub(crate) fn all_assignable(&mut self, left: &[Type], right: &[Type]) -> bool {
        self.undo.clear();
        let fits = left.len() == right.len() && left.iter().zip(right).all(|(left, right)| self.fits(left, right));
        if !fits {
            while let Some((var, old)) = self.undo.pop() {
                self.found[var] = old;
            }
        }
        fits
    }

    /// Whether `left` can be used where `right` is.
    pub(crate) fn assignable(&mut self, left: &Type, right: &Type) -> bool {
        self.all_assignable(std::slice::from_ref(left), std::slice::from_ref(right))
    }

    /// `kind` with what was found out filled in; what was not is `dyn`, if that is asked for.
    pub(crate) fn resolve(&self, kind: &Type, unknown_is_dyn: bool) -> Type {
        let inner = |kind: &Type| self.resolve(kind, unknown_is_dyn);
        match kind {
            Type::Var(var) => match &self.found[*var as usize] {
                Some(found) => inner(found),
                None if unknown_is_dyn => Type::Dyn,
                None => kind.clone(),
            },
            Type::Param(_) if unknown_is_dyn => Type::Dyn,
            Type::List(item) => Type::list(inner(item)),
            Type::Map(pair) => Type::map(inner(&pair.0), inner(&pair.1)),
            Type::Opaque(name, params) if !params.is_empty() => Type::Opaque(name.clone(), params.iter().map(inner).collect()),
            Type::Type(Some(of)) => Type::Type(Some(Arc::new(inner(of)))),
            _ => kind.clone(),
        }
    }

    fn set(&mut self, var: u32, kind: Type) {
        let var = var as usize;
        self.undo.push((var, self.found[var].take()));
        self.found[var] = Some(kind);
    }

    fn fits(&mut self, left: &Type, right: &Type) -> bool {
        if let Type::Var(var) = right {
            match self.stands_for(left, *var) {
                (true, _) => return true,
                (false, true) => return false,
                (false, false) => {}
            }
        }
        if let Type::Var(var) = left {
            return self.stands_for(right, *var).0;
        }
        if left.is_dyn_or_error() || right.is_dyn_or_error() {
            return true;
        }
        match (left, right) {
            (Type::Null, other) | (other, Type::Null) => {
                matches!(other, Type::Null | Type::Opaque(..) | Type::Struct(_) | Type::Any | Type::Duration | Type::Timestamp)
            }
            (Type::Type(_), Type::Type(_)) => true,
            (Type::List(left), Type::List(right)) => self.fits(left, right),
            (Type::Map(left), Type::Map(right)) => self.fits(&left.0, &right.0) && self.fits(&left.1, &right.1),
            (Type::Opaque(left, left_params), Type::Opaque(right, right_params)) => {
                left == right
                    && left_params.len() == right_params.len()
                    && left_params.iter().zip(right_params.iter()).all(|(left, right)| self.fits(left, right))
            }
            (Type::Unspecified | Type::Param(_), _) => false,
            _ => left == right,
        }
    }

    /// Whether `kind` may be what `var` stands for, and whether that was known before.
    fn stands_for(&mut self, kind: &Type, var: u32) -> (bool, bool) {
        if *kind == Type::Var(var) {
            return (true, true);
        }
        if let Some(known) = self.found[var as usize].clone() {
            if *kind == known {
                return (true, true);
            }
            if !self.fits(kind, &known) {
                return (false, true);
            }
            let general = if at_least_as_general(kind, &known) { kind.clone() } else { known };
            if self.is_free_of(var, &general) {
                self.set(var, general);
            }
            return (true, true);
        }
        if self.is_free_of(var, kind) {
            self.set(var, kind.clone());
            return (true, false);
        }
        (false, false)
    }

    /// Whether `var` does not occur in `kind`.
    fn is_free_of(&self, var: u32, kind: &Type) -> bool {
        match kind {
            Type::Var(other) => {
                *other != var && self.found[*other as usize].as_ref().is_none_or(|found| self.is_free_of(var, found))
            }
            _ => kind.params().into_iter().all(|param| self.is_free_of(var, param)),
        }
    }
}

/// The more general of two types that fit each other.
pub(crate) fn most_general<'a>(left: &'a Type, right: &'a Type) -> &'a Type {
    if at_least_as_general(left, right) { left } else { right }
}

fn at_least_as_general(left: &Type, right: &Type) -> bool {
    if left.is_dyn() || matches!(left, Type::Var(_) | Type::Param(_)) {
        return true;
    }
    if right.is_dyn() || matches!(right, Type::Var(_) | Type::Param(_)) {
        return false;
    }
    match (left, right) {
        (Type::List(left), Type::List(right)) => at_least_as_general(left, right),
        (Type::Map(left), Type::Map(right)) => at_least_as_general(&left.0, &right.0) && at_least_as_general(&left.1, &right.1),
        (Type::Opaque(left, left_params), Type::Opaque(right, right_params)) => {
            left == right
                && left_params.len() == right_params.len()
                && left_params.iter().zip(right_params.iter()).all(|(left, right)| at_least_as_general(left, right))
        }
        (Type::Type(_), Type::Type(_)) => true,
        _ => left == right,
    }
}
