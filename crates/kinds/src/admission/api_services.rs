//! `apiregistration.k8s.io`: defaults, validation, table rows.

use corten_api::field::{Faults, Path};
use serde_json::{Value, json};

use super::client::default_port;
use crate::doc::{Read, Write};
use crate::{Column, Context, Strategy, check, columns, meta, names, table};

pub(crate) struct ApiServices;

impl Strategy for ApiServices {
    fn default(&self, object: &mut Value) {
        default_port(object.object("spec"));
        object.object("status");
    }

    fn prepare_create(&self, object: &mut Value, ctx: &Context<'_>) {
        let mut status = json!({});
        if !object["spec"].has("service") {
            status.put(
                "conditions",
                json!([{
                    "type": "Available", "status": "True", "reason": "Local", "message": "Local APIServices are always available",
                    "lastTransitionTime": corten_api::time::seconds(ctx.now),
                }]),
            );
        }
        object.put("status", status);
    }

    fn prepare_update(&self, object: &mut Value, old: &Value, _: &Context<'_>) {
        object.copy_from(old, "status");
    }

    fn prepare_status(&self, object: &mut Value, old: &Value, _: &Context<'_>) {
        meta::keep_all_but_status(object, old);
    }

    fn validate(&self, object: &Value, _: &Context<'_>) -> Faults {
        let mut faults = Faults::default();
        let spec = &object["spec"];
        let path = Path::new("spec");
        let (group, version) = (spec.text("group"), spec.text("version"));
        if !group.is_empty() {
            check::dns_subdomain(&mut faults, &path.child("group"), group);
        } else if version != "v1" {
            let detail = "only v1 may have an empty group and it better be legacy kube";
            faults.required(&path.child("group"), detail);
        }
        check::invalid_each(&mut faults, &path.child("version"), version, names::dns1035_label(version));
        for (key, below) in [("groupPriorityMinimum", 20_000), ("versionPriority", 1000)] {
            let value = spec.int(key);
            if value <= 0 || value > below {
                faults.invalid_int(&path.child(key), value, &format!("must be positive and less than {below}"));
            }
        }
        match spec.opt("service") {
            None => {
                if !spec.text("caBundle").is_empty() {
                    faults.invalid_str(
                        &path.child("caBundle"),
                        &format!("{} bytes", spec.text("caBundle").trim_end_matches('=').len() * 3 / 4),
                        "local APIServices may not have a caBundle",
                    );
                }
                if spec.flag("insecureSkipTLSVerify") {
                    let detail = "local APIServices may not have insecureSkipTLSVerify";
                    faults.invalid(&path.child("insecureSkipTLSVerify"), &json!(true), detail);
                }
            }
            Some(service) => {
                let at = path.child("service");
                for key in ["namespace", "name"] {
                    if service.text(key).is_empty() {
                        faults.required(&at.child(key), "");
                    }
                }
                let port = service.int("port");
                if !(1..=65535).contains(&port) {
                    let detail = "port is not valid: must be between 1 and 65535, inclusive";
                    faults.invalid_int(&at.child("port"), port, detail);
                }
                if spec.flag("insecureSkipTLSVerify") && !spec.text("caBundle").is_empty() {
                    let detail = "may not be true if caBundle is present";
                    faults.invalid(&path.child("insecureSkipTLSVerify"), &json!(true), detail);
                }
            }
        }
        faults
    }

    fn validate_status(&self, object: &Value, _: &Value, _: &Context<'_>) -> Faults {
        let mut faults = Faults::default();
        let path = Path::new("status");
        let conditions = path.child("conditions");
        for (i, condition) in object["status"].list("conditions").iter().enumerate() {
            let at = conditions.index(i);
            check::one_of(&mut faults, &at.child("status"), condition.text("status"), &["True", "False", "Unknown"]);
        }
        faults
    }

    fn validate_name_of(&self, object: &Value, name: &str, _: bool) -> Vec<String> {
        let wrong = names::name_is_path_segment(name, false);
        let wanted = format!("{}.{}", object["spec"].text("version"), object["spec"].text("group"));
        if wrong.is_empty() && name != wanted {
            return vec![format!("must be `spec.version+\".\"+spec.group`: {}", corten_api::field::quoted(&wanted))];
        }
        wrong
    }

    fn unconditional_update(&self) -> bool {
        false
    }

    fn columns(&self) -> &'static [Column] {
        columns::APISERVICES
    }

    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        let service = object["spec"]
            .opt("service")
            .map_or("Local".to_owned(), |service| format!("{}/{}", service.text("namespace"), service.text("name")));
        let available = object["status"].list("conditions").iter().find(|condition| condition.text("type") == "Available");
        let state = available.map_or("Unknown".to_owned(), |condition| match condition.text("status") {
            "True" => "True".to_owned(),
            other => format!("{other} ({})", condition.text("reason")),
        });
        vec![table::name(object), service.into(), state.into(), table::age(object, now)]
    }
}
