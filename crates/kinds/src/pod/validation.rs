//! Validation of a pod spec, alone, in a pod, or in a template.

use corten_api::field::{Faults, Path};
use serde_json::Value;

use crate::check;
use crate::doc::Read;
use crate::pod::containers::{self, Around};
use crate::pod::{Options, aggregate, annotations, env, scheduling, security, volumes};
use crate::quantity::Quantity;
use crate::{names, resources};

/// Faults of a new pod, without those of its metadata.
pub(crate) fn create(pod: &Value, options: &Options) -> Faults {
    let mut faults = Faults::default();
    whole(&mut faults, pod, options);
    let spec = &pod["spec"];
    let path = Path::new("spec");
    if !spec.list("ephemeralContainers").is_empty() {
        faults.forbidden(&path.child("ephemeralContainers"), "cannot be set on create");
    }
    if !spec.text("nodeName").is_empty() && !spec.list("schedulingGates").is_empty() {
        faults.forbidden(&path.child("nodeName"), "cannot be set until all schedulingGates have been cleared");
    }
    annotations::match_fields(&mut faults, &path, &pod["metadata"], spec);
    faults
}

/// What create and update of a pod have in common.
pub(super) fn whole(faults: &mut Faults, pod: &Value, options: &Options) {
    let metadata = Path::new("metadata");
    let path = Path::new("spec");
    let spec = &pod["spec"];
    annotations::validate(faults, &metadata.child("annotations"), pod["metadata"].map("annotations"), spec, options);
    validate_spec(faults, &path, spec, Some(&pod["metadata"]), options);
    if spec.text("serviceAccountName").is_empty() {
        let at = path.child("volumes");
        for (i, volume) in spec.list("volumes").iter().enumerate() {
            let here = at.index(i);
            let projected = here.child("projected");
            let sources = projected.child("sources");
            for (j, source) in volume["projected"].list("sources").iter().enumerate() {
                if source.has("serviceAccountToken") {
                    let detail = "must not be specified when serviceAccountName is not set";
                    faults.forbidden(&sources.index(j).child("serviceAccountToken"), detail);
                }
            }
        }
    }
    for kind in ["containers", "initContainers"] {
        let at = path.child(kind);
        for (i, container) in spec.list(kind).iter().enumerate() {
            containers::image_is_trimmed(faults, &at.index(i), container);
        }
    }
}

/// Faults of a `v1.PodTemplateSpec`.
pub(crate) fn template(faults: &mut Faults, path: &Path<'_>, template: &Value, options: &Options) {
    template_metadata(faults, path, template, options);
    let (metadata, spec) = (&template["metadata"], &template["spec"]);
    let at = path.child("spec");
    validate_spec(faults, &at, spec, None, options);
    annotations::match_fields(faults, &at, metadata, spec);
    if !spec.list("ephemeralContainers").is_empty() {
        faults.forbidden(&at.child("ephemeralContainers"), "ephemeral containers not allowed in pod template");
    }
}

/// Faults of the labels and annotations of a `v1.PodTemplateSpec`.
pub(crate) fn template_metadata(faults: &mut Faults, path: &Path<'_>, template: &Value, options: &Options) {
    let metadata = &template["metadata"];
    let annotations = path.child("annotations");
    check::labels(faults, &path.child("labels"), metadata.map("labels"));
    check::annotations(faults, &annotations, metadata.map("annotations"));
    annotations::validate(faults, &annotations, metadata.map("annotations"), &template["spec"], options);
}

fn validate_spec(faults: &mut Faults, path: &Path<'_>, spec: &Value, metadata: Option<&Value>, options: &Options) {
    let pod_name = metadata.map(|metadata| metadata.text("name"));
    let is_mirror = metadata.is_some_and(|metadata| metadata.map("annotations").contains_key(annotations::MIRROR));
    if !spec.has("terminationGracePeriodSeconds") {
        faults.required(&path.child("terminationGracePeriodSeconds"), "");
    }
    let good = volumes::validate(faults, &path.child("volumes"), spec.list("volumes"), pod_name, options);
    scheduling::claims(faults, &path.child("resourceClaims"), spec.list("resourceClaims"), is_mirror);
    let around = Around { spec, volumes: good, options };
    containers::regular(faults, &path.child("containers"), &around);
    containers::init(faults, &path.child("initContainers"), &around);
    containers::ephemeral(faults, &path.child("ephemeralContainers"), &around);
    pod_resources(faults, &path.child("resources"), spec, options);
    host_network_ports(faults, &path.child("containers"), spec, options);
    check::required_one_of(faults, &path.child("restartPolicy"), spec.text("restartPolicy"), &["Always", "OnFailure", "Never"]);
    check::required_one_of(
        faults,
        &path.child("dnsPolicy"),
        spec.text("dnsPolicy"),
        &["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"],
    );
    check::labels(faults, &path.child("nodeSelector"), spec.map("nodeSelector"));
    security::pod(faults, &path.child("securityContext"), spec, options);
    scheduling::affinity(faults, &path.child("affinity"), &spec["affinity"], options);
    dns_config(faults, &path.child("dnsConfig"), spec);
    let gates = path.child("readinessGates");
    for (i, gate) in spec.list("readinessGates").iter().enumerate() {
        check::qualified_name(faults, &gates.index(i).child("conditionType"), gate.text("conditionType"));
    }
    scheduling::gates(faults, &path.child("schedulingGates"), spec.list("schedulingGates"));
    let constraints = spec.list("topologySpreadConstraints");
    scheduling::spread(faults, &path.child("topologySpreadConstraints"), constraints, options);
    security::host_process(faults, path, spec);
    security::host_users(faults, path, spec, options);
    hostname_override(faults, path, spec);
    for key in ["serviceAccountName", "nodeName"] {
        if !spec.text(key).is_empty() {
            check::dns_subdomain(faults, &path.child(key), spec.text(key));
        }
    }
    if let Some(seconds) = spec.opt_int("activeDeadlineSeconds")
        && !(1..=i64::from(i32::MAX)).contains(&seconds)
    {
        faults.invalid_int(&path.child("activeDeadlineSeconds"), seconds, "must be between 1 and 2147483647, inclusive");
    }
    for key in ["hostname", "subdomain"] {
        if !spec.text(key).is_empty() {
            check::dns_label(faults, &path.child(key), spec.text(key));
        }
    }
    scheduling::tolerations(faults, &path.child("tolerations"), spec.list("tolerations"));
    let aliases = path.child("hostAliases");
    for (i, alias) in spec.list("hostAliases").iter().enumerate() {
        let at = aliases.index(i);
        check::ip(faults, &at.child("ip"), alias.text("ip"));
        let hostnames = at.child("hostnames");
        for (j, name) in alias.texts("hostnames").enumerate() {
            check::dns_subdomain(faults, &hostnames.index(j), name);
        }
    }
    if !spec.text("priorityClassName").is_empty() {
        check::dns_subdomain(faults, &path.child("priorityClassName"), spec.text("priorityClassName"));
    }
    if let Some(name) = spec.opt_text("runtimeClassName") {
        check::dns_subdomain(faults, &path.child("runtimeClassName"), name);
    }
    if let Some(policy) = spec.opt_text("preemptionPolicy") {
        let at = path.child("preemptionPolicy");
        check::required_one_of(faults, &at, policy, &["PreemptLowerPriority", "Never"]);
    }
    if let Some(overhead) = spec.opt("overhead") {
        overhead_amounts(faults, &path.child("overhead"), overhead, options);
    }
    security::operating_system(faults, path, spec);
    env::file_volumes(faults, path, spec);
}

/// Overhead is checked as if it were a container's limits.
pub(crate) fn overhead_amounts(faults: &mut Faults, path: &Path<'_>, overhead: &Value, options: &Options) {
    let limits = serde_json::json!({ "limits": overhead });
    containers::requirements(faults, path, &limits, resources::check_container_name, &[], options);
}

fn hostname_override(faults: &mut Faults, path: &Path<'_>, spec: &Value) {
    let Some(name) = spec.opt_text("hostnameOverride") else { return };
    let at = path.child("hostnameOverride");
    if spec.flag("setHostnameAsFQDN") {
        faults.forbidden(&at, "may not be specified when setHostnameAsFQDN is true");
    }
    if spec.flag("hostNetwork") {
        faults.forbidden(&at, "may not be specified when hostNetwork is true");
    }
    if name.len() > 64 {
        faults.too_long(&at, 64);
    }
    check::dns_subdomain(faults, &at, name);
}

fn host_network_ports(faults: &mut Faults, path: &Path<'_>, spec: &Value, options: &Options) {
    if !spec.flag("hostNetwork") {
        return;
    }
    for (i, container) in spec.list("containers").iter().enumerate() {
        let at = path.index(i);
        let ports = at.child("ports");
        for (j, port) in container.list("ports").iter().enumerate() {
            let (host, own) = (port.int("hostPort"), port.int("containerPort"));
            if (options.is_pod || host != 0) && host != own {
                let detail = "must match `containerPort` when `hostNetwork` is true";
                faults.invalid_int(&ports.index(j).child("hostPort"), host, detail);
            }
        }
    }
}

fn dns_config(faults: &mut Faults, path: &Path<'_>, spec: &Value) {
    let config = &spec["dnsConfig"];
    let servers = config.list("nameservers");
    let at = path.child("nameservers");
    if spec.text("dnsPolicy") == "None" {
        if config.is_null() {
            return faults.required(path, "must provide `dnsConfig` when `dnsPolicy` is None");
        }
        if servers.is_empty() {
            return faults.required(&at, "must provide at least one DNS nameserver when `dnsPolicy` is None");
        }
    }
    if config.is_null() {
        return;
    }
    if servers.len() > 3 {
        faults.invalid(&at, &config["nameservers"], "must not have more than 3 nameservers");
    }
    for (i, server) in config.texts("nameservers").enumerate() {
        check::ip(faults, &at.index(i), server);
    }
    let searches: Vec<&str> = config.texts("searches").collect();
    let at = path.child("searches");
    if searches.len() > 32 {
        faults.invalid(&at, &config["searches"], "must not have more than 32 search paths");
    }
    if searches.join(" ").len() > 2048 {
        let detail = "must not have more than 2048 characters (including spaces) in the search list";
        faults.invalid(&at, &config["searches"], detail);
    }
    for (i, search) in searches.into_iter().enumerate() {
        if search != "." {
            let name = search.strip_suffix('.').unwrap_or(search);
            check::invalid_each(faults, &at.index(i), name, names::dns_subdomain_with_underscore(name));
        }
    }
    let at = path.child("options");
    for (i, option) in config.list("options").iter().enumerate() {
        if option.text("name").is_empty() {
            faults.required(&at.index(i), "must not be empty");
        }
    }
}

/// `resources` of the whole pod (KEP-2837): no less than the containers' requests, no less than any one's limit.
fn pod_resources(faults: &mut Faults, path: &Path<'_>, spec: &Value, options: &Options) {
    let Some(own) = spec.opt("resources") else { return };
    if spec["os"].text("name") == "windows" {
        return faults.forbidden(path, "may not be set for a windows pod");
    }
    if own.has("claims") {
        faults.forbidden(&path.child("claims"), "claims may not be set for Resources at pod-level");
    }
    let claims: Vec<&str> = spec.list("resourceClaims").iter().map(|claim| claim.text("name")).collect();
    containers::requirements(faults, path, own, resources::check_pod_name, &claims, options);
    let requests = path.child("requests");
    for (name, sum) in aggregate::requests(spec) {
        let Some(have) = Quantity::of(&own["requests"][&name]).filter(|have| sum.amount() > have.amount()) else { continue };
        let detail = format!("must be greater than or equal to aggregate container requests of {sum}");
        faults.invalid_str(&requests.key(&name), &have.to_string(), &detail);
    }
    // Huge pages cannot be overcommitted, not by a pod either.
    let limits = path.child("limits");
    for (name, sum) in aggregate::limits(spec).into_iter().filter(|(name, _)| resources::is_huge_page(name)) {
        let Some(have) = Quantity::of(&own["limits"][&name]).filter(|have| sum.amount() > have.amount()) else { continue };
        let detail = format!("must be greater than or equal to aggregate container limits of {sum}");
        faults.invalid_str(&limits.key(&name), &have.to_string(), &detail);
    }
    let containers = path.child("containers");
    for (i, container) in spec.list("containers").iter().enumerate() {
        for (name, limit) in container["resources"].map("limits") {
            let (Some(limit), Some(most)) = (Quantity::of(limit), Quantity::of(&own["limits"][name])) else { continue };
            if limit.amount() > most.amount() {
                let at = containers.index(i);
                let at = at.key(name);
                let detail = format!("must be less than or equal to pod limits of {most}");
                faults.invalid_str(&at.child("limits"), &limit.to_string(), &detail);
            }
        }
    }
}
