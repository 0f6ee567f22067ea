//! The objects that a binding gives a policy as parameters.

use serde_json::{Value, json};

use corten_api::catalogue::Catalogue;
use corten_api::selector::LabelSelector;

use super::super::tools::text;
use crate::reader::Reader;

/// Why there are none, and whose fault it is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fault {
    Policy(String),
    Binding(String),
}

/// One entry a judgement: with an object, or without when the policy or the binding asks for none.
pub(super) fn of(
    kind: &Value,
    binding: &Value,
    namespace: &str,
    catalogue: &Catalogue,
    reader: &Reader,
) -> Result<Vec<Option<Value>>, Fault> {
    let reference = &binding["paramRef"];
    if kind.is_null() {
        return Ok(vec![None]);
    }
    let (version, name) = (text(kind, "/apiVersion"), text(kind, "/kind"));
    let (group, short) = version.split_once('/').unwrap_or(("", version));
    let resource = catalogue.kind(group, name).filter(|resource| resource.version(short).is_some());
    let Some(resource) = resource else {
        let why = format!("failed to find resource referenced by paramKind: '{version}, Kind={name}'");
        return Err(Fault::Policy(why));
    };
    if reference.is_null() {
        return Ok(vec![None]);
    }
    let wanted = text(reference, "/namespace");
    let place = match (resource.namespaced, wanted, namespace) {
        (false, "", _) => "",
        (false, ..) => {
            return Err(Fault::Binding("paramRef.namespace must not be provided for a cluster-scoped `paramKind`".into()));
        }
        (true, "", "") => {
            let why = "cannot use namespaced paramRef in policy binding that matches cluster-scoped resources";
            return Err(Fault::Binding(why.into()));
        }
        (true, "", own) => own,
        (true, other, _) => other,
    };
    let named = text(reference, "/name");
    let mut found: Vec<Value> = if named.is_empty() {
        let selector =
            LabelSelector::from_object(Some(&reference["selector"])).map_err(|fault| Fault::Binding(fault.to_string()))?;
        let all = reader.list(&resource.group, &resource.plural, place);
        all.iter().map(|entry| entry.decode()).filter(|object| selector.matches(&object["metadata"]["labels"])).collect()
    } else {
        reader.document(&resource.group, &resource.plural, place, named).into_iter().collect()
    };
    if found.is_empty() && reference["parameterNotFoundAction"] == "Deny" {
        let why = "no params found for policy binding with `Deny` parameterNotFoundAction";
        return Err(Fault::Binding(why.into()));
    }
    for object in &mut found {
        let stored = text(object, "/apiVersion").to_owned();
        corten_kinds::convert(group, &resource.plural, &stored, version, object);
        object["apiVersion"] = json!(version);
        object["kind"] = json!(name);
    }
    Ok(found.into_iter().map(Some).collect())
}
