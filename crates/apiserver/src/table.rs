//! Server-side printing: `meta.k8s.io/v1 Table` from a kind's columns and cells.

use serde_json::{Value, json};

use corten_api::field::{Faults, Path};
use corten_api::status::Status;
use corten_kinds::{COMPONENT_STATUSES, Column, Printer, SCALES, Strategy};

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

/// The table of one kind.
#[derive(Clone, Copy)]
pub struct Table {
    rows: Rows,
    meta: MetaVersion,
}

/// Where headings and cells come from.
#[derive(Clone, Copy)]
enum Rows {
    /// The rules of a kind.
    Of(&'static dyn Strategy),
    /// Something that only answers are made of.
    Printed(&'static Printer),
    /// Nothing is known but the metadata.
    Plain,
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
    /// The table of a target's objects.
    pub(crate) fn of(target: &Target, meta: MetaVersion) -> Self {
        let rows = match target.strategy {
            Some(strategy) => Rows::Of(strategy),
            None if target.plural() == "componentstatuses" => Rows::Printed(&COMPONENT_STATUSES),
            None => Rows::Plain,
        };
        Self { rows, meta }
    }

    /// The table of a target's subresource, which may be of another kind.
    pub(crate) fn of_subresource(target: &Target, subresource: &str, meta: MetaVersion) -> Self {
        match subresource {
            "scale" => Self { rows: Rows::Printed(&SCALES), meta },
            _ => Self::of(target, meta),
        }
    }

    fn columns(&self) -> &'static [Column] {
        match self.rows {
            Rows::Of(strategy) => strategy.columns(),
            Rows::Printed(printer) => printer.columns,
            Rows::Plain => &PLAIN,
        }
    }

    /// Whether a list of nothing has `null` for its rows, as upstream's printer for kinds without one of their own makes it.
    pub(crate) fn is_null_when_empty(&self) -> bool {
        self.columns().get(1).is_some_and(|column| column.name == "Created At")
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
        let cells = match self.rows {
            Rows::Of(strategy) => strategy.row(stored, now),
            Rows::Printed(printer) => (printer.row)(stored, now),
            Rows::Plain => vec![stored["metadata"]["name"].clone(), stored["metadata"]["creationTimestamp"].clone()],
        };
        let object = match include {
            IncludeObject::Metadata => {
                let hidden = match self.rows {
                    Rows::Of(strategy) => strategy.hidden_annotations(),
                    Rows::Printed(_) | Rows::Plain => &[],
                };
                json!({"kind": "PartialObjectMetadata", "apiVersion": self.meta.api_version(), "metadata": metadata(shown, hidden)})
            }
            IncludeObject::Object => shown.clone(),
            IncludeObject::None => Value::Null,
        };
        let mut row = json!({"cells": cells, "object": object});
        if let Rows::Of(strategy) = self.rows {
            let conditions = strategy.row_conditions(stored);
            if !conditions.is_empty() {
                row["conditions"] = conditions.into();
            }
        }
        row
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
