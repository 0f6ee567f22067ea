//! StatefulSets.

use corten_api::field::{Faults, Path};
use serde_json::{Value, json};

use super::{at_most_replicas, available_is_ready, collisions_only_rise, counts, default_template, options, reset_status};
use crate::doc::{Read, Write, semantic_equal};
use crate::pod::{Options, defaults, validation};
use crate::{Column, Context, Strategy, check, columns, internal, meta, table};

pub(crate) struct StatefulSets;

impl Strategy for StatefulSets {
    fn default(&self, object: &mut Value) {
        default_template(object);
        let spec = object.object("spec");
        spec.default_to("podManagementPolicy", "OrderedReady");
        let strategy = spec.object("updateStrategy");
        if strategy.text("type").is_empty() {
            strategy.put("type", "RollingUpdate");
            strategy.object("rollingUpdate");
        }
        if strategy.text("type") == "RollingUpdate"
            && let Some(rolling) = strategy.child("rollingUpdate")
            && !rolling.has("partition")
        {
            rolling.put("partition", 0);
        }
        let retention = spec.object("persistentVolumeClaimRetentionPolicy");
        retention.default_to("whenDeleted", "Retain");
        retention.default_to("whenScaled", "Retain");
        for (key, value) in [("replicas", 1), ("revisionHistoryLimit", 10)] {
            if !spec.has(key) {
                spec.put(key, value);
            }
        }
        for claim in spec.items("volumeClaimTemplates") {
            // Templates are typed as whole claims.
            claim.put("apiVersion", "v1");
            claim.put("kind", "PersistentVolumeClaim");
            defaults::claim_spec(claim.object("spec"));
            claim.object("status").default_to("phase", "Pending");
        }
        let status = object.object("status");
        for key in ["replicas", "availableReplicas"] {
            if !status.has(key) {
                status.put(key, 0);
            }
        }
    }

    fn prepare_create(&self, object: &mut Value, _: &Context<'_>) {
        reset_status(object, &["replicas", "availableReplicas"]);
        drop_disabled(object, None);
        meta::set_generation(object, 1);
    }

    fn validate(&self, object: &Value, _: &Context<'_>) -> Faults {
        let mut faults = Faults::default();
        spec(&mut faults, object, &Rules { options: options(None), is_update: false, lax_template: false });
        faults
    }

    fn prepare_update(&self, object: &mut Value, old: &Value, _: &Context<'_>) {
        object.copy_from(old, "status");
        drop_disabled(object, Some(old));
        meta::bump_generation(object, old, |object| &object["spec"]);
    }

    fn validate_status(&self, object: &Value, old: &Value, _: &Context<'_>) -> Faults {
        let mut faults = Faults::default();
        let status = &object["status"];
        let all = [
            "replicas",
            "readyReplicas",
            "currentReplicas",
            "updatedReplicas",
            "availableReplicas",
            "observedGeneration",
            "collisionCount",
        ];
        counts(&mut faults, status, &all);
        at_most_replicas(&mut faults, status, &["readyReplicas", "currentReplicas", "updatedReplicas", "availableReplicas"]);
        available_is_ready(&mut faults, status, "status.readyReplicas");
        collisions_only_rise(&mut faults, status, &old["status"]);
        faults
    }

    fn validate_update(&self, object: &Value, old: &Value, _: &Context<'_>) -> Faults {
        let mut faults = Faults::default();
        let mut faults_before = Faults::default();
        let rules = Rules { options: options(Some(old)), is_update: true, lax_template: false };
        spec(&mut faults_before, old, &rules);
        // What was not valid before must not stand in the way of other changes.
        spec(&mut faults, object, &Rules { lax_template: !faults_before.is_empty(), ..rules });
        let mut munged = object["spec"].clone();
        for key in [
            "replicas",
            "template",
            "updateStrategy",
            "minReadySeconds",
            "ordinals",
            "revisionHistoryLimit",
            "persistentVolumeClaimRetentionPolicy",
        ] {
            munged.copy_from(&old["spec"], key);
        }
        if !semantic_equal(&munged, &old["spec"]) {
            faults.forbidden(
                &Path::new("spec"),
                "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', \
                 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden",
            );
        }
        faults
    }

    fn warnings(&self, object: &Value, old: Option<&Value>, _: &Context<'_>) -> Vec<String> {
        let mut warnings = super::template_warnings(object, old);
        for (i, claim) in object["spec"].list("volumeClaimTemplates").iter().enumerate() {
            // The reference server names the place differently for new and changed objects, and never as the API does.
            let below = if old.is_some() { ".Spec" } else { "" };
            crate::claim::warnings(&mut warnings, &format!("spec.volumeClaimTemplates[{i}]{below}"), &claim["spec"]);
        }
        if object["spec"].opt_int("revisionHistoryLimit").is_some_and(|limit| limit < 0) {
            let text =
                "spec.revisionHistoryLimit: a negative value retains all historical revisions; a value >= 0 is recommended";
            warnings.push(text.into());
        }
        warnings
    }

    fn validate_name(&self, name: &str, prefix: bool) -> Vec<String> {
        crate::names::name_is_label(name, prefix)
    }

    fn complete_empty(&self, object: &mut Value) {
        object.object("spec").put("replicas", 0);
    }

    fn columns(&self) -> &'static [Column] {
        columns::STATEFULSETS
    }

    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        let spec = &object["spec"];
        let [names, images] = table::containers(&spec["template"]["spec"]);
        let ready = format!("{}/{}", object["status"].int("readyReplicas"), spec.int("replicas"));
        vec![table::name(object), ready.into(), table::age(object, now), names, images]
    }
}

/// What is let pass.
struct Rules {
    options: Options,
    /// Names and claims that cannot change are not looked at again.
    is_update: bool,
    /// The template is not looked at.
    lax_template: bool,
}

/// Drops what belongs to features that are switched off, unless the object has it already.
fn drop_disabled(object: &mut Value, old: Option<&Value>) {
    super::drop_disabled(object, old);
    let in_use = old.is_some_and(|old| old["spec"]["updateStrategy"]["rollingUpdate"].has("maxUnavailable"));
    if let Some(rolling) = object.object("spec").object("updateStrategy").child("rollingUpdate").filter(|_| !in_use) {
        rolling.drop_key("maxUnavailable");
    }
}

fn spec(faults: &mut Faults, object: &Value, rules: &Rules) {
    let spec = &object["spec"];
    let path = Path::new("spec");
    match spec.text("podManagementPolicy") {
        "" => faults.required(&path.child("podManagementPolicy"), ""),
        "OrderedReady" | "Parallel" => {}
        other => faults.invalid_str(&path.child("podManagementPolicy"), other, "must be 'OrderedReady' or 'Parallel'"),
    }
    strategy(faults, &path.child("updateStrategy"), &spec["updateStrategy"]);
    let retention = &spec["persistentVolumeClaimRetentionPolicy"];
    if retention.is_object() {
        let at = path.child("persistentVolumeClaimRetentionPolicy");
        for key in ["whenDeleted", "whenScaled"] {
            check::one_of(faults, &at.child(key), retention.text(key), &["Retain", "Delete"]);
        }
    }
    if !rules.is_update {
        let at = path.child("volumeClaimTemplates");
        for (i, claim) in spec.list("volumeClaimTemplates").iter().enumerate() {
            crate::claim::spec(faults, &at.index(i).child("spec"), &claim["spec"], &crate::claim::Lax::default());
        }
    }
    check::field_not_negative(faults, &path, spec, "replicas");
    check::field_not_negative(faults, &path, spec, "minReadySeconds");
    if let Some(ordinals) = spec.opt("ordinals") {
        check::field_not_negative(faults, &path.child("ordinals"), ordinals, "start");
    }
    let service = spec.text("serviceName");
    if !service.is_empty() && !rules.is_update {
        check::dns_label(faults, &path.child("serviceName"), service);
    }
    let selector = &spec["selector"];
    super::selector(faults, &path, spec, "empty selector is invalid for statefulset");
    if !check::selector_compiles(selector) {
        check::invalid_selector(faults, &path.child("selector"), selector, "");
    } else {
        template(faults, &path.child("template"), spec, rules);
    }
    super::runs_forever(faults, &path.child("template"), &spec["template"], "StatefulSet");
}

/// Claims become volumes of the pods, so the template is checked as if it had them; names of its pods are the controller's.
fn template(faults: &mut Faults, path: &Path<'_>, spec: &Value, rules: &Rules) {
    let selector = &spec["selector"];
    if selector.is_null() || !check::selector_is_empty(selector) {
        super::labels_match(faults, path, &spec["template"], selector);
    }
    let mut template = spec["template"].clone();
    for key in ["subdomain", "hostname"] {
        template.object("spec").drop_key(key);
    }
    let claims: Vec<Value> = spec
        .list("volumeClaimTemplates")
        .iter()
        .map(|claim| {
            let name = claim["metadata"].text("name");
            json!({ "name": name, "persistentVolumeClaim": { "claimName": name } })
        })
        .collect();
    // Of claims with one name there is one volume.
    let mut known = std::collections::HashSet::new();
    let claims: Vec<Value> = claims.into_iter().filter(|claim| known.insert(claim.text("name").to_owned())).collect();
    if !claims.is_empty() {
        let names: Vec<&str> = claims.iter().map(|claim| claim.text("name")).collect();
        let pod = template.object("spec");
        let others: Vec<Value> =
            pod.list("volumes").iter().filter(|volume| !names.contains(&volume.text("name"))).cloned().collect();
        let volumes: Vec<Value> = claims.iter().cloned().chain(others).collect();
        pod.put("volumes", volumes);
    }
    if !rules.lax_template {
        validation::template(faults, path, &template, &rules.options);
    }
    validation::template_metadata(faults, path, &template, &rules.options);
}

fn strategy(faults: &mut Faults, path: &Path<'_>, strategy: &Value) {
    let at = path.child("rollingUpdate");
    match strategy.text("type") {
        "" => faults.required(path, ""),
        "OnDelete" => {
            if let Some(rolling) = strategy.opt("rollingUpdate") {
                let shown = internal::shown("RollingUpdateStatefulSetStrategy", rolling);
                check::invalid_shown(faults, &at, &shown, "only allowed for updateStrategy 'RollingUpdate'");
            }
        }
        "RollingUpdate" => {
            if let Some(rolling) = strategy.opt("rollingUpdate") {
                check::field_not_negative(faults, &at, rolling, "partition");
                if let Some(unavailable) = rolling.opt("maxUnavailable") {
                    let here = at.child("maxUnavailable");
                    check::int_or_percent(faults, &here, unavailable);
                    if check::int_or_percent_value(unavailable) == 0 {
                        faults.invalid(&here, unavailable, "cannot be 0");
                    }
                    check::at_most_all(faults, &here, unavailable);
                }
            }
        }
        _ => {
            let shown = internal::shown("StatefulSetUpdateStrategy", strategy);
            check::invalid_shown(faults, path, &shown, "must be 'RollingUpdate' or 'OnDelete'");
        }
    }
}
