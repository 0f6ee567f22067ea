//! ControllerRevisions: what a controller keeps of its history.

use corten_api::field::{Faults, Path};
use serde_json::{Value, json};

use crate::doc::{Read, semantic_equal};
use crate::{Column, Context, Strategy, check, columns, table};

pub(crate) struct ControllerRevisions;

impl Strategy for ControllerRevisions {
    fn validate(&self, object: &Value, _: &Context<'_>) -> Faults {
        let mut faults = Faults::default();
        check::not_negative(&mut faults, &Path::new("revision"), object.int("revision"));
        match &object["data"] {
            Value::Null => faults.required(&Path::new("data"), "data is mandatory"),
            Value::Object(_) => {}
            _ => faults.required(&Path::new("data"), "data must be a valid JSON object"),
        }
        faults
    }

    fn validate_update(&self, object: &Value, old: &Value, _: &Context<'_>) -> Faults {
        let mut faults = Faults::default();
        check::not_negative(&mut faults, &Path::new("revision"), object.int("revision"));
        if !semantic_equal(&object["data"], &old["data"]) {
            faults.invalid(&Path::new("data"), &object["data"], check::IMMUTABLE);
        }
        faults
    }

    fn columns(&self) -> &'static [Column] {
        columns::CONTROLLERREVISIONS
    }

    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        let owner = object["metadata"].list("ownerReferences").iter().find(|owner| owner.flag("controller"));
        let controller = owner.map_or("<none>".to_owned(), |owner| {
            let kind = owner.text("kind").to_lowercase();
            let group = owner.text("apiVersion").split_once('/').map_or("", |(group, _)| group);
            let dot = if group.is_empty() { "" } else { "." };
            format!("{kind}{dot}{group}/{}", owner.text("name"))
        });
        vec![table::name(object), controller.into(), json!(object.int("revision")), table::age(object, now)]
    }
}
