//! Schemas of types: the shape from the table of facts, the words from elsewhere.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use corten_api::catalogue::Catalogue;
use corten_api::facts::{Field, Kind, ListType, Type, TypeId, Types};

use super::enums::Enums;
use super::words;

/// Which version of OpenAPI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    V2,
    V3,
}

/// The schemas of a document, as far as its operations have asked for them.
pub(super) struct Schemas {
    pub(super) dialect: Dialect,
    types: &'static Types,
    enums: Enums,
    descriptions: Map<String, Value>,
    wanted: BTreeSet<&'static str>,
    made: Map<String, Value>,
}

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";

impl Schemas {
    pub(super) fn new(dialect: Dialect) -> Self {
        Self {
            dialect,
            types: Types::get(),
            enums: Enums::read(),
            descriptions: Map::new(),
            wanted: BTreeSet::new(),
            made: Map::new(),
        }
    }

    /// Adds descriptions, by full name.
    pub(super) fn describe(&mut self, descriptions: Map<String, Value>) {
        self.descriptions.extend(descriptions);
    }

    /// What is said of a type, or of one of its fields: by the crate of the types, or else here.
    pub(super) fn words(&self, type_name: &str, field: &str) -> Option<String> {
        let carried = self.descriptions.get(&full_name(type_name));
        let carried = carried.map(|of| if field.is_empty() { of } else { &of["properties"][field] });
        let carried = carried.and_then(|of| of["description"].as_str()).map(str::to_owned);
        carried.or_else(|| words::of(type_name, field))
    }

    /// A reference to a type, which the document will then have.
    pub(super) fn reference(&mut self, name: &str) -> Value {
        if name == "meta.v1.WatchEvent" {
            return self.watch_event();
        }
        let Some(of_type) = self.types.named(name) else { return json!({"type": "object"}) };
        self.want(of_type);
        self.refer(&full_name(of_type.name))
    }

    fn refer(&self, full: &str) -> Value {
        let place = match self.dialect {
            Dialect::V2 => "#/definitions",
            Dialect::V3 => "#/components/schemas",
        };
        json!({"$ref": format!("{place}/{full}")})
    }

    /// Makes a type and everything it is made of, once.
    fn want(&mut self, of_type: &'static Type) {
        if !self.wanted.insert(of_type.name) {
            return;
        }
        let full = full_name(of_type.name);
        let mut properties = Map::new();
        let mut required = Vec::new();
        for field in &of_type.fields {
            let mut property = self.property(of_type.name, field);
            if let Some(values) = self.enums.of(of_type.name, field.name) {
                values.enumerate(&mut property);
            }
            properties.insert(field.name.into(), property);
            if field.required {
                required.push((field.place, field.name));
            }
        }
        // In the order of the declaration, as generated schemas have them.
        required.sort_unstable();
        let required: Vec<_> = required.into_iter().map(|(_, name)| name).collect();
        let mut schema = json!({"type": "object"});
        if let Some(words) = self.words(of_type.name, "") {
            schema["description"] = words.into();
        }
        if !properties.is_empty() {
            schema["properties"] = properties.into();
        }
        if !required.is_empty() {
            schema["required"] = json!(required);
        }
        if of_type.atomic {
            schema["x-kubernetes-map-type"] = "atomic".into();
        }
        if of_type.union {
            schema["x-kubernetes-unions"] = json!([union(of_type)]);
        }
        self.made.insert(full, schema);
    }

    /// A field of a type.
    fn property(&mut self, type_name: &str, field: &Field) -> Value {
        let mut schema = self.kind(&field.kind);
        if let Some(words) = self.words(type_name, field.name) {
            schema["description"] = words.into();
        }
        if self.dialect == Dialect::V3
            && let Some(default) = default(field)
        {
            schema["default"] = default;
        }
        match (&field.kind, field.list) {
            (Kind::List(_), ListType::Map) => {
                schema["x-kubernetes-list-type"] = "map".into();
                schema["x-kubernetes-list-map-keys"] = json!(field.keys);
            }
            (Kind::List(_), ListType::Set) => schema["x-kubernetes-list-type"] = "set".into(),
            (Kind::List(_) | Kind::Bytes, ListType::Atomic) if field.list_said => {
                schema["x-kubernetes-list-type"] = "atomic".into()
            }
            _ => {}
        }
        match (&field.kind, field.atomic) {
            (Kind::Map(_) | Kind::Struct(_), Some(true)) => schema["x-kubernetes-map-type"] = "atomic".into(),
            (Kind::Map(_) | Kind::Struct(_), Some(false)) => schema["x-kubernetes-map-type"] = "granular".into(),
            _ => {}
        }
        if let Some(key) = field.merge_key {
            schema["x-kubernetes-patch-merge-key"] = key.into();
        }
        let strategies =
            [(field.patch_merge, "merge"), (field.patch_retain_keys, "retainKeys"), (field.patch_replace, "replace")];
        let strategies: Vec<_> = strategies.iter().filter(|(set, _)| *set).map(|(_, name)| *name).collect();
        if !strategies.is_empty() {
            schema["x-kubernetes-patch-strategy"] = strategies.join(",").into();
        }
        // In version 3 nothing may stand beside a reference. Fields of earlier versions have words, but nobody carries them.
        let is_early = !type_name.contains(".v1.");
        if self.dialect == Dialect::V3
            && let Some(map) = schema.as_object_mut().filter(|map| map.len() > 1 || is_early)
            && let Some(target) = map.remove("$ref")
        {
            map.insert("allOf".into(), json!([{"$ref": target}]));
        }
        schema
    }

    fn kind(&mut self, kind: &Kind) -> Value {
        match kind {
            Kind::String | Kind::Duration => json!({"type": "string"}),
            Kind::Bool => json!({"type": "boolean"}),
            Kind::Int32 => json!({"type": "integer", "format": "int32"}),
            Kind::Int64 => json!({"type": "integer", "format": "int64"}),
            Kind::Float64 => json!({"type": "number", "format": "double"}),
            Kind::Bytes => json!({"type": "string", "format": "byte"}),
            Kind::Quantity => {
                self.scalar("io.k8s.apimachinery.pkg.api.resource.Quantity", &json!({"type": "string"}), &["string", "number"])
            }
            Kind::IntOrString => {
                let old = json!({"type": "string", "format": "int-or-string"});
                self.scalar("io.k8s.apimachinery.pkg.util.intstr.IntOrString", &old, &["integer", "string"])
            }
            Kind::Time => self.scalar(&format!("{META}.Time"), &json!({"type": "string", "format": "date-time"}), &[]),
            Kind::MicroTime => self.scalar(&format!("{META}.MicroTime"), &json!({"type": "string", "format": "date-time"}), &[]),
            Kind::FieldsV1 => self.scalar(&format!("{META}.FieldsV1"), &json!({"type": "object"}), &[]),
            Kind::RawExtension => self.scalar("io.k8s.apimachinery.pkg.runtime.RawExtension", &json!({"type": "object"}), &[]),
            Kind::Json => self.extension("JSON"),
            Kind::SchemaOrBool => self.extension("JSONSchemaPropsOrBool"),
            Kind::SchemaOrArray => self.extension("JSONSchemaPropsOrArray"),
            Kind::SchemaOrStrings => self.extension("JSONSchemaPropsOrStringArray"),
            Kind::Struct(id) => self.of(*id),
            Kind::List(item) => json!({"type": "array", "items": self.inner(item)}),
            Kind::Map(item) => json!({"type": "object", "additionalProperties": self.inner(item)}),
        }
    }

    /// What is in a list or a map: like a field that is not a pointer, it has a default.
    fn inner(&mut self, kind: &Kind) -> Value {
        let mut schema = self.kind(kind);
        if self.dialect == Dialect::V3 {
            if matches!(kind, Kind::Struct(_)) {
                schema = json!({"allOf": [schema], "default": {}});
            } else if let Some(zero) = zero(kind) {
                schema["default"] = zero;
            }
        }
        schema
    }

    fn of(&mut self, id: TypeId) -> Value {
        let of_type = self.types.of(id);
        self.want(of_type);
        self.refer(&full_name(of_type.name))
    }

    fn extension(&mut self, name: &str) -> Value {
        let full = format!("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.{name}");
        self.scalar(&full, &json!({}), &[])
    }

    /// A type that is one value in JSON. `forms` are the types that version 3 can tell apart.
    fn scalar(&mut self, full: &str, schema: &Value, forms: &[&str]) -> Value {
        if !self.made.contains_key(full) {
            let mut made = match self.dialect {
                Dialect::V3 if !forms.is_empty() => {
                    json!({"oneOf": forms.iter().map(|form| json!({"type": form})).collect::<Vec<_>>()})
                }
                _ => schema.clone(),
            };
            if let Some(format) = schema.get("format").filter(|_| self.dialect == Dialect::V3) {
                made["format"] = format.clone();
            }
            let carried = self.descriptions.get(full).and_then(|carried| carried["description"].as_str());
            if let Some(words) = carried {
                made["description"] = words.into();
            }
            self.made.insert(full.to_owned(), made);
        }
        self.refer(full)
    }

    /// An event of a watch. It is never stored, so that the table of types does not have it.
    fn watch_event(&mut self) -> Value {
        let object = self.nested_object();
        let schema = json!({"type": "object", "required": ["type", "object"],
            "description": "What a watch tells of one object, or of itself.",
            "properties": {"type": self.text(), "object": object}});
        let full = format!("{META}.WatchEvent");
        self.made.insert(full.clone(), schema);
        self.refer(&full)
    }

    /// A string that cannot be left out.
    fn text(&self) -> Value {
        match self.dialect {
            Dialect::V2 => json!({"type": "string"}),
            Dialect::V3 => json!({"type": "string", "default": ""}),
        }
    }

    fn nested_object(&mut self) -> Value {
        const WORDS: &str = "The object after the change; when it was deleted, its last state. Of type `ERROR` a Status, of type `BOOKMARK` no more than a revision.";
        let reference = self.kind(&Kind::RawExtension);
        match self.dialect {
            Dialect::V2 => json!({"$ref": reference["$ref"], "description": WORDS}),
            Dialect::V3 => json!({"allOf": [reference], "description": WORDS}),
        }
    }

    /// What `/version` answers. It is no API type: the table of types does not have it.
    pub(super) fn version(&mut self) -> Value {
        const FULL: &str = "io.k8s.apimachinery.pkg.version.Info";
        const REQUIRED: [&str; 9] =
            ["major", "minor", "gitVersion", "gitCommit", "gitTreeState", "buildDate", "goVersion", "compiler", "platform"];
        const ONCE: [&str; 4] = ["emulationMajor", "emulationMinor", "minCompatibilityMajor", "minCompatibilityMinor"];
        let mut properties: Map<String, Value> = REQUIRED.iter().map(|name| ((*name).to_owned(), self.text())).collect();
        properties.extend(ONCE.map(|name| (name.to_owned(), json!({"type": "string"}))));
        let schema = json!({"type": "object", "required": REQUIRED, "properties": properties,
            "description": "Which version this server is of, and how it was built."});
        self.made.insert(FULL.into(), schema);
        self.refer(FULL)
    }

    /// The list of a kind: its name and a reference to it.
    pub(super) fn list(&mut self, item: &str, list_kind: &str) -> Value {
        let Some((package, _)) = item.rsplit_once('.') else { return json!({"type": "object"}) };
        let name = format!("{package}.{list_kind}");
        if self.types.named(&name).is_some() {
            return self.reference(&name);
        }
        let full = full_name(&name);
        let (items, metadata) = (self.reference(item), self.reference("meta.v1.ListMeta"));
        let list = json!({
            "type": "object", "required": ["items"], "description": words::of(&name, ""),
            "properties": {
                "apiVersion": {"type": "string", "description": words::of(&name, "apiVersion")},
                "kind": {"type": "string", "description": words::of(&name, "kind")},
                "metadata": self.nested(metadata), "items": {"type": "array", "items": self.nested(items)},
            },
        });
        self.made.insert(full.clone(), list);
        self.refer(&full)
    }

    fn nested(&self, reference: Value) -> Value {
        match self.dialect {
            Dialect::V2 => reference,
            Dialect::V3 => json!({"allOf": [reference], "default": {}}),
        }
    }

    /// All schemas, each kind marked with the group, version and kind it is. The two kinds that every version has are marked
    /// with those a document is about: `core` and, of version 3, one other.
    pub(super) fn finish(mut self, catalogue: &Catalogue, own: Option<(&str, &str)>) -> Value {
        let mut mark = |type_name: &str, group: &str, version: &str, kind: &str| {
            if let Some(schema) = self.made.get_mut(&full_name(type_name)) {
                let marks = &mut schema["x-kubernetes-group-version-kind"];
                let own = json!({"group": group, "version": version, "kind": kind});
                match marks {
                    Value::Array(marks) if marks.contains(&own) => {}
                    Value::Array(marks) => marks.push(own),
                    other => *other = json!([own]),
                }
            }
        };
        for resource in catalogue.all() {
            for version in resource.versions.iter().filter(|version| version.served && !version.type_name.is_empty()) {
                mark(&version.type_name, &resource.group, &version.name, &resource.kind);
                if let Some((package, _)) = version.type_name.rsplit_once('.') {
                    mark(&format!("{package}.{}", resource.list_kind), &resource.group, &version.name, &resource.list_kind);
                }
                for sub in version.subresources.iter().filter(|sub| !sub.type_name.is_empty()) {
                    mark(&sub.type_name, &sub.group, &sub.version, &sub.kind);
                }
                let about = (resource.group.as_str(), version.name.as_str());
                if about == ("", "v1") || own.is_none_or(|own| own == about) {
                    mark("meta.v1.DeleteOptions", about.0, about.1, "DeleteOptions");
                    mark("meta.v1.WatchEvent", about.0, about.1, "WatchEvent");
                }
            }
        }
        if own.is_none() {
            // The one document of everything names all versions that can be read, served or not.
            for kind in ["DeleteOptions", "WatchEvent"] {
                if let Some(schema) = self.made.get_mut(&full_name(&format!("meta.v1.{kind}"))) {
                    let versions = crate::registry::known_versions(catalogue);
                    let marks = versions.iter().map(|(group, version)| json!({"group": group, "version": version, "kind": kind}));
                    schema["x-kubernetes-group-version-kind"] = marks.collect();
                }
            }
        }
        let mut mark = |type_name: &str, group: &str, version: &str, kind: &str| {
            if let Some(schema) = self.made.get_mut(&full_name(type_name)) {
                schema["x-kubernetes-group-version-kind"] = json!([{"group": group, "version": version, "kind": kind}]);
            }
        };
        for kind in ["Status", "APIGroup", "APIGroupList", "APIResourceList", "APIVersions"] {
            mark(&format!("meta.v1.{kind}"), "", "v1", kind);
        }
        self.made.into()
    }
}

/// What a field is when it is not given: what its declaration says, or the zero of what cannot be left out.
fn default(field: &Field) -> Option<Value> {
    let said = field.default.and_then(|text| serde_json::from_str(text).ok());
    said.or_else(|| match field.kind {
        _ if field.pointer || field.omit_zero => None,
        Kind::Struct(_) => Some(json!({})),
        _ if field.omit_empty => None,
        ref kind => zero(kind),
    })
}

fn zero(kind: &Kind) -> Option<Value> {
    match kind {
        Kind::String => Some("".into()),
        Kind::Int32 | Kind::Int64 | Kind::Float64 => Some(0.into()),
        Kind::Bool => Some(false.into()),
        _ => None,
    }
}

/// A struct of which at most one member is set, as clients of the schemas are told.
fn union(of_type: &Type) -> Value {
    let members = of_type.fields.iter().filter(|field| !field.discriminator);
    let members: Map<String, Value> =
        members.map(|field| (field.name.to_owned(), super::paths::capitalized(field.name).into())).collect();
    let mut union = json!({"fields-to-discriminateBy": members});
    if let Some(discriminator) = of_type.fields.iter().find(|field| field.discriminator) {
        union["discriminator"] = discriminator.name.into();
    }
    union
}

/// `io.k8s.api.core.v1.Pod` for `core.v1.Pod`.
fn full_name(name: &str) -> String {
    let package = match name.split('.').next().unwrap_or_default() {
        "meta" => "io.k8s.apimachinery.pkg.apis.",
        "runtime" => "io.k8s.apimachinery.pkg.",
        "apiextensions" => "io.k8s.apiextensions-apiserver.pkg.apis.",
        "apiregistration" => "io.k8s.kube-aggregator.pkg.apis.",
        _ => "io.k8s.api.",
    };
    format!("{package}{name}")
}
