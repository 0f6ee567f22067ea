//! The tree of an expression after macros are expanded.

/// One node. Its identity is an index into the tables of offsets and types.
#[derive(Clone, Debug, PartialEq)]
pub struct Expr {
    /// Index into the tables that [`crate::Checked`] keeps.
    pub id: u32,
    /// What the node is.
    pub kind: ExprKind,
}

/// What a node is.
#[derive(Clone, Debug, PartialEq)]
pub enum ExprKind {
    /// A value written in the text.
    Literal(Literal),
    /// A name; the checker makes it the full name of what it refers to.
    Ident(String),
    /// `operand.field`, or `has(operand.field)` when `test` is set.
    Select {
        /// What is looked into.
        operand: Box<Expr>,
        /// The name of the field or key.
        field: String,
        /// Only whether it is there.
        test: bool,
    },
    /// A function or, with a target, a method. Operators are functions such as `_+_`.
    Call {
        /// The receiver.
        target: Option<Box<Expr>>,
        /// The name.
        function: String,
        /// The arguments.
        args: Vec<Expr>,
    },
    /// `[a, ?b]`
    List(Vec<Element>),
    /// `{a: b, ?c: d}`
    Map(Vec<Entry>),
    /// `Name{a: b, ?c: d}`
    Struct {
        /// The type's name.
        name: String,
        /// The fields.
        fields: Vec<Field>,
    },
    /// A fold over a list or map, which macros expand to.
    Comprehension(Box<Comprehension>),
}

/// An element of a list.
#[derive(Clone, Debug, PartialEq)]
pub struct Element {
    /// The value.
    pub value: Expr,
    /// Whether the value is an optional, and left out when it is empty.
    pub optional: bool,
}

/// An entry of a map.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Index, as an expression's.
    pub id: u32,
    /// The key.
    pub key: Expr,
    /// The value.
    pub value: Expr,
    /// Whether the value is an optional, and left out when it is empty.
    pub optional: bool,
}

/// A field of a message.
#[derive(Clone, Debug, PartialEq)]
pub struct Field {
    /// Index, as an expression's.
    pub id: u32,
    /// The name.
    pub name: String,
    /// The value.
    pub value: Expr,
    /// Whether the value is an optional, and left out when it is empty.
    pub optional: bool,
}

/// A fold: `accu` starts as `init` and becomes `step` for each item of `range` while `condition` holds.
#[derive(Clone, Debug, PartialEq)]
pub struct Comprehension {
    /// The list or map.
    pub range: Expr,
    /// The item (or the index or key, when there is a second variable).
    pub variable: String,
    /// The item's value, in the two-variable form.
    pub second: Option<String>,
    /// The name of what is accumulated.
    pub accu: String,
    /// Its first value.
    pub init: Expr,
    /// Whether to go on.
    pub condition: Expr,
    /// Its next value.
    pub step: Expr,
    /// The value of the whole.
    pub result: Expr,
}

/// A value written in the text.
#[derive(Clone, Debug, PartialEq)]
pub enum Literal {
    /// `null`
    Null,
    /// `true`
    Bool(bool),
    /// `1`
    Int(i64),
    /// `1u`
    Uint(u64),
    /// `1.0`
    Double(f64),
    /// `'a'`
    String(String),
    /// `b'a'`
    Bytes(Vec<u8>),
}

impl Expr {
    /// The nodes right below this one, in the order of the text as far as macros keep it.
    #[must_use]
    pub fn children(&self) -> Vec<&Self> {
        match &self.kind {
            ExprKind::Literal(_) | ExprKind::Ident(_) => Vec::new(),
            ExprKind::Select { operand, .. } => vec![operand],
            ExprKind::Call { target, args, .. } => target.as_deref().into_iter().chain(args).collect(),
            ExprKind::List(elements) => elements.iter().map(|element| &element.value).collect(),
            ExprKind::Map(entries) => entries.iter().flat_map(|entry| [&entry.key, &entry.value]).collect(),
            ExprKind::Struct { fields, .. } => fields.iter().map(|field| &field.value).collect(),
            ExprKind::Comprehension(fold) => vec![&fold.range, &fold.init, &fold.condition, &fold.step, &fold.result],
        }
    }
}
