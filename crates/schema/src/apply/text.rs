//! A `fieldsV1` as text. A write touches few of the fields that others own, so theirs stay the text they are in the store:
//! what is asked of them is answered by reading along, and a tree is made of nothing but what changes.
//!
//! The text is the canonical one: members in the order of their bytes, nothing that says nothing.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::set::{Element, FieldsError, Node, Scalar, Set};
use super::walk::Comparison;

/// What one manager owns.
#[derive(Clone, Debug)]
pub(super) enum Fields {
    /// As it is in the store.
    Written(Box<str>),
    /// As a tree.
    Read(Set),
}

impl Fields {
    /// The fields of a text from the store.
    pub(super) fn written(text: &str) -> Self {
        if text == "{}" { Self::Read(Set::default()) } else { Self::Written(text.into()) }
    }

    /// Whether a change is none of this manager's fields, as far as that is seen without making a tree.
    pub(super) fn is_untouched(&self, change: &Comparison) -> bool {
        let Self::Written(text) = self else { return false };
        let touches = |set: &Set| {
            let mut reader = serde_json::Deserializer::from_str(text);
            // What cannot be read is looked at closely.
            !set.is_empty() && Along(set).deserialize(&mut reader).map_or(true, |met| met.shares)
        };
        !touches(&change.modified) && !touches(&change.added) && !touches(&change.removed)
    }

    /// Whether nothing is owned.
    pub(super) fn is_empty(&self) -> bool {
        matches!(self, Self::Read(set) if set.is_empty())
    }

    /// The tree, which may be changed. The store has nothing that cannot be read: it would own nothing.
    pub(super) fn tree(&mut self) -> &mut Set {
        if let Self::Written(text) = self {
            *self = Self::Read(Set::from_text(text).unwrap_or_default());
        }
        match self {
            Self::Read(set) => set,
            Self::Written(_) => unreachable!("read above"),
        }
    }

    /// [`Self::tree`] for good.
    pub(super) fn into_tree(mut self) -> Set {
        std::mem::take(self.tree())
    }

    /// Adds the paths of a set. Of a text only the levels are read that lead to them.
    pub(super) fn add(&mut self, set: Set) {
        if let Self::Written(text) = self {
            let mut out = Vec::with_capacity(text.len() + 256);
            if write_merged(text, &set, false, &mut out).is_ok() {
                *text = String::from_utf8(out).expect("JSON is UTF-8").into();
                return;
            }
        }
        let own = self.tree();
        *own = std::mem::take(own).merge(set);
    }

    /// Writes the text.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Written(text) => out.extend_from_slice(text.as_bytes()),
            Self::Read(set) => set.write(out),
        }
    }
}

// === impl Set ===

impl Set {
    /// Reads the text of a `fieldsV1`, as [`Self::from_fields`] reads a document.
    ///
    /// # Errors
    ///
    /// [`FieldsError`] when it is malformed.
    pub(super) fn from_text(text: &str) -> Result<Self, FieldsError> {
        let mut reader = serde_json::Deserializer::from_str(text);
        Tree.deserialize(&mut reader).map(|node| node.below).map_err(|err| FieldsError(err.to_string()))
    }

    /// The node of a step that is written like this.
    fn at_text(&self, text: &str) -> Result<Option<&Node>, FieldsError> {
        if let Some(name) = text.strip_prefix("f:") {
            let order = |(step, _): &(Element, Node)| match step {
                Element::Field(field) => (**field).cmp(name),
                _ => Ordering::Greater, // fields come first
            };
            return Ok(self.steps.binary_search_by(order).ok().map(|at| &self.steps[at].1));
        }
        if self.steps.last().is_none_or(|(last, _)| matches!(last, Element::Field(_))) {
            return Ok(None);
        }
        Ok(Element::read(text)?.and_then(|element| self.at(&element)))
    }

    /// The steps in the order of their names. Keys are ordered as numbers in the set, and as text here.
    fn named(&self) -> Vec<(String, &Node)> {
        let name = |element: &Element| {
            let mut name = String::new();
            element.write(&mut name);
            name
        };
        let mut steps: Vec<_> = self.steps.iter().map(|(element, node)| (name(element), node)).collect();
        steps.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        steps
    }

    /// Writes the text of a `fieldsV1`.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        self.write_node(false, out);
    }

    /// The same of what is below a step, which may be in the set itself.
    fn write_node(&self, member: bool, out: &mut Vec<u8>) {
        out.push(b'{');
        let start = out.len();
        if member && !self.is_empty() {
            out.extend_from_slice(br#"".":{}"#);
        }
        let put = |out: &mut Vec<u8>, name: &dyn Fn(&mut Vec<u8>), node: &Node| {
            if out.len() > start {
                out.push(b',');
            }
            name(out);
            out.push(b':');
            node.below.write_node(node.member, out);
        };
        if self.steps.iter().all(|(element, _)| element.is_plain()) {
            for (element, node) in &self.steps {
                put(out, &|out| element.write_plain(out), node);
            }
        } else {
            for (name, node) in self.named() {
                put(out, &|out| write_json(out, &name), node);
            }
        }
        out.push(b'}');
    }
}

/// Writes a text with the paths of a set added to it; `member` tells that the step they are below is added too.
fn write_merged(text: &str, set: &Set, member: bool, out: &mut Vec<u8>) -> Result<(), serde_json::Error> {
    let Members(members) = serde_json::from_str(text)?;
    let member = member || members.first().is_none_or(|(name, _)| name == ".");
    let mut ours = members.into_iter().filter(|(name, _)| name != ".").peekable();
    let mut theirs = set.named().into_iter().peekable();
    out.push(b'{');
    let start = out.len();
    if member && (ours.peek().is_some() || theirs.peek().is_some()) {
        out.extend_from_slice(br#"".":{}"#);
    }
    loop {
        let order = match (ours.peek(), theirs.peek()) {
            (None, None) => break,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some((ours, _)), Some((theirs, _))) => (**ours).cmp(theirs),
        };
        let ours = if order.is_le() { ours.next() } else { None };
        let theirs = if order.is_ge() { theirs.next() } else { None };
        if out.len() > start {
            out.push(b',');
        }
        match (ours, theirs) {
            (Some((name, below)), None) => {
                write_json(out, &*name);
                out.push(b':');
                out.extend_from_slice(below.get().as_bytes());
            }
            (ours, Some((name, node))) => {
                write_json(out, &name);
                out.push(b':');
                match ours {
                    Some((_, below)) => write_merged(below.get(), &node.below, node.member, out)?,
                    None => node.below.write_node(node.member, out),
                }
            }
            (None, None) => {}
        }
    }
    out.push(b'}');
    Ok(())
}

impl Element {
    /// Whether the step is a field whose name is written in JSON as it is.
    fn is_plain(&self) -> bool {
        matches!(self, Self::Field(name) if name.bytes().all(|byte| byte >= b' ' && byte != b'"' && byte != b'\\'))
    }

    /// Writes a plain step as a JSON string.
    fn write_plain(&self, out: &mut Vec<u8>) {
        if let Self::Field(name) = self {
            out.extend_from_slice(b"\"f:");
            out.extend_from_slice(name.as_bytes());
            out.push(b'"');
        }
    }

    /// Writes the step as the name of a member.
    fn write(&self, out: &mut String) {
        use fmt::Write;
        let written = match self {
            Self::Field(name) => {
                out.push_str("f:");
                out.push_str(name);
                Ok(())
            }
            Self::Value(Scalar(value)) => write!(out, "v:{value}"),
            Self::Index(at) => write!(out, "i:{at}"),
            Self::Key(fields) => {
                let mut text = Vec::with_capacity(48);
                text.extend_from_slice(b"k:{");
                for (at, (name, Scalar(value))) in fields.iter().enumerate() {
                    if at > 0 {
                        text.push(b',');
                    }
                    write_json(&mut text, &**name);
                    text.push(b':');
                    write_json(&mut text, value);
                }
                text.push(b'}');
                out.push_str(std::str::from_utf8(&text).expect("JSON is UTF-8"));
                Ok(())
            }
        };
        written.expect("writing into a string does not fail");
    }
}

/// Writes a text or a document as JSON.
pub(super) fn write_json<T: serde::Serialize + ?Sized>(out: &mut Vec<u8>, value: &T) {
    serde_json::to_writer(out, value).expect("a text or a document is always JSON");
}

/// Makes a tree of a text.
struct Tree;

impl<'de> DeserializeSeed<'de> for Tree {
    type Value = Node;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Tree {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map of fields")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut steps: A) -> Result<Node, A::Error> {
        let mut found = Node { member: true, below: Set::default() };
        let mut first = true;
        while let Some(Step(step)) = steps.next_key()? {
            found.member = step == "." || (found.member && !first);
            first = false;
            let element = if step == "." { None } else { Element::read(&step).map_err(A::Error::custom)? };
            match element {
                Some(element) => found.below.put(element, steps.next_value_seed(Tree)?),
                None => drop(steps.next_value::<IgnoredAny>()?),
            }
        }
        Ok(found)
    }
}

/// Reads a text along a set.
struct Along<'s>(&'s Set);

/// What was found on the way.
struct Met {
    /// A path below is in both.
    shares: bool,
    /// The step itself is in the text.
    member: bool,
}

impl<'de> DeserializeSeed<'de> for Along<'_> {
    type Value = Met;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Met, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Along<'_> {
    type Value = Met;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map of fields")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut steps: A) -> Result<Met, A::Error> {
        let mut met = Met { shares: false, member: true };
        let mut first = true;
        while let Some(Step(step)) = steps.next_key()? {
            met.member = step == "." || (met.member && !first);
            first = false;
            let node = if step == "." { None } else { self.0.at_text(&step).map_err(A::Error::custom)? };
            match node {
                Some(node) if !met.shares => {
                    let below = steps.next_value_seed(Along(&node.below))?;
                    met.shares = below.shares || (node.member && below.member);
                }
                _ => drop(steps.next_value::<IgnoredAny>()?),
            }
        }
        Ok(met)
    }
}

/// The members of one level, with the text of what is below them.
struct Members<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Level;
        impl<'de> Visitor<'de> for Level {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map of fields")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut steps: A) -> Result<Members<'de>, A::Error> {
                let mut members = Vec::new();
                while let Some((Step(step), below)) = steps.next_entry()? {
                    members.push((step, below));
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Level)
    }
}

/// A member's name.
struct Step<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Step<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Name;
        impl<'de> Visitor<'de> for Name {
            type Value = Step<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a step of a path")
            }

            fn visit_borrowed_str<E>(self, name: &'de str) -> Result<Step<'de>, E> {
                Ok(Step(name.into()))
            }

            fn visit_str<E>(self, name: &str) -> Result<Step<'de>, E> {
                Ok(Step(name.to_owned().into()))
            }
        }
        deserializer.deserialize_str(Name)
    }
}
