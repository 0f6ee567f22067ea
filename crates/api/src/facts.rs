//! The shape of every built-in API type: what Go's struct tags say and OpenAPI does not (pointers, protobuf numbers, merge
//! keys), in one table that decoding, patches, apply and protobuf are driven by.
//!
//! The table is text compiled in (`facts/types.txt`, written by `tools/facts.py`) and parsed once, on first use; every
//! name in it borrows the program's own text, so the parsed form is small.

use std::collections::HashMap;
use std::sync::OnceLock;

mod parse;

const TEXT: &str = include_str!("../facts/types.txt");

/// Every built-in type, by name and by id.
#[derive(Debug)]
pub struct Types {
    types: Vec<Type>,
    by_name: HashMap<&'static str, TypeId>,
}

/// The place of a type in [`Types`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TypeId(u32);

/// A struct of the API.
#[derive(Debug)]
pub struct Type {
    /// Package, version and name, such as `core.v1.Pod`.
    pub name: &'static str,
    /// Its place in the table.
    pub id: TypeId,
    /// Whether server-side apply owns it as a whole wherever it is used.
    pub atomic: bool,
    /// Whether at most one of its fields is set, besides the one that may tell which.
    pub union: bool,
    /// The fields of its JSON form, those of inlined structs included, sorted by name.
    pub fields: Vec<Field>,
    /// Positions in `fields` of what the encoder writes even when it is not set.
    pub always: Vec<usize>,
    /// The fields of its protobuf form, sorted by number; inlined structs are messages of their own there.
    pub members: Vec<Member>,
    /// Where a field is, by its name.
    slots: Slots,
}

/// Positions of fields by a hash of their names. Every key of every document that is read, checked or compared is looked up,
/// some hundred for a pod, and a search by comparison touches many fields to find one.
#[derive(Debug)]
struct Slots(Box<[u8]>);

/// One field of a protobuf message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// The field number.
    pub number: u32,
    /// What is in it.
    pub what: MemberKind,
}

/// What a protobuf field holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemberKind {
    /// The JSON field at this position in [`Type::fields`].
    Field(usize),
    /// A message whose JSON fields are inlined into the outer type.
    Inlined(TypeId),
}

/// One field of a struct.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is one marker of the struct tag")]
pub struct Field {
    /// The JSON name.
    pub name: &'static str,
    /// What it holds.
    pub kind: Kind,
    /// Whether it is a pointer in Go: then a zero value is kept, since absent is something else.
    pub pointer: bool,
    /// The encoder drops an empty value.
    pub omit_empty: bool,
    /// The encoder drops a zero struct.
    pub omit_zero: bool,
    /// Whether schemas call it required: it has no mark as optional and is written when empty, or is marked as required.
    pub required: bool,
    /// Its place among the fields of the struct's declaration.
    pub place: u16,
    /// Whether it tells which member of a union is set.
    pub discriminator: bool,
    /// How apply treats a list.
    pub list: ListType,
    /// Whether `list` is declared and not merely what holds for lists of which nothing is said.
    pub list_said: bool,
    /// The keys of a list of type map.
    pub keys: Vec<&'static str>,
    /// Apply owns a map or struct as a whole (`Some(true)`) or field by field although its type is atomic (`Some(false)`).
    pub atomic: Option<bool>,
    /// Strategic merge patch merges this field's list instead of replacing it.
    pub patch_merge: bool,
    /// Strategic merge patch honours `$retainKeys` here.
    pub patch_retain_keys: bool,
    /// Strategic merge patch replaces this field.
    pub patch_replace: bool,
    /// The field that identifies an item in a strategic merge patch.
    pub merge_key: Option<&'static str>,
    /// The declared default, as JSON text.
    pub default: Option<&'static str>,
    /// The Go type where its name is not told by `kind`.
    pub go: Option<&'static str>,
    /// The inlined structs that it comes from, the outermost first; none when it is the type's own. Faults name them.
    pub inlined_from: Vec<&'static str>,
}

/// How server-side apply treats a list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ListType {
    /// Owned as a whole.
    #[default]
    Atomic,
    /// Scalars that are each owned.
    Set,
    /// Items identified by their keys.
    Map,
}

/// What a field or an item holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A string.
    String,
    /// A boolean.
    Bool,
    /// A 32 bit integer.
    Int32,
    /// A 64 bit integer.
    Int64,
    /// A double.
    Float64,
    /// Bytes, base64 in JSON.
    Bytes,
    /// `resource.Quantity`: `500m`.
    Quantity,
    /// `intstr.IntOrString`: a number or a string.
    IntOrString,
    /// `metav1.Time`: RFC 3339 with seconds.
    Time,
    /// `metav1.MicroTime`: RFC 3339 with microseconds.
    MicroTime,
    /// `metav1.Duration`: `1h2m3s`.
    Duration,
    /// `metav1.FieldsV1`: a JSON object.
    FieldsV1,
    /// `runtime.RawExtension`: any object.
    RawExtension,
    /// `apiextensions.v1.JSON`: any value.
    Json,
    /// A schema or a boolean.
    SchemaOrBool,
    /// A schema or a list of schemas.
    SchemaOrArray,
    /// A schema or a list of strings.
    SchemaOrStrings,
    /// A struct.
    Struct(TypeId),
    /// A list.
    List(Box<Kind>),
    /// A map from strings.
    Map(Box<Kind>),
}

// === impl Types ===

impl Types {
    /// The built-in types.
    ///
    /// # Panics
    ///
    /// Never in a program whose tests pass: the table is part of the program.
    #[must_use]
    pub fn get() -> &'static Self {
        static TYPES: OnceLock<Types> = OnceLock::new();
        TYPES.get_or_init(|| parse::types(TEXT).expect("the compiled-in table of types is well formed"))
    }

    /// The type of this name, such as `core.v1.Pod`.
    #[must_use]
    pub fn named(&self, name: &str) -> Option<&Type> {
        self.by_name.get(name).map(|id| self.of(*id))
    }

    /// The type with this id.
    #[must_use]
    pub fn of(&self, id: TypeId) -> &Type {
        &self.types[id.0 as usize]
    }

    /// All types, in the order of the table.
    pub fn iter(&self) -> impl Iterator<Item = &Type> {
        self.types.iter()
    }
}

impl std::ops::Index<TypeId> for Types {
    type Output = Type;

    fn index(&self, id: TypeId) -> &Type {
        self.of(id)
    }
}

// === impl Type ===

impl Type {
    /// The name without package and version: `Pod`.
    #[must_use]
    pub fn short_name(&self) -> &'static str {
        self.name.rsplit_once('.').map_or(self.name, |(_, short)| short)
    }

    /// The name as Go's reflection prints it: `v1.Pod`.
    #[must_use]
    pub fn go_name(&self) -> &'static str {
        self.name.split_once('.').map_or(self.name, |(_, rest)| rest)
    }

    /// The field with this JSON name.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&Field> {
        self.position(name).map(|at| &self.fields[at])
    }

    /// The place of a field in `fields`.
    #[must_use]
    pub fn position(&self, name: &str) -> Option<usize> {
        self.slots.candidates(name).find(|at| self.fields[*at].name == name)
    }
}

// === impl Slots ===

impl Slots {
    /// Marks a slot that has no field.
    const FREE: u8 = u8::MAX;

    /// A table with room, so that searches end soon. No type has more fields than a byte can count.
    fn of(fields: &[Field]) -> Self {
        let mut slots = vec![Self::FREE; (fields.len() * 2).next_power_of_two().max(2)];
        for (position, field) in fields.iter().enumerate() {
            let mut at = Self::hash(field.name) & (slots.len() - 1);
            while slots[at] != Self::FREE {
                at = (at + 1) & (slots.len() - 1);
            }
            slots[at] = u8::try_from(position).expect("no type has so many fields");
        }
        Self(slots.into())
    }

    /// Where a field of this name may be, the likeliest first.
    fn candidates(&self, name: &str) -> impl Iterator<Item = usize> {
        let mask = self.0.len() - 1;
        let start = Self::hash(name);
        let slots = (0..self.0.len()).map(move |step| self.0[(start + step) & mask]);
        slots.take_while(|slot| *slot != Self::FREE).map(usize::from)
    }

    fn hash(name: &str) -> usize {
        let bytes = name.as_bytes();
        let (first, last) = match (bytes.first_chunk::<4>(), bytes.last_chunk::<4>()) {
            (Some(first), Some(last)) => (u32::from_le_bytes(*first), u32::from_le_bytes(*last)),
            _ => (bytes.iter().fold(0, |sum, byte| sum << 8 | u32::from(*byte)), 0),
        };
        let mixed = first.wrapping_mul(0x9E37_79B1) ^ last.wrapping_mul(0x85EB_CA6B);
        (mixed.wrapping_add(bytes.len() as u32).wrapping_mul(0x9E37_79B1) >> 12) as usize
    }
}

// === impl Field ===

impl Field {
    /// The Go type, as decoding errors quote it.
    #[must_use]
    pub fn go_name(&self, types: &Types) -> String {
        self.go.map_or_else(|| self.kind.go_name(types), Into::into)
    }

    /// The Go type of an item of this list or map.
    #[must_use]
    pub fn go_item_name(&self, types: &Types) -> String {
        if let Some(go) = self.go {
            if let Some(item) = go.strip_prefix("[]") {
                return item.into();
            }
            if let Some((_, item)) = go.strip_prefix("map[").and_then(|rest| rest.split_once(']')) {
                return item.into();
            }
        }
        self.kind.item().map_or_else(String::new, |kind| kind.go_name(types))
    }
}

// === impl Kind ===

impl Kind {
    /// What an item of a list or map holds.
    #[must_use]
    pub fn item(&self) -> Option<&Self> {
        match self {
            Self::List(item) | Self::Map(item) => Some(item),
            _ => None,
        }
    }

    /// The struct type of this value, or of its items.
    #[must_use]
    pub fn struct_type(&self) -> Option<TypeId> {
        match self {
            Self::Struct(id) => Some(*id),
            Self::List(item) | Self::Map(item) => item.struct_type(),
            _ => None,
        }
    }

    /// The Go type, as decoding errors quote it.
    #[must_use]
    pub fn go_name(&self, types: &Types) -> String {
        match self {
            Self::String => "string".into(),
            Self::Bool => "bool".into(),
            Self::Int32 => "int32".into(),
            Self::Int64 => "int64".into(),
            Self::Float64 => "float64".into(),
            Self::Bytes => "[]uint8".into(),
            Self::Quantity => "resource.Quantity".into(),
            Self::IntOrString => "intstr.IntOrString".into(),
            Self::Time => "v1.Time".into(),
            Self::MicroTime => "v1.MicroTime".into(),
            Self::Duration => "v1.Duration".into(),
            Self::FieldsV1 => "v1.FieldsV1".into(),
            Self::RawExtension => "runtime.RawExtension".into(),
            Self::Json => "v1.JSON".into(),
            Self::SchemaOrBool => "v1.JSONSchemaPropsOrBool".into(),
            Self::SchemaOrArray => "v1.JSONSchemaPropsOrArray".into(),
            Self::SchemaOrStrings => "v1.JSONSchemaPropsOrStringArray".into(),
            Self::Struct(id) => types.of(*id).go_name().into(),
            Self::List(item) => format!("[]{}", item.go_name(types)),
            Self::Map(item) => format!("map[string]{}", item.go_name(types)),
        }
    }
}

#[cfg(test)]
mod tests;
