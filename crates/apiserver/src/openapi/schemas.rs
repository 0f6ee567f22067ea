//! Schemas of types: the shape from the table of facts, the words from elsewhere.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use corten_api::catalogue::Catalogue;
use corten_api::facts::{Field, Kind, ListType, Type, TypeId, Types};

use super::enums::{self, Enums};

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
    words: Map<String, Value>,
    wanted: BTreeSet<&'static str>,
    made: Map<String, Value>,
}

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";

impl Schemas {
    pub(super) fn new(dialect: Dialect) -> Self {
        Self { dialect, types: Types::get(), enums: Enums::read(), words: Map::new(), wanted: BTreeSet::new(), made: Map::new() }
    }

    /// Adds descriptions, by full name.
    pub(super) fn describe(&mut self, words: Map<String, Value>) {
        self.words.extend(words);
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
        let words = self.words.get(&full).cloned().unwrap_or_default();
        let mut properties = Map::new();
        let mut required = Vec::new();
        for field in &of_type.fields {
            let described = words["properties"][field.name]["description"].as_str();
            let default = described.or_else(|| common(field.name));
            let mut property = self.property(field, default, words.is_null() || !of_type.name.contains(".v1."));
            let values = self.enums.of(of_type.name, field.name);
            if !values.is_empty() {
                enumerate(&mut property, &values);
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
        if let Some(description) = words["description"].as_str() {
            schema["description"] = description.into();
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

    /// A field of a type. What is said of the fields of a mute type, one of an earlier version, is not known.
    fn property(&mut self, field: &Field, description: Option<&str>, is_mute: bool) -> Value {
        let mut schema = self.kind(&field.kind);
        if let Some(description) = description {
            schema["description"] = description.into();
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
        // In version 3 nothing may stand beside a reference, and nearly every field has words.
        if self.dialect == Dialect::V3
            && let Some(map) = schema.as_object_mut().filter(|map| map.len() > 1 || is_mute)
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
            if let Some(description) = self.words.get(full).and_then(|words| words["description"].as_str()) {
                made["description"] = description.into();
            }
            self.made.insert(full.to_owned(), made);
        }
        self.refer(full)
    }

    /// An event of a watch. It is never stored, so that the table of types does not have it.
    fn watch_event(&mut self) -> Value {
        let object = self.nested_object();
        let schema = json!({"type": "object", "required": ["type", "object"],
            "description": "Event represents a single event to a watched resource.",
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
        const WORDS: &str = "Object is:\n * If Type is Added or Modified: the new state of the object.\n * If Type is Deleted: the state of the object immediately before deletion.\n * If Type is Error: *Status is recommended; other types may make sense\n   depending on context.";
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
        const OPTIONAL: [(&str, &str); 4] = [
            ("emulationMajor", "EmulationMajor is the major version of the emulation version"),
            ("emulationMinor", "EmulationMinor is the minor version of the emulation version"),
            ("minCompatibilityMajor", "MinCompatibilityMajor is the major version of the minimum compatibility version"),
            ("minCompatibilityMinor", "MinCompatibilityMinor is the minor version of the minimum compatibility version"),
        ];
        let required = REQUIRED.iter().map(|name| ((*name).to_owned(), self.text()));
        let optional = OPTIONAL.iter().map(|(name, words)| ((*name).to_owned(), json!({"type": "string", "description": words})));
        let properties: Map<String, Value> = required.chain(optional).collect();
        let schema = json!({"type": "object", "required": REQUIRED, "properties": properties,
            "description": "Info contains versioning information. how we'll want to distribute that information."});
        self.made.insert(FULL.into(), schema);
        self.refer(FULL)
    }

    /// The list of a kind: its name and a reference to it.
    pub(super) fn list(&mut self, item: &str, list_kind: &str) -> Value {
        let Some((package, kind)) = item.rsplit_once('.') else { return json!({"type": "object"}) };
        let name = format!("{package}.{list_kind}");
        if self.types.named(&name).is_some() {
            return self.reference(&name);
        }
        let full = full_name(&name);
        let (items, metadata) = (self.reference(item), self.reference("meta.v1.ListMeta"));
        let list = json!({
            "type": "object", "required": ["items"], "description": format!("{list_kind} is a list of {kind}"),
            "properties": {
                "apiVersion": {"type": "string", "description": common("apiVersion")},
                "kind": {"type": "string", "description": common("kind")},
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

/// Says which values a field may have, or what is in it.
fn enumerate(property: &mut Value, values: &[&str]) {
    for inner in ["items", "additionalProperties"] {
        if let Some(inner) = property.get_mut(inner) {
            inner["enum"] = json!(values);
            return;
        }
    }
    property["enum"] = json!(values);
    if let Some(words) = property["description"].as_str() {
        property["description"] = enums::described(words, values).into();
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

/// The words of the two fields that every object has.
fn common(field: &str) -> Option<&'static str> {
    match field {
        "apiVersion" => Some(
            "APIVersion defines the versioned schema of this representation of an object. Servers should convert recognized schemas to the latest internal value, and may reject unrecognized values. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#resources",
        ),
        "kind" => Some(
            "Kind is a string value representing the REST resource this object represents. Servers may infer this from the endpoint the client submits requests to. Cannot be updated. In CamelCase. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#types-kinds",
        ),
        _ => None,
    }
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
