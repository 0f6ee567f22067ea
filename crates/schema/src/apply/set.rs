//! Sets of field paths: which fields of an object somebody owns.

use std::cmp::Ordering;
use std::fmt;

use serde_json::{Number, Value};

/// A set of paths, as a tree: a step of the tree may itself be in the set, besides what is below it.
///
/// Steps are kept sorted in a list: sets are mostly small, read in order and merged with each other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Set {
    pub(super) steps: Vec<(Element, Node)>,
}

/// What a set holds at one step.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Node {
    /// The step itself is in the set.
    pub member: bool,
    /// What is below it.
    pub below: Set,
}

/// One step of a path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Element {
    /// A member of an object.
    Field(Box<str>),
    /// The item of a list whose key fields have these values, sorted by field.
    Key(Vec<(Box<str>, Scalar)>),
    /// The item of a set that equals this value.
    Value(Scalar),
    /// The item at an index; only read, never made.
    Index(i64),
}

/// A value that identifies an item. Numbers are equal when they are equal as numbers.
#[derive(Clone, Debug)]
pub struct Scalar(pub Value);

/// Why a `fieldsV1` cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct FieldsError(pub(super) String);

// === impl Set ===

impl Set {
    /// A set of paths of plain field names.
    #[must_use]
    pub fn of(paths: &[&[&str]]) -> Self {
        let mut set = Self::default();
        for path in paths {
            let path: Vec<Element> = path.iter().map(|name| Element::Field((*name).into())).collect();
            set.insert(&path);
        }
        set
    }

    /// Reads a `fieldsV1`. Elements of a kind that is not known are left out, as the format asks for.
    ///
    /// # Errors
    ///
    /// [`FieldsError`] when an element is malformed.
    pub fn from_fields(fields: &Value) -> Result<Self, FieldsError> {
        let mut set = Self::default();
        for (key, below) in fields.as_object().into_iter().flatten() {
            if key == "." {
                continue;
            }
            if let Some(element) = Element::read(key)? {
                let below_map = below.as_object();
                let member = below_map.is_none_or(|map| map.is_empty() || map.contains_key("."));
                set.put(element, Node { member, below: Self::from_fields(below)? });
            }
        }
        Ok(set)
    }

    /// Writes a `fieldsV1`.
    #[must_use]
    pub fn to_fields(&self) -> Value {
        let mut text = Vec::new();
        self.write(&mut text);
        serde_json::from_slice(&text).expect("what was written is JSON")
    }

    /// Whether no path is in the set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// Whether this path is in the set.
    #[must_use]
    pub fn has(&self, path: &[Element]) -> bool {
        match path {
            [] => false,
            [last] => self.has_member(last),
            [first, rest @ ..] => self.at(first).is_some_and(|node| node.below.has(rest)),
        }
    }

    /// Whether this step itself is in the set.
    #[must_use]
    pub fn has_member(&self, element: &Element) -> bool {
        self.at(element).is_some_and(|node| node.member)
    }

    /// What is below a step.
    #[must_use]
    pub fn below(&self, element: &Element) -> Option<&Self> {
        self.at(element).map(|node| &node.below).filter(|set| !set.is_empty())
    }

    /// Adds a path; the empty one is no path.
    pub fn insert(&mut self, path: &[Element]) {
        let Some((last, first)) = path.split_last() else { return };
        let mut set = self;
        for element in first {
            set = &mut set.entry(element).below;
        }
        set.entry(last).member = true;
    }

    /// Adds all paths of another set.
    #[must_use]
    pub fn union(self, other: &Self) -> Self {
        self.merge(other.clone())
    }

    /// Adds all paths of a set that nobody needs any more: what only one of the two has is moved as it is.
    #[must_use]
    pub fn merge(self, other: Self) -> Self {
        if other.is_empty() {
            return self;
        }
        if self.is_empty() {
            return other;
        }
        let mut steps = Vec::with_capacity(self.steps.len().max(other.steps.len()));
        let (mut ours, mut theirs) = (self.steps.into_iter().peekable(), other.steps.into_iter().peekable());
        loop {
            let order = match (ours.peek(), theirs.peek()) {
                (None, None) => return Self { steps },
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some((ours, _)), Some((theirs, _))) => ours.cmp(theirs),
            };
            match order {
                Ordering::Less => steps.extend(ours.next()),
                Ordering::Greater => steps.extend(theirs.next()),
                Ordering::Equal => {
                    if let (Some((element, ours)), Some((_, theirs))) = (ours.next(), theirs.next()) {
                        let node = Node { member: ours.member || theirs.member, below: ours.below.merge(theirs.below) };
                        steps.push((element, node));
                    }
                }
            }
        }
    }

    /// The paths of this set that are in the other as well.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        let mut out = Self::default();
        for (element, ours) in &self.steps {
            if let Some(theirs) = other.at(element) {
                let node = Node { member: ours.member && theirs.member, below: ours.below.intersection(&theirs.below) };
                if !node.is_empty() {
                    out.steps.push((element.clone(), node));
                }
            }
        }
        out
    }

    /// The paths of this set that are not in the other.
    #[must_use]
    pub fn difference(mut self, other: &Self) -> Self {
        if other.is_empty() {
            return self;
        }
        self.steps.retain_mut(|(element, ours)| {
            if let Some(theirs) = other.at(element) {
                ours.member &= !theirs.member;
                ours.below = std::mem::take(&mut ours.below).difference(&theirs.below);
            }
            !ours.is_empty()
        });
        self
    }

    /// The paths of this set that neither are in the other nor lie below one of its paths.
    #[must_use]
    pub fn recursive_difference(mut self, other: &Self) -> Self {
        self.steps.retain_mut(|(element, ours)| match other.at(element) {
            None => true,
            Some(theirs) if theirs.member => false,
            Some(theirs) => {
                ours.below = std::mem::take(&mut ours.below).recursive_difference(&theirs.below);
                !ours.is_empty()
            }
        });
        self
    }

    /// Every path, in order: at each level first the steps that are in the set, then what lies below them.
    #[must_use]
    pub fn paths(&self) -> Vec<Vec<Element>> {
        let mut out = Vec::new();
        self.collect(&mut Vec::new(), &mut out);
        out
    }

    fn collect(&self, path: &mut Vec<Element>, out: &mut Vec<Vec<Element>>) {
        for (element, _) in self.steps.iter().filter(|(_, node)| node.member) {
            path.push(element.clone());
            out.push(path.clone());
            path.pop();
        }
        for (element, node) in &self.steps {
            path.push(element.clone());
            node.below.collect(path, out);
            path.pop();
        }
    }

    /// The same tree where `decide` says of each step whether it is in the set and what is below it.
    pub(super) fn map_steps(&self, mut decide: impl FnMut(&Element, bool, &Self) -> (bool, Self)) -> Self {
        let mut out = Self::default();
        for (element, node) in &self.steps {
            let (member, below) = decide(element, node.member, &node.below);
            out.put(element.clone(), Node { member, below });
        }
        out
    }

    /// Puts what is at a step that is not in the tree yet; nothing is not put.
    pub(super) fn put(&mut self, element: Element, node: Node) {
        if node.is_empty() {
            return;
        }
        // Steps mostly come in order.
        if self.steps.last().is_none_or(|(last, _)| *last < element) {
            self.steps.push((element, node));
            return;
        }
        let there = self.entry(&element);
        there.member |= node.member;
        there.below = std::mem::take(&mut there.below).union(&node.below);
    }

    pub(super) fn at(&self, element: &Element) -> Option<&Node> {
        self.steps.binary_search_by(|(step, _)| step.cmp(element)).ok().map(|at| &self.steps[at].1)
    }

    fn entry(&mut self, element: &Element) -> &mut Node {
        let at = match self.steps.binary_search_by(|(step, _)| step.cmp(element)) {
            Ok(at) => at,
            Err(at) => {
                self.steps.insert(at, (element.clone(), Node::default()));
                at
            }
        };
        &mut self.steps[at].1
    }
}

// === impl Node ===

impl Node {
    /// The step alone.
    pub(super) fn member() -> Self {
        Self { member: true, below: Set::default() }
    }

    pub(super) fn is_empty(&self) -> bool {
        !self.member && self.below.is_empty()
    }
}

// === impl Element ===

impl Element {
    /// Reads `f:name`, `k:{…}`, `v:…` or `i:…`; nothing when it is of another kind.
    pub(super) fn read(text: &str) -> Result<Option<Self>, FieldsError> {
        let fault = |what: &str| FieldsError(format!("parsing key as path element: {what}"));
        let Some((kind, rest)) = text.split_at_checked(2) else {
            return Err(fault("key must be 2 characters long:"));
        };
        if !kind.ends_with(':') {
            return Err(fault(&format!("missing colon: {text}")));
        }
        let json = |text: &str| serde_json::from_str::<Value>(text).map_err(|err| fault(&err.to_string()));
        Ok(Some(match kind {
            "f:" => Self::Field(rest.into()),
            "v:" => Self::Value(Scalar(json(rest)?)),
            "i:" => Self::Index(rest.parse().map_err(|_| fault(&format!("{rest} is no index")))?),
            "k:" => {
                let Value::Object(map) = json(rest)? else { return Err(fault("a key is an object")) };
                Self::key(map.into_iter().map(|(name, value)| (name.into(), Scalar(value))).collect())
            }
            _ => return Ok(None),
        }))
    }

    /// An item's key; the fields are sorted here.
    #[must_use]
    pub fn key(mut fields: Vec<(Box<str>, Scalar)>) -> Self {
        fields.sort();
        Self::Key(fields)
    }
}

/// `.name`, `[key="value"]`, `[="value"]`: how conflicts show a step.
impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Field(name) => write!(f, ".{name}"),
            Self::Value(value) => write!(f, "[={value}]"),
            Self::Index(at) => write!(f, "[{at}]"),
            Self::Key(fields) => {
                f.write_str("[")?;
                for (at, (name, value)) in fields.iter().enumerate() {
                    let comma = if at > 0 { "," } else { "" };
                    write!(f, "{comma}{name}={value}")?;
                }
                f.write_str("]")
            }
        }
    }
}

/// A whole path as conflicts show it.
#[must_use]
pub fn shown(path: &[Element]) -> String {
    path.iter().map(ToString::to_string).collect()
}

// === impl Scalar ===

impl Scalar {
    fn rank(&self) -> u8 {
        match self.0 {
            Value::Number(_) => 0,
            Value::String(_) => 1,
            Value::Bool(_) => 2,
            Value::Array(_) => 3,
            Value::Object(_) => 4,
            Value::Null => 5,
        }
    }
}

impl fmt::Display for Scalar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Value::String(text) => f.write_str(&corten_api::field::quoted(text)),
            other => write!(f, "{other}"),
        }
    }
}

impl PartialEq for Scalar {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Scalar {}

impl PartialOrd for Scalar {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Scalar {
    fn cmp(&self, other: &Self) -> Ordering {
        match (&self.0, &other.0) {
            (Value::Number(a), Value::Number(b)) => compare_numbers(a, b),
            (Value::String(a), Value::String(b)) => a.cmp(b),
            (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
            (a, b) if self.rank() == other.rank() => a.to_string().cmp(&b.to_string()),
            _ => self.rank().cmp(&other.rank()),
        }
    }
}

fn compare_numbers(a: &Number, b: &Number) -> Ordering {
    match (a.as_i64(), b.as_i64()) {
        (Some(a), Some(b)) => a.cmp(&b),
        _ => a.as_f64().unwrap_or_default().total_cmp(&b.as_f64().unwrap_or_default()),
    }
}

/// Whether two values are the same: `1` and `1.0` are.
#[must_use]
pub fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => compare_numbers(a, b).is_eq(),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| same(a, b)))
        }
        (a, b) => a == b,
    }
}
