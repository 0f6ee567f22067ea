//! Namespaces: finalizers in `spec`, the label with the own name, the phase.

use corten_api::field::{Faults, Path};
use serde_json::{Value, json};

use crate::doc::{Read, Write};
use crate::{Column, Context, Strategy, check, columns, names, table};

pub(crate) struct Namespaces;

const FINALIZER: &str = "kubernetes";
const NAME_LABEL: &str = "kubernetes.io/metadata.name";

impl Strategy for Namespaces {
    fn default(&self, object: &mut Value) {
        let name = object["metadata"].text("name").to_owned();
        if !name.is_empty() {
            object.object("metadata").object("labels").put(NAME_LABEL, name);
        }
        object.object("spec");
        object.object("status").default_to("phase", "Active");
    }

    fn prepare_create(&self, object: &mut Value, _: &Context<'_>) {
        object.put("status", json!({ "phase": "Active" }));
        let mut finalizers = object["spec"].list("finalizers").to_vec();
        if !finalizers.contains(&json!(FINALIZER)) {
            finalizers.push(json!(FINALIZER));
        }
        object.object("spec").put("finalizers", finalizers);
    }

    fn validate(&self, object: &Value, _: &Context<'_>) -> Faults {
        let mut faults = Faults::default();
        let spec = Path::new("spec");
        for name in object["spec"].texts("finalizers") {
            finalizer(&mut faults, &spec.child("finalizers"), name);
        }
        faults
    }

    fn prepare_update(&self, object: &mut Value, old: &Value, ctx: &Context<'_>) {
        object.copy_from(old, "status");
        if ctx.subresource != "finalize" {
            let finalizers = old["spec"]["finalizers"].clone();
            object.object("spec").put("finalizers", finalizers);
        }
    }

    fn validate_update(&self, object: &Value, _: &Value, ctx: &Context<'_>) -> Faults {
        if ctx.subresource != "finalize" {
            return self.validate(object, ctx);
        }
        let mut faults = Faults::default();
        let spec = Path::new("spec");
        let path = spec.child("finalizers");
        for (i, name) in object["spec"].texts("finalizers").enumerate() {
            finalizer(&mut faults, &path.index(i), name);
        }
        faults
    }

    fn validate_status(&self, object: &Value, _: &Value, _: &Context<'_>) -> Faults {
        let mut faults = Faults::default();
        let (wanted, deletion) =
            if object["metadata"].has("deletionTimestamp") { ("Terminating", "not empty") } else { ("Active", "empty") };
        let phase = object["status"].text("phase");
        if phase != wanted {
            let detail = format!("may only be '{wanted}' if `deletionTimestamp` is {deletion}");
            faults.invalid_str(&Path::new("status").child("Phase"), phase, &detail);
        }
        faults
    }

    fn validate_name(&self, name: &str, prefix: bool) -> Vec<String> {
        names::name_is_label(name, prefix)
    }

    fn fields(&self, object: &Value) -> Vec<(&'static str, String)> {
        vec![("status.phase", object["status"].text("phase").into())]
    }

    fn columns(&self) -> &'static [Column] {
        columns::NAMESPACES
    }

    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        vec![table::name(object), object["status"].text("phase").into(), table::age(object, now)]
    }
}

fn finalizer(faults: &mut Faults, path: &Path<'_>, name: &str) {
    check::qualified_name(faults, path, name);
    if !name.contains('/') && !matches!(name, FINALIZER | "orphan" | "foregroundDeletion") {
        faults.invalid_str(path, name, "name is neither a standard finalizer name nor is it fully qualified");
    }
}
