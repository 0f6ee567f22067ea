//! What server-side apply must know of a document's shape. Built-in types take it from the table of types; custom resources
//! bring their own implementation.

use corten_api::facts::{Field, Kind, ListType, Type, Types};
use serde_json::Value;

use crate::decode::fields::zero;
use crate::decode::go;

/// The shape of one place of a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// A value that is owned as a whole.
    Leaf,
    /// An object whose members are owned one by one.
    Map,
    /// A list whose scalar items are owned one by one.
    Set,
    /// A list whose items are identified by key fields.
    Keyed,
    /// Not declared: an object is owned member by member, everything else as a whole.
    Any,
}

/// The shape of a type of document, place by place. `Node` is a place.
pub trait Schema {
    /// A handle of a place.
    type Node<'s>: Copy
    where
        Self: 's;

    /// The document itself.
    fn root(&self) -> Self::Node<'_>;

    /// What a place looks like.
    fn shape(&self, node: Self::Node<'_>) -> Shape;

    /// The place of a member of an object, and whether that member is declared by name; nothing when there can be no
    /// such member.
    fn member<'s>(&'s self, node: Self::Node<'s>, name: &str) -> Option<(Self::Node<'s>, bool)>;

    /// The place of a list's items.
    fn item<'s>(&'s self, node: Self::Node<'s>) -> Self::Node<'s>;

    /// Calls `each` with every key field of a keyed list and that field's default.
    fn keys(&self, node: Self::Node<'_>, each: &mut dyn FnMut(&str, Option<Value>));

    /// What is wrong with a scalar, in upstream's words; lists and objects are checked by the caller.
    fn check_scalar(&self, node: Self::Node<'_>, value: &Value) -> Option<String>;

    /// Which of list and object a place takes; used to check documents.
    fn container(&self, node: Self::Node<'_>) -> Container;
}

/// What kind of container a place is declared as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Container {
    /// A scalar.
    None,
    /// A list.
    List,
    /// An object.
    Map,
    /// Anything.
    Any,
}

/// The shape of a built-in type.
#[derive(Debug)]
pub struct BuiltIn {
    root: Kind,
}

/// A place in a built-in type: what it holds, and the field it is in when that is a field's own value.
#[derive(Clone, Copy, Debug)]
pub struct Place<'s> {
    kind: &'s Kind,
    field: Option<&'s Field>,
}

impl BuiltIn {
    /// The shape of a type.
    #[must_use]
    pub fn new(ty: &Type) -> Self {
        Self { root: Kind::Struct(ty.id) }
    }
}

static ANY: Kind = Kind::Json;

impl Schema for BuiltIn {
    type Node<'s> = Place<'s>;

    fn root(&self) -> Place<'_> {
        Place { kind: &self.root, field: None }
    }

    fn shape(&self, node: Place<'_>) -> Shape {
        match node.kind {
            Kind::Struct(id) => {
                let atomic = node.field.and_then(|field| field.atomic).unwrap_or(Types::get().of(*id).atomic);
                if atomic { Shape::Leaf } else { Shape::Map }
            }
            Kind::Map(_) if node.field.is_some_and(|field| field.atomic == Some(true)) => Shape::Leaf,
            Kind::Map(_) => Shape::Map,
            Kind::List(_) => match node.field.map(|field| field.list) {
                Some(ListType::Set) => Shape::Set,
                Some(ListType::Map) => Shape::Keyed,
                _ => Shape::Leaf,
            },
            Kind::FieldsV1 => Shape::Any,
            // The published schema of a raw extension declares no members: it is owned as a whole.
            _ => Shape::Leaf,
        }
    }

    fn member<'s>(&'s self, node: Place<'s>, name: &str) -> Option<(Place<'s>, bool)> {
        match node.kind {
            Kind::Struct(id) => {
                let field = Types::get().of(*id).field(name)?;
                Some((Place { kind: &field.kind, field: Some(field) }, true))
            }
            Kind::Map(item) => Some((Place { kind: item, field: None }, false)),
            Kind::RawExtension | Kind::FieldsV1 => Some((Place { kind: &Kind::RawExtension, field: None }, false)),
            _ => Some((Place { kind: &ANY, field: None }, false)),
        }
    }

    fn item<'s>(&'s self, node: Place<'s>) -> Place<'s> {
        Place { kind: node.kind.item().unwrap_or(&ANY), field: None }
    }

    fn keys(&self, node: Place<'_>, each: &mut dyn FnMut(&str, Option<Value>)) {
        let item = node.kind.item().and_then(Kind::struct_type).map(|id| Types::get().of(id));
        for key in node.field.into_iter().flat_map(|field| &field.keys) {
            let field = item.and_then(|item| item.field(key));
            let declared = field.and_then(|field| field.default).and_then(|text| serde_json::from_str(text).ok());
            // What the encoder always writes has its zero value as default in the published schemas.
            let zero = || field.filter(|field| !field.omit_empty && !field.pointer).map(|field| zero(&field.kind));
            each(key, declared.or_else(zero));
        }
    }

    fn check_scalar(&self, node: Place<'_>, value: &Value) -> Option<String> {
        match node.kind {
            Kind::String | Kind::Bytes | Kind::Duration if !value.is_string() => {
                let shown = go::syntax(value, "string");
                Some(format!("expected string, got &value.valueUnstructured{{Value:{shown}}}"))
            }
            Kind::Time | Kind::MicroTime | Kind::Quantity | Kind::IntOrString if value.is_object() || value.is_array() => {
                Some(format!("expected any scalar, got &{{{}}}", go::plain(value)))
            }
            Kind::Int32 | Kind::Int64 | Kind::Float64 if !value.is_number() => {
                Some(format!("expected numeric (int or float), got {}", go_type(value)))
            }
            Kind::Bool if !value.is_boolean() => Some(format!("expected boolean, got &{{{}}}", go::plain(value))),
            _ => None,
        }
    }

    fn container(&self, node: Place<'_>) -> Container {
        match node.kind {
            Kind::Struct(_) | Kind::Map(_) => Container::Map,
            Kind::List(_) => Container::List,
            Kind::RawExtension | Kind::FieldsV1 | Kind::Json => Container::Any,
            Kind::SchemaOrBool | Kind::SchemaOrArray | Kind::SchemaOrStrings => Container::Any,
            _ => Container::None,
        }
    }
}

fn go_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Number(_) => "int64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}
