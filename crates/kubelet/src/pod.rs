//! Questions every part of the kubelet asks about a Pod object.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use k8s_openapi::api::core::v1::{Container, EphemeralContainer, Pod, PodSpec, ResourceRequirements};

use crate::quantity::{self, Resources};

/// Where a pod came from: `file` for static pods, absent or `api` else.
pub const SOURCE: &str = "kubernetes.io/config.source";
/// Hash of a static pod's manifest, which is its identity on the node.
pub const CONFIG_HASH: &str = "kubernetes.io/config.hash";
/// Marks the API object that mirrors a static pod; its value is the static pod's hash.
pub const MIRROR: &str = "kubernetes.io/config.mirror";
/// Time at which this kubelet first saw a static pod.
pub const CONFIG_SEEN: &str = "kubernetes.io/config.seen";

/// Least priority of what the cluster cannot do without.
const SYSTEM_CRITICAL: i32 = 2_000_000_000;

static EMPTY: LazyLock<PodSpec> = LazyLock::new(PodSpec::default);

/// Which list of the specification a container stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Runs to its end before the next one starts.
    Init,
    /// An init container with `restartPolicy: Always`: started in order, kept beside the regular ones.
    Sidecar,
    /// One of `spec.containers`.
    Regular,
    /// Added to a running pod for debugging.
    Ephemeral,
}

/// Short questions about a pod.
pub trait PodExt {
    /// The specification, empty when there is none.
    fn spec(&self) -> &PodSpec;
    fn name(&self) -> &str;
    fn namespace(&self) -> &str;
    /// Identity on the node: the manifest's hash for a static pod, else the UID.
    fn uid(&self) -> &str;
    /// `name_namespace(uid)`, as upstream's messages name a pod.
    fn described(&self) -> String;
    fn annotation(&self, name: &str) -> Option<&str>;
    fn is_static(&self) -> bool;
    fn is_mirror(&self) -> bool;
    fn is_deleting(&self) -> bool;
    /// Phase in the object's status is `Succeeded` or `Failed`.
    fn is_finished(&self) -> bool;
    fn host_network(&self) -> bool;
    fn restart_policy(&self) -> &str;
    fn init_containers(&self) -> &[Container];
    fn ephemeral_containers(&self) -> &[EphemeralContainer];
    /// A container by name, with its kind; ephemeral ones in the shape of the others.
    fn container(&self, name: &str) -> Option<(Kind, Container)>;
    /// All containers in the order they start.
    fn containers(&self) -> Vec<(Kind, Container)>;
    fn qos(&self) -> Qos;
    /// Static, or of the priority of what the cluster cannot do without: never evicted.
    fn is_critical(&self) -> bool;
    /// What the scheduler counted for the pod.
    fn requests(&self) -> BTreeMap<String, i64>;
    /// The most that its containers may use together, of what any of them has a limit for.
    fn limits(&self) -> BTreeMap<String, i64>;
}

/// Quality of service class.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Qos {
    BestEffort,
    Burstable,
    Guaranteed,
}

impl Qos {
    pub fn name(self) -> &'static str {
        match self {
            Self::BestEffort => "BestEffort",
            Self::Burstable => "Burstable",
            Self::Guaranteed => "Guaranteed",
        }
    }
}

pub fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

pub fn init_kind(container: &Container) -> Kind {
    if is_sidecar(container) { Kind::Sidecar } else { Kind::Init }
}

impl PodExt for Pod {
    fn spec(&self) -> &PodSpec {
        self.spec.as_ref().unwrap_or(&EMPTY)
    }

    fn name(&self) -> &str {
        self.metadata.name.as_deref().unwrap_or_default()
    }

    fn namespace(&self) -> &str {
        self.metadata.namespace.as_deref().unwrap_or("default")
    }

    fn uid(&self) -> &str {
        self.metadata.uid.as_deref().unwrap_or_default()
    }

    fn described(&self) -> String {
        format!("{}_{}({})", self.name(), self.namespace(), self.uid())
    }

    fn annotation(&self, name: &str) -> Option<&str> {
        self.metadata.annotations.as_ref()?.get(name).map(String::as_str)
    }

    fn is_static(&self) -> bool {
        self.annotation(SOURCE).is_some_and(|source| source != "api")
    }

    fn is_mirror(&self) -> bool {
        self.annotation(MIRROR).is_some()
    }

    fn is_deleting(&self) -> bool {
        self.metadata.deletion_timestamp.is_some()
    }

    fn is_finished(&self) -> bool {
        let phase = self.status.as_ref().and_then(|status| status.phase.as_deref());
        matches!(phase, Some("Succeeded" | "Failed"))
    }

    fn host_network(&self) -> bool {
        self.spec().host_network.unwrap_or(false)
    }

    fn restart_policy(&self) -> &str {
        self.spec().restart_policy.as_deref().unwrap_or("Always")
    }

    fn init_containers(&self) -> &[Container] {
        self.spec().init_containers.as_deref().unwrap_or_default()
    }

    fn ephemeral_containers(&self) -> &[EphemeralContainer] {
        self.spec().ephemeral_containers.as_deref().unwrap_or_default()
    }

    fn container(&self, name: &str) -> Option<(Kind, Container)> {
        self.containers().into_iter().find(|(_, container)| container.name == name)
    }

    fn containers(&self) -> Vec<(Kind, Container)> {
        let init = self.init_containers().iter().map(|container| (init_kind(container), container.clone()));
        let regular = self.spec().containers.iter().map(|container| (Kind::Regular, container.clone()));
        let ephemeral = self.ephemeral_containers().iter().map(|container| (Kind::Ephemeral, plain(container)));
        init.chain(regular).chain(ephemeral).collect()
    }

    fn qos(&self) -> Qos {
        if let Some(resources) = &self.spec().resources
            && (resources.requests.as_ref().is_some_and(|r| !r.is_empty())
                || resources.limits.as_ref().is_some_and(|l| !l.is_empty()))
        {
            return class(std::iter::once((resources.requests.as_ref(), resources.limits.as_ref())));
        }
        let all = self.init_containers().iter().chain(&self.spec().containers);
        class(all.map(|container| {
            let resources = container.resources.as_ref();
            (resources.and_then(|r| r.requests.as_ref()), resources.and_then(|r| r.limits.as_ref()))
        }))
    }

    fn is_critical(&self) -> bool {
        self.is_static() || self.is_mirror() || self.spec().priority.is_some_and(|priority| priority >= SYSTEM_CRITICAL)
    }

    fn requests(&self) -> BTreeMap<String, i64> {
        totals(self, |resources| resources.requests.as_ref(), true)
    }

    fn limits(&self) -> BTreeMap<String, i64> {
        totals(self, |resources| resources.limits.as_ref(), false)
    }
}

/// What a pod needs of each resource by the list that `list` takes. Overhead is added to what is there; to requests always.
fn totals(pod: &Pod, list: fn(&ResourceRequirements) -> Option<&Resources>, always: bool) -> BTreeMap<String, i64> {
    let of = |container: &Container| amounts(container.resources.as_ref().and_then(list));
    let mut total: BTreeMap<String, i64> = BTreeMap::new();
    for container in &pod.spec().containers {
        add(&mut total, &of(container));
    }
    // Sidecars run beside everything after them; an ordinary init container runs with the sidecars before it only.
    let mut sidecars = BTreeMap::new();
    let mut peak: BTreeMap<String, i64> = BTreeMap::new();
    for container in pod.init_containers() {
        let mut own = of(container);
        if is_sidecar(container) {
            add(&mut total, &own);
            add(&mut sidecars, &own);
            own.clone_from(&sidecars);
        } else {
            add(&mut own, &sidecars);
        }
        for (name, amount) in own {
            let highest = peak.entry(name).or_default();
            *highest = amount.max(*highest);
        }
    }
    for (name, amount) in peak {
        let needed = total.entry(name).or_default();
        *needed = amount.max(*needed);
    }
    total.extend(amounts(pod.spec().resources.as_ref().and_then(list)));
    for (name, amount) in amounts(pod.spec().overhead.as_ref()) {
        if always || total.contains_key(&name) {
            *total.entry(name).or_default() += amount;
        }
    }
    total
}

/// An ephemeral container in the shape of the others, which it shares all fields with that matter for running it.
pub fn plain(container: &EphemeralContainer) -> Container {
    let c = container.clone();
    Container {
        args: c.args,
        command: c.command,
        env: c.env,
        env_from: c.env_from,
        image: c.image,
        image_pull_policy: c.image_pull_policy,
        name: c.name,
        resources: c.resources,
        security_context: c.security_context,
        stdin: c.stdin,
        stdin_once: c.stdin_once,
        termination_message_path: c.termination_message_path,
        termination_message_policy: c.termination_message_policy,
        tty: c.tty,
        volume_devices: c.volume_devices,
        volume_mounts: c.volume_mounts,
        working_dir: c.working_dir,
        ..Container::default()
    }
}

fn amounts(list: Option<&Resources>) -> BTreeMap<String, i64> {
    let names = list.into_iter().flatten().map(|(name, _)| name);
    names.map(|name| (name.clone(), quantity::amount(list, name).unwrap_or(0))).collect()
}

fn add(total: &mut BTreeMap<String, i64>, other: &BTreeMap<String, i64>) {
    for (name, amount) in other {
        *total.entry(name.clone()).or_default() += amount;
    }
}

fn class<'a>(resources: impl Iterator<Item = (Option<&'a Resources>, Option<&'a Resources>)>) -> Qos {
    let (mut any, mut guaranteed) = (false, true);
    for (requests, limits) in resources {
        for name in ["cpu", "memory"] {
            let request = quantity::amount(requests, name).filter(|amount| *amount > 0);
            let limit = quantity::amount(limits, name).filter(|amount| *amount > 0);
            any |= request.is_some() || limit.is_some();
            // An unset request means the limit.
            guaranteed &= limit.is_some() && request.is_none_or(|request| Some(request) == limit);
        }
    }
    match (any, guaranteed) {
        (false, _) => Qos::BestEffort,
        (true, true) => Qos::Guaranteed,
        (true, false) => Qos::Burstable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test::pod;

    #[test]
    fn quality_of_service_follows_requests_and_limits() {
        for (resources, class) in [
            ("{}", Qos::BestEffort),
            ("{requests: {cpu: 100m}}", Qos::Burstable),
            ("{limits: {cpu: 1, memory: 1Gi}}", Qos::Guaranteed),
            ("{requests: {cpu: 1000m, memory: 1024Mi}, limits: {cpu: 1, memory: 1Gi}}", Qos::Guaranteed),
            ("{requests: {cpu: 500m}, limits: {cpu: 1, memory: 1Gi}}", Qos::Burstable),
            ("{limits: {memory: 1Gi}}", Qos::Burstable),
        ] {
            let pod = pod(&format!("{{containers: [{{name: a, resources: {resources}}}]}}"));
            assert_eq!(pod.qos(), class, "{resources}");
        }
    }

    #[test]
    fn requests_count_sidecars_with_everything_after_them() {
        let pod = pod("{initContainers: [{name: s, restartPolicy: Always, resources: {requests: {cpu: 100m}}}, \
             {name: i, resources: {requests: {cpu: 500m}}}], containers: [{name: a, resources: {requests: {cpu: 200m, memory: 1Mi}}}], \
             overhead: {cpu: 10m}}");
        assert_eq!(pod.requests()["cpu"], 610); // the init container with the sidecar is the peak
        assert_eq!(pod.requests()["memory"], 1 << 20);
    }
}
