//! Server-side printing: `meta.k8s.io/v1 Table` from a kind's columns and cells.

use serde_json::{Value, json};

use corten_api::field::{Faults, Path};
use corten_api::status::Status;
use corten_kinds::{Column, Strategy};

use crate::negotiate::MetaVersion;
use crate::registry::Target;

/// What a row carries of its object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IncludeObject {
    /// `PartialObjectMetadata`
    #[default]
    Metadata,
    /// The whole object.
    Object,
    /// Nothing.
    None,
}

impl IncludeObject {
    /// Reads the `includeObject` parameter.
    pub fn parse(text: &str) -> Result<Self, Status> {
        match text {
            "" | "Metadata" => Ok(Self::Metadata),
            "Object" => Ok(Self::Object),
            "None" => Ok(Self::None),
            other => {
                let mut faults = Faults::default();
                let path = Path::new("includeObject");
                faults.invalid_str(&path, other, "must be 'Metadata', 'Object', 'None', or empty");
                Err(Status::bad_request(format!("Unable to convert to Table as requested: {}", faults.aggregate())))
            }
        }
    }
}

/// The printer of one kind.
#[derive(Clone, Copy)]
pub struct Table {
    strategy: Option<&'static dyn Strategy>,
    meta: MetaVersion,
}

/// What is printed of a kind that says nothing about itself.
const PLAIN: [Column; 2] = [
    Column {
        name: "Name",
        kind: "string",
        format: "name",
        description: "Name must be unique within a namespace. Is required when creating resources, although some resources may allow a client to request the generation of an appropriate name automatically. Name is primarily intended for creation idempotence and configuration definition. Cannot be updated. More info: https://kubernetes.io/docs/concepts/overview/working-with-objects/names#names",
        priority: 0,
    },
    Column {
        name: "Created At",
        kind: "date",
        format: "",
        description: "CreationTimestamp is a timestamp representing the server time when this object was created. It is not guaranteed to be set in happens-before order across separate operations. Clients may not set this value. It is represented in RFC3339 form and is in UTC.\n\nPopulated by the system. Read-only. Null for lists. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata",
        priority: 0,
    },
];

impl Table {
    /// The printer of a target's objects.
    pub(crate) fn of(target: &Target, meta: MetaVersion) -> Self {
        Self { strategy: target.strategy, meta }
    }

    fn columns(&self) -> &'static [Column] {
        self.strategy.map_or(&PLAIN, Strategy::columns)
    }

    /// `columnDefinitions`
    #[must_use]
    pub fn definitions(&self) -> Value {
        let columns = self.columns().iter().map(|column| {
            json!({
                "name": column.name,
                "type": column.kind,
                "format": column.format,
                "description": column.description,
                "priority": column.priority,
            })
        });
        columns.collect()
    }

    /// One row. `stored` is what the cells are read from, `shown` what the row carries.
    #[must_use]
    pub fn row(&self, stored: &Value, shown: &Value, include: IncludeObject, now: jiff::Timestamp) -> Value {
        let cells = match self.strategy {
            Some(strategy) => strategy.row(stored, now),
            None => vec![stored["metadata"]["name"].clone(), stored["metadata"]["creationTimestamp"].clone()],
        };
        let object = match include {
            IncludeObject::Metadata => {
                let hidden = self.strategy.map_or(&[][..], |strategy| strategy.hidden_annotations());
                json!({"kind": "PartialObjectMetadata", "apiVersion": self.meta.api_version(), "metadata": metadata(shown, hidden)})
            }
            IncludeObject::Object => shown.clone(),
            IncludeObject::None => Value::Null,
        };
        json!({"cells": cells, "object": object})
    }

    /// The Table. Later events of a watch leave the columns out.
    #[must_use]
    pub fn document(&self, metadata: Value, with_columns: bool, rows: Vec<Value>) -> Value {
        let columns = if with_columns { self.definitions() } else { Value::Null };
        json!({"kind": "Table", "apiVersion": self.meta.api_version(), "metadata": metadata, "columnDefinitions": columns, "rows": rows})
    }
}

/// The metadata of a document by itself, without `hidden` annotations.
pub(crate) fn metadata(document: &Value, hidden: &[&str]) -> Value {
    let mut metadata = document["metadata"].clone();
    if hidden.is_empty() {
        return metadata;
    }
    if let Some(Value::Object(annotations)) = metadata.get_mut("annotations") {
        annotations.retain(|name, _| !hidden.contains(&name.as_str()));
        if annotations.is_empty()
            && let Some(metadata) = metadata.as_object_mut()
        {
            metadata.remove("annotations");
        }
    }
    metadata
}
