//! PodTemplates: a template and nothing else.

use corten_api::field::{Faults, Path};
use serde_json::Value;

use crate::doc::{Read, Write};
use crate::pod::{Options, defaults, validation, warnings};
use crate::{Column, Context, Strategy, columns, meta, table};

pub(crate) struct PodTemplates;

impl Strategy for PodTemplates {
    fn default(&self, object: &mut Value) {
        defaults::template(object.object("template"));
    }

    fn prepare_create(&self, object: &mut Value, _: &Context<'_>) {
        crate::pod::drop_disabled(object.object("template").object("spec"), None);
        meta::set_generation(object, 1);
    }

    fn validate(&self, object: &Value, _: &Context<'_>) -> Faults {
        let mut faults = Faults::default();
        validation::template(&mut faults, &Path::new("template"), &object["template"], &Options::new(false, None));
        faults
    }

    fn prepare_update(&self, object: &mut Value, old: &Value, _: &Context<'_>) {
        crate::pod::drop_disabled(object.object("template").object("spec"), Some(&old["template"]["spec"]));
        meta::bump_generation(object, old, |object| &object["template"]);
    }

    fn validate_update(&self, object: &Value, old: &Value, _: &Context<'_>) -> Faults {
        let mut faults = Faults::default();
        let options = Options::new(false, Some(&old["template"]));
        validation::template(&mut faults, &Path::new("template"), &object["template"], &options);
        faults
    }

    fn warnings(&self, object: &Value, old: Option<&Value>, _: &Context<'_>) -> Vec<String> {
        let mut found = Vec::new();
        if old.is_none_or(|old| old["template"] != object["template"]) {
            let template = &object["template"];
            warnings::spec(&mut found, Some(&Path::new("template")), &template["spec"], &template["metadata"]);
        }
        found
    }

    fn columns(&self) -> &'static [Column] {
        columns::PODTEMPLATES
    }

    fn row(&self, object: &Value, _: jiff::Timestamp) -> Vec<Value> {
        let template = &object["template"];
        let [names, images] = table::containers(&template["spec"]);
        vec![table::name(object), names, images, table::labels(template["metadata"].map("labels")).into()]
    }
}
