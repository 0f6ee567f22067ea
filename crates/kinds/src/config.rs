//! ConfigMaps and Secrets.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use corten_api::field::{Faults, Path};
use serde_json::{Value, json};

use crate::doc::{Read, Write};
use crate::{Column, Context, Strategy, check, columns, names, table};

/// Largest sum of the values of one object, 1 MiB.
const MAX_SIZE: usize = 1024 * 1024;

pub(crate) struct ConfigMaps;

impl Strategy for ConfigMaps {
    fn labels_are_free(&self) -> bool {
        true
    }

    fn validate(&self, object: &Value, _: &Context<'_>) -> Faults {
        let mut faults = Faults::default();
        let mut size = 0;
        let data = Path::new("data");
        for (key, value) in object.map("data") {
            let at = data.key(key);
            check::invalid_each(&mut faults, &at, key, names::config_map_key(key));
            if object.map("binaryData").contains_key(key) {
                faults.invalid_str(&at, key, "duplicate of key present in binaryData");
            }
            size += value.as_str().map_or(0, str::len);
        }
        let binary = Path::new("binaryData");
        for (key, value) in object.map("binaryData") {
            check::invalid_each(&mut faults, &binary.key(key), key, names::config_map_key(key));
            size += decoded_length(value);
        }
        if size > MAX_SIZE {
            // The path of the object itself, as upstream writes it.
            faults.too_long(&Path::new("[]"), MAX_SIZE);
        }
        faults
    }

    fn validate_update(&self, object: &Value, old: &Value, ctx: &Context<'_>) -> Faults {
        let mut faults = Faults::default();
        stays_immutable(&mut faults, object, old);
        // None is filled in with an empty one.
        keeps(&mut faults, "data", old, object.map("data") == old.map("data"));
        keeps(&mut faults, "binaryData", old, object["binaryData"] == old["binaryData"]);
        faults.0.extend(self.validate(object, ctx).0);
        faults
    }

    fn columns(&self) -> &'static [Column] {
        columns::CONFIGMAPS
    }

    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        let entries = object.map("data").len() + object.map("binaryData").len();
        vec![table::name(object), json!(entries), table::age(object, now)]
    }
}

pub(crate) struct Secrets;

impl Strategy for Secrets {
    fn default(&self, object: &mut Value) {
        object.default_to("type", "Opaque");
        // `stringData` is a way to write `data`, and is never kept.
        let texts = object.map("stringData").clone();
        object.drop_key("stringData");
        for (key, text) in texts {
            object.object("data").put(&key, BASE64.encode(text.as_str().unwrap_or_default()));
        }
    }

    fn validate(&self, object: &Value, _: &Context<'_>) -> Faults {
        let mut faults = Faults::default();
        let path = Path::new("data");
        let data = object.map("data");
        let mut size = 0;
        for (key, value) in data {
            check::invalid_each(&mut faults, &path.key(key), key, names::config_map_key(key));
            size += decoded_length(value);
        }
        if size > MAX_SIZE {
            faults.too_long(&path, MAX_SIZE);
        }
        match object.text("type") {
            "kubernetes.io/service-account-token" => {
                const ACCOUNT: &str = "kubernetes.io/service-account.name";
                if object["metadata"]["annotations"].text(ACCOUNT).is_empty() {
                    let metadata = Path::new("metadata");
                    let annotations = metadata.child("annotations");
                    faults.required(&annotations.key(ACCOUNT), "");
                }
            }
            "kubernetes.io/dockercfg" => docker_config(&mut faults, &path, object, ".dockercfg"),
            "kubernetes.io/dockerconfigjson" => docker_config(&mut faults, &path, object, ".dockerconfigjson"),
            "kubernetes.io/basic-auth" if !data.contains_key("username") && !data.contains_key("password") => {
                faults.required(&path.key("username"), "");
                faults.required(&path.key("password"), "");
            }
            "kubernetes.io/ssh-auth" if object["data"].text("ssh-privatekey").is_empty() => {
                faults.required(&path.key("ssh-privatekey"), "");
            }
            "kubernetes.io/tls" => {
                for key in ["tls.crt", "tls.key"] {
                    if !data.contains_key(key) {
                        faults.required(&path.key(key), "");
                    }
                }
            }
            _ => {}
        }
        faults
    }

    fn prepare_update(&self, object: &mut Value, old: &Value, _: &Context<'_>) {
        // Old clients that know no types may leave it out.
        if object.text("type").is_empty() {
            object.copy_from(old, "type");
        }
    }

    fn validate_update(&self, object: &Value, old: &Value, ctx: &Context<'_>) -> Faults {
        let mut faults = Faults::default();
        check::immutable(&mut faults, &Path::new("type"), &object["type"], &old["type"]);
        stays_immutable(&mut faults, object, old);
        keeps(&mut faults, "data", old, object["data"] == old["data"]);
        faults.0.extend(self.validate(object, ctx).0);
        faults
    }

    fn warnings(&self, object: &Value, _: Option<&Value>, _: &Context<'_>) -> Vec<String> {
        if object.text("type") != "kubernetes.io/tls" {
            return Vec::new();
        }
        let bytes = |key: &str| BASE64.decode(object["data"].text(key)).unwrap_or_default();
        crate::pem::key_pair_warning(&bytes("tls.crt"), &bytes("tls.key")).into_iter().collect()
    }

    fn fields(&self, object: &Value) -> Vec<(&'static str, String)> {
        vec![("type", object.text("type").into())]
    }

    fn columns(&self) -> &'static [Column] {
        columns::SECRETS
    }

    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        vec![table::name(object), object.text("type").into(), json!(object.map("data").len()), table::age(object, now)]
    }
}

/// Bytes in a base64 text.
fn decoded_length(value: &Value) -> usize {
    let text = value.as_str().unwrap_or_default();
    let padding = text.bytes().rev().take_while(|b| *b == b'=').count();
    (text.len() / 4 * 3).saturating_sub(padding)
}

const IMMUTABLE: &str = "field is immutable when `immutable` is set";

/// Once `immutable` is set, it stays so.
fn stays_immutable(faults: &mut Faults, object: &Value, old: &Value) {
    if old.flag("immutable") && !object.flag("immutable") {
        faults.forbidden(&Path::new("immutable"), IMMUTABLE);
    }
}

/// Nor may what it protects change: an empty map that was sent is not the same as none.
fn keeps(faults: &mut Faults, key: &'static str, old: &Value, is_same: bool) {
    if old.flag("immutable") && !is_same {
        faults.forbidden(&Path::new(key), IMMUTABLE);
    }
}

fn docker_config(faults: &mut Faults, path: &Path<'_>, object: &Value, key: &str) {
    let at = path.key(key);
    let Some(encoded) = object["data"].opt_text(key) else { return faults.required(&at, "") };
    let bytes = BASE64.decode(encoded).unwrap_or_default();
    if let Err(detail) = crate::go_json::object(&bytes) {
        faults.invalid_str(&at, "<secret contents redacted>", &detail);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{context, shown};

    #[test]
    fn what_is_immutable_tells_empty_from_none() {
        let faults = |strategy: &dyn Strategy, old: Value, new: Value| {
            let whole = |mut object: Value| {
                object["immutable"] = true.into();
                object
            };
            shown(&strategy.validate_update(&whole(new), &whole(old), &context("")))
        };
        let fault = |key: &str| vec![format!("{key}: Forbidden: {IMMUTABLE}")];
        assert_eq!(faults(&ConfigMaps, json!({}), json!({"binaryData": {}})), fault("binaryData"));
        assert_eq!(faults(&ConfigMaps, json!({}), json!({"data": {}})), Vec::<String>::new());
        assert_eq!(faults(&ConfigMaps, json!({"data": {"a": "b"}}), json!({"data": {}})), fault("data"));
        assert_eq!(faults(&Secrets, json!({}), json!({"data": {}})), fault("data"));
        assert_eq!(faults(&Secrets, json!({"data": {"a": ""}}), json!({"data": {"a": ""}})), Vec::<String>::new());
    }
}
