//! `storage.k8s.io`: StorageClasses.

mod csi;

pub(crate) use csi::{CsiDrivers, CsiNodes, CsiStorageCapacities, VolumeAttachments, VolumeAttributesClasses};

use std::collections::HashSet;

use corten_api::field::{Faults, Path};
use serde_json::Value;

use crate::doc::{Read, Write};
use crate::{Column, Context, Strategy, check, columns, table};

pub(crate) struct StorageClasses;

const MAX_PARAMETERS: usize = 512;
const MAX_PARAMETER_BYTES: usize = 256 * 1024;

impl Strategy for StorageClasses {
    fn default(&self, object: &mut Value) {
        for (key, value) in [("reclaimPolicy", "Delete"), ("volumeBindingMode", "Immediate")] {
            if !object.has(key) {
                object.put(key, value);
            }
        }
    }

    fn validate(&self, object: &Value, _: &Context<'_>) -> Faults {
        let mut faults = Faults::default();
        let provisioner = object.text("provisioner");
        let path = Path::new("provisioner");
        if provisioner.is_empty() {
            faults.required(&path, "");
        } else {
            check::qualified_name(&mut faults, &path, &provisioner.to_lowercase());
        }
        parameters(&mut faults, object, true);
        if let Some(policy) = object.opt_text("reclaimPolicy").filter(|policy| !policy.is_empty()) {
            check::one_of(&mut faults, &Path::new("reclaimPolicy"), policy, &["Delete", "Retain"]);
        }
        let modes = ["Immediate", "WaitForFirstConsumer"];
        match object.opt_text("volumeBindingMode") {
            None => faults.required(&Path::new("volumeBindingMode"), ""),
            Some(mode) => check::one_of(&mut faults, &Path::new("volumeBindingMode"), mode, &modes),
        }
        topologies(&mut faults, object.list("allowedTopologies"));
        faults
    }

    fn validate_update(&self, object: &Value, old: &Value, ctx: &Context<'_>) -> Faults {
        let mut faults = self.validate(object, ctx);
        for key in ["parameters", "provisioner", "reclaimPolicy", "volumeBindingMode"] {
            let same = object.map(key) == old.map(key) && object[key].as_str() == old[key].as_str();
            if !same {
                let empty = Value::from("");
                let shown = if key == "provisioner" && !object.has(key) { &empty } else { &object[key] };
                faults.invalid(&Path::new(key), shown, check::IMMUTABLE);
            }
        }
        faults
    }

    fn columns(&self) -> &'static [Column] {
        columns::STORAGECLASSES
    }

    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        let annotations = &object["metadata"]["annotations"];
        let default = ["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"]
            .iter()
            .any(|key| annotations.text(key) == "true");
        let mut name = object["metadata"].text("name").to_owned();
        if default {
            name.push_str(" (default)");
        }
        vec![
            name.into(),
            object.text("provisioner").into(),
            table::or(object.text("reclaimPolicy"), "Delete").into(),
            table::or(object.text("volumeBindingMode"), "Immediate").into(),
            object.flag("allowVolumeExpansion").into(),
            table::age(object, now),
        ]
    }

    fn warnings(&self, object: &Value, _: Option<&Value>, _: &Context<'_>) -> Vec<String> {
        let mut warnings = Vec::new();
        for (i, topology) in object.list("allowedTopologies").iter().enumerate() {
            for (j, requirement) in topology.list("matchLabelExpressions").iter().enumerate() {
                if let Some(message) = crate::pod::warnings::deprecated_label(requirement.text("key")) {
                    warnings.push(format!("allowedTopologies[{i}].matchLabelExpressions[{j}].key: {message}"));
                }
            }
        }
        warnings
    }
}

/// Parameters for a driver: none without a name, and not too many.
pub(crate) fn parameters(faults: &mut Faults, object: &Value, may_be_empty: bool) {
    let path = Path::new("parameters");
    let parameters = object.map("parameters");
    if parameters.is_empty() {
        if !may_be_empty {
            faults.required(&path, "must contain at least one key/value pair");
        }
        return;
    }
    if parameters.len() > MAX_PARAMETERS {
        return faults.too_long(&path, MAX_PARAMETERS);
    }
    let mut size = 0;
    for (key, value) in parameters {
        if key.is_empty() {
            faults.invalid_str(&path, key, "field can not be empty.");
        }
        size += key.len() + value.as_str().map_or(0, str::len);
    }
    if size > MAX_PARAMETER_BYTES {
        faults.too_long(&path, MAX_PARAMETER_BYTES);
    }
}

fn topologies(faults: &mut Faults, topologies: &[Value]) {
    let path = Path::new("allowedTopologies");
    // The reference begins with as many empty terms as there are terms, so that an empty one is always a duplicate.
    let mut terms: Vec<Vec<(String, Vec<String>)>> = vec![Vec::new(); topologies.len()];
    for (i, topology) in topologies.iter().enumerate() {
        let at = path.index(i);
        let expressions = at.child("matchLabelExpressions");
        let mut keys = HashSet::new();
        let mut term = Vec::new();
        for (j, requirement) in topology.list("matchLabelExpressions").iter().enumerate() {
            let here = expressions.index(j);
            let key = requirement.text("key");
            let values_at = here.child("values");
            if requirement.list("values").is_empty() {
                faults.required(&values_at, "");
            }
            check::unique_texts(faults, &values_at, requirement.texts("values"));
            check::qualified_name(faults, &here.child("key"), key);
            if !keys.insert(key) {
                check::duplicate(faults, &here.child("key"), key);
            }
            let mut values: Vec<String> = requirement.texts("values").map(str::to_owned).collect();
            values.sort();
            term.push((key.to_owned(), values));
        }
        term.sort();
        for _ in terms.iter().filter(|known| **known == term) {
            check::duplicate_shown(faults, &expressions, "\"\"", "");
        }
        terms.push(term);
    }
}
