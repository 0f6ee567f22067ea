//! Parameters of operations: clients are generated from them.
//!
//! Those of a query are the fields of the type that the server decodes it to, as far as they are single values or lists of such.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE;
use serde_json::{Map, Value, json};

use corten_api::facts::{Field, Kind, Types};
use corten_schema::encode;

use super::schemas::{Dialect, Schemas};

/// A parameter of an operation. Ordered by name, as documents list them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Parameter<'a> {
    name: &'static str,
    place: Place<'a>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Place<'a> {
    /// The name of an object of a kind.
    Name(&'a str),
    Namespace,
    /// What follows in the path of a proxied request.
    Rest,
    /// How answers are written, whatever is asked.
    Pretty,
    /// A field of the type that a query is decoded to.
    Query(&'static str),
}

impl<'a> Parameter<'a> {
    /// Those of a query that is decoded to a type.
    pub(super) fn query(options: &str) -> impl Iterator<Item = Self> + use<'a> {
        let options = Types::get().named(options);
        let fields = options.into_iter().flat_map(|options| options.fields.iter().map(|field| (options.name, field)));
        fields
            .filter(|(_, field)| single(&field.kind).is_some() && !matches!(field.name, "apiVersion" | "kind"))
            .map(|(options, field)| Self { name: field.name, place: Place::Query(options) })
    }

    /// Those of the deletion of all that a query selects: what chooses and what deletes, but not what watches.
    pub(super) fn of_deletion_of_many() -> impl Iterator<Item = Self> {
        let chosen = Self::query("meta.v1.ListOptions").filter(|own| !matches!(own.name, "watch" | "allowWatchBookmarks"));
        chosen.chain(Self::query("meta.v1.DeleteOptions"))
    }

    pub(super) fn pretty() -> Self {
        Self { name: "pretty", place: Place::Pretty }
    }

    /// The name in the path of an object.
    pub(super) fn name(kind: &'a str) -> Self {
        Self { name: "name", place: Place::Name(kind) }
    }

    pub(super) fn namespace() -> Self {
        Self { name: "namespace", place: Place::Namespace }
    }

    /// What follows in the path of a proxied request.
    pub(super) fn path() -> Self {
        Self { name: "path", place: Place::Rest }
    }

    pub(super) fn document(self, schemas: &Schemas) -> Value {
        let description = match self.place {
            Place::Name(kind) => format!("name of the {kind}"),
            Place::Namespace => "the namespace".to_owned(),
            Place::Rest => "the path below the target".to_owned(),
            Place::Pretty => "Whether the answer is indented for people; without, it is for browsers, curl and wget.".to_owned(),
            Place::Query(options) => schemas.words(options, self.name).unwrap_or_default(),
        };
        let kind = match self.place {
            Place::Query(options) => self.field_of(options).and_then(|field| single(&field.kind)).unwrap_or("string"),
            _ => "string",
        };
        let is_query = matches!(self.place, Place::Query(_) | Place::Pretty);
        let place = if is_query { "query" } else { "path" };
        let mut parameter = json!({"name": self.name, "in": place, "description": description});
        if !is_query {
            parameter["required"] = true.into();
        }
        match schemas.dialect {
            Dialect::V2 => {
                parameter["type"] = kind.into();
                parameter["uniqueItems"] = true.into();
            }
            Dialect::V3 => parameter["schema"] = json!({"type": kind, "uniqueItems": true}),
        }
        parameter
    }

    fn field_of(self, options: &str) -> Option<&'static Field> {
        Types::get().named(options)?.fields.iter().find(|field| field.name == self.name)
    }
}

/// The type of a value that a query can have, once or many times.
fn single(kind: &Kind) -> Option<&'static str> {
    match kind {
        Kind::String => Some("string"),
        Kind::Bool => Some("boolean"),
        Kind::Int32 | Kind::Int64 => Some("integer"),
        Kind::List(item) => single(item),
        _ => None,
    }
}

/// Moves what many operations of a version 2 document take to a place of its own, which is most of the document, and leaves
/// references. Older clients look for `dryRun` and `fieldValidation` at the operation itself.
pub(super) fn share(paths: &mut Map<String, Value>) -> Map<String, Value> {
    let mut shared = Map::new();
    let mut share_all = |holder: &mut Value| {
        for parameter in holder.get_mut("parameters").and_then(Value::as_array_mut).into_iter().flatten() {
            let name = parameter["name"].as_str().unwrap_or_default();
            let is_own = match parameter["in"].as_str() {
                Some("body") => !parameter["schema"]["$ref"].as_str().is_some_and(|of| of.contains("/io.k8s.apimachinery")),
                _ => matches!(name, "name" | "dryRun" | "fieldValidation"),
            };
            if !is_own {
                let name = format!("{name}-{}", mark(parameter));
                let reference = json!({"$ref": format!("#/parameters/{name}")});
                shared.insert(name, std::mem::replace(parameter, reference));
            }
        }
    };
    for item in paths.values_mut() {
        share_all(item);
        item.as_object_mut().into_iter().flatten().for_each(|(_, operation)| share_all(operation));
    }
    shared
}

/// What tells parameters of one name apart, and keeps names in generated clients from one version to the next: as upstream has
/// it, the beginning of the FNV-1 hash of the parameter in the form that the reference encodes it in.
fn mark(parameter: &Value) -> String {
    const ORDER: [&str; 7] = ["uniqueItems", "type", "description", "name", "in", "required", "schema"];
    let mut text = Vec::new();
    for key in ORDER {
        if let Some(value) = parameter.get(key) {
            text.extend_from_slice(if text.is_empty() { b"{\"" } else { b",\"" });
            text.extend_from_slice(key.as_bytes());
            text.extend_from_slice(b"\":");
            encode::go_raw(&mut text, value);
        }
    }
    text.push(b'}');
    let hash = text.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| hash.wrapping_mul(0x0100_0000_01b3) ^ u64::from(*byte));
    URL_SAFE.encode(&hash.to_be_bytes()[..6])
}
