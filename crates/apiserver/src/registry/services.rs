//! Addresses and ports of Services: which families, which cluster IPs, which node ports; taken before a write is judged,
//! given back when it fails or when the Service needs them no more (upstream's `service/storage/alloc.go`).

use std::net::IpAddr;
use std::sync::Arc;

use serde_json::{Value, json};

use corten_api::field::{Faults, Path};
use corten_api::status::Status;
use corten_store::{Expect, Revision};

use super::hooks::Reserved;
use super::managed;
use super::target::Target;
use super::write::{CommitError, Writing, meta_text, stamp};
use crate::admission::Operation;
use crate::allocator::{Family, PortClaim, Taken};
use crate::state::State;
use crate::user::User;

/// Takes what a new Service needs.
pub(crate) async fn before_create(writing: &Writing<'_>, service: &mut Value) -> Result<Reserved, Status> {
    corten_kinds::complete_cluster_ips(service, None);
    families(writing, service, None)?;
    let mut taken = Addresses::new(writing);
    allocate_addresses(writing, service, &mut taken).await?;
    let mut ports = writing.state.allocators.ports(writing.options.dry_run);
    if has_node_ports(service) {
        new_ports(writing, service, &mut ports)?;
    }
    if needs_health_check(service) {
        health_check_port(service, &mut ports)?;
    }
    Ok(Reserved::of(taken, ports))
}

/// Takes what a changed Service needs more.
pub(crate) async fn before_update(writing: &Writing<'_>, service: &mut Value, old: &Value) -> Result<Reserved, Status> {
    corten_kinds::complete_cluster_ips(service, Some(old));
    let mut taken = Addresses::new(writing);
    if !keeps_prefer_dual(service, old) {
        families(writing, service, Some(old))?;
        update_addresses(writing, service, old, &mut taken).await?;
    }
    let mut ports = writing.state.allocators.ports(writing.options.dry_run);
    if has_node_ports(service) {
        changed_ports(writing, service, old, &mut ports)?;
    }
    if !needs_health_check(old) && needs_health_check(service) {
        health_check_port(service, &mut ports)?;
    }
    Ok(Reserved::of(taken, ports))
}

/// Gives back the addresses that a Service had and has no more; `now` is `None` when it is gone.
pub(crate) async fn release(writing: &Writing<'_>, old: &Value, now: Option<&Value>) {
    let kept: Vec<&str> = now.map(cluster_ips).unwrap_or_default();
    for ip in cluster_ips(old).into_iter().filter(|ip| *ip != "None" && !kept.contains(ip)) {
        give_back(writing.state, ip, meta_text(old, "namespace"), meta_text(old, "name")).await;
    }
}

/// A PreferDualStack Service is not upgraded or downgraded because the cluster was.
fn keeps_prefer_dual(service: &Value, old: &Value) -> bool {
    let (spec, was) = (&service["spec"], &old["spec"]);
    matches!(spec["type"].as_str(), Some("ClusterIP" | "NodePort" | "LoadBalancer"))
        && spec["type"] == was["type"]
        && spec["ipFamilyPolicy"] == "PreferDualStack"
        && was["ipFamilyPolicy"] == "PreferDualStack"
        && ["clusterIPs", "ipFamilies"].iter().all(|field| texts(service, field) == texts(old, field))
}

/// Settles `ipFamilyPolicy` and `ipFamilies`.
fn families(writing: &Writing<'_>, service: &mut Value, old: Option<&Value>) -> Result<(), Status> {
    if service["spec"]["type"] == "ExternalName" {
        return Ok(());
    }
    let allocators = &writing.state.allocators;
    let name = meta_text(service, "name").to_owned();
    let headless = service["spec"]["clusterIP"] == "None";
    let unselected = headless && service["spec"]["selector"].as_object().is_none_or(serde_json::Map::is_empty);
    if service["spec"]["ipFamilyPolicy"].is_null() {
        let before = old.map(|old| old["spec"]["ipFamilyPolicy"].clone()).filter(|policy| !policy.is_null());
        let policy = before.unwrap_or_else(|| if unselected { "RequireDualStack" } else { "SingleStack" }.into());
        service["spec"]["ipFamilyPolicy"] = policy;
    }
    let unrelated = corten_kinds::cluster_ip_faults(service);
    if !unrelated.is_empty() {
        return Err(invalid(&name, &unrelated));
    }
    let policy = service["spec"]["ipFamilyPolicy"].as_str().unwrap_or_default().to_owned();
    let spec_path = Path::new("spec");
    let policy_path = spec_path.child("ipFamilyPolicy");
    let mut faults = Faults::default();
    let single = policy == "SingleStack";
    if let Some(old) = old {
        for (field, what) in [("clusterIPs", "cluster IP"), ("ipFamilies", "IP family")] {
            let (now, was) = (texts(service, field), texts(old, field));
            if single {
                if now == was && now.len() > 1 {
                    service["spec"][field] = json!([now[0]]);
                }
            } else if !now.is_empty() && now.len() < was.len() {
                faults.invalid_str(&policy_path, &policy, &format!("must be 'SingleStack' to release the secondary {what}"));
            }
        }
    }
    if single {
        for (field, what) in [("clusterIPs", "cluster IPs"), ("ipFamilies", "IP families")] {
            if texts(service, field).len() == 2 {
                let why = format!("must be 'RequireDualStack' or 'PreferDualStack' when multiple {what} are specified");
                faults.invalid_str(&policy_path, &policy, &why);
            }
        }
    }
    let ips = texts(service, "clusterIPs");
    let mut families = texts(service, "ipFamilies");
    for (at, ip) in ips.iter().enumerate().take_while(|(_, ip)| *ip != "None") {
        let Ok(ip) = ip.parse::<IpAddr>() else {
            continue;
        };
        if at >= families.len() {
            let family = Family::of(ip);
            if allocators.has(family) {
                families.push(family.name().into());
            } else {
                let path = spec_path.child("clusterIPs");
                let why = format!("{} is not configured on this cluster", family.name());
                faults.invalid(&path.index(at), &service["spec"]["clusterIPs"], &why);
            }
        }
    }
    if !faults.is_empty() {
        return Err(invalid(&name, &faults));
    }
    if unselected {
        if families.is_empty() {
            families.push(allocators.default_family().name().into());
        }
        if families.len() < 2 && !single {
            families.push(other(&families[0]).into());
        }
        service["spec"]["ipFamilies"] = families.into();
        return Ok(());
    }
    if policy == "RequireDualStack" && !allocators.is_dual() {
        faults.invalid_str(&policy_path, &policy, "this cluster is not configured for dual-stack services");
    }
    for (at, family) in families.iter().enumerate() {
        if !Family::named(family).is_some_and(|family| allocators.has(family)) {
            let path = spec_path.child("ipFamilies");
            faults.invalid_str(&path.index(at), family, "not configured on this cluster");
        }
    }
    if !faults.is_empty() {
        return Err(invalid(&name, &faults));
    }
    if families.is_empty() {
        families.push(allocators.default_family().name().into());
    }
    if !single && families.len() == 1 && allocators.is_dual() {
        families.push(other(&families[0]).into());
    }
    service["spec"]["ipFamilies"] = families.into();
    Ok(())
}

fn other(family: &str) -> &'static str {
    if family == "IPv4" { "IPv6" } else { "IPv4" }
}

/// Takes an address for every family that has none yet, and those that were asked for.
async fn allocate_addresses(writing: &Writing<'_>, service: &mut Value, taken: &mut Addresses) -> Result<(), Status> {
    if service["spec"]["type"] == "ExternalName" || service["spec"]["clusterIP"] == "None" {
        return Ok(());
    }
    let mut ips = texts(service, "clusterIPs");
    for (at, family) in texts(service, "ipFamilies").iter().enumerate() {
        let Some(family) = Family::named(family) else {
            continue;
        };
        match ips.get(at).filter(|ip| !ip.is_empty()).cloned() {
            Some(asked) => taken.take(writing, service, &asked).await?,
            None => {
                let ip = taken.take_any(writing, service, family).await?;
                if at < ips.len() { ips[at] = ip } else { ips.push(ip) }
            }
        }
    }
    if let Some(first) = ips.first() {
        service["spec"]["clusterIP"] = first.as_str().into();
        service["spec"]["clusterIPs"] = ips.into();
    }
    Ok(())
}

async fn update_addresses(writing: &Writing<'_>, service: &mut Value, old: &Value, taken: &mut Addresses) -> Result<(), Status> {
    let was_external = old["spec"]["type"] == "ExternalName";
    let is_external = service["spec"]["type"] == "ExternalName";
    if was_external && !is_external {
        return allocate_addresses(writing, service, taken).await;
    }
    if cluster_ips(old).first() == Some(&"None") || is_external {
        return Ok(());
    }
    let (now, was) = (texts(service, "ipFamilies"), texts(old, "ipFamilies"));
    if was.len() == 1 && now.len() == 2 {
        let mut ips = texts(service, "clusterIPs");
        match ips.get(1).filter(|ip| !ip.is_empty()).cloned() {
            Some(asked) => taken.take(writing, service, &asked).await?,
            None => {
                let Some(family) = Family::named(&now[1]) else {
                    return Ok(());
                };
                let ip = taken.take_any(writing, service, family).await?;
                ips.truncate(1);
                ips.push(ip);
                service["spec"]["clusterIPs"] = ips.into();
            }
        }
    }
    Ok(())
}

/// Addresses taken for one write; given back when it fails.
pub(crate) struct Addresses {
    state: Arc<State>,
    namespace: String,
    name: String,
    ips: Vec<String>,
    dry_run: bool,
}

impl Addresses {
    fn new(writing: &Writing<'_>) -> Self {
        let (namespace, dry_run) = (writing.namespace.clone(), writing.options.dry_run);
        Self { state: writing.state.clone(), namespace, name: String::new(), ips: Vec::new(), dry_run }
    }

    async fn take(&mut self, writing: &Writing<'_>, service: &Value, asked: &str) -> Result<(), Status> {
        let refuse = |why: &Taken| {
            let mut faults = Faults::default();
            let spec = Path::new("spec");
            let shown = &service["spec"]["clusterIPs"];
            faults.invalid(&spec.child("clusterIPs"), shown, &format!("failed to allocate IP {asked}: {why}"));
            invalid(meta_text(service, "name"), &faults)
        };
        let Ok(ip) = asked.parse::<IpAddr>() else {
            return Ok(());
        };
        match writing.state.allocators.check(ip) {
            // A write that only tries does not ask who has it.
            Err(Taken::Address) if self.dry_run => {}
            outcome => outcome.map_err(|why| refuse(&why))?,
        }
        if !self.make(writing, service, ip).await? {
            return Err(refuse(&Taken::Address));
        }
        Ok(())
    }

    async fn take_any(&mut self, writing: &Writing<'_>, service: &Value, family: Family) -> Result<String, Status> {
        let full = |why| Status::internal(format!("failed to allocate a serviceIP: {why}"));
        if self.dry_run {
            return Ok(writing.state.allocators.tried_address(family).map_err(full)?.to_string());
        }
        loop {
            let ip = writing.state.allocators.free_address(family).map_err(full)?;
            if self.make(writing, service, ip).await? {
                return Ok(ip.to_string());
            }
        }
    }

    /// Makes the IPAddress object, which is what takes the address. False when somebody was faster.
    async fn make(&mut self, writing: &Writing<'_>, service: &Value, ip: IpAddr) -> Result<bool, Status> {
        if self.dry_run {
            return Ok(true);
        }
        self.name = meta_text(service, "name").to_owned();
        let target = addresses(writing.state)?;
        let user = User::apiserver();
        let mut own = Writing::own(writing.state, &target, &user, "");
        let name = ip.to_string();
        let mut object = json!({
            "kind": "IPAddress", "apiVersion": "networking.k8s.io/v1",
            "metadata": {
                "name": name,
                "labels": {
                    "ipaddress.kubernetes.io/ip-family": Family::of(ip).name(),
                    "ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io",
                },
                "creationTimestamp": stamp(own.now),
                "uid": uuid::Uuid::new_v4().to_string(),
            },
            "spec": {"parentRef": {"resource": "services", "namespace": self.namespace, "name": self.name}},
        });
        let admitted = own.judge(Operation::Create, &name, Some(&mut object), None).await?;
        managed::track(&own, None, &mut object)?;
        corten_schema::apply::unfold(&mut object);
        let bytes = target.cache()?.spec().layout.encode(&object);
        match own.commit(&name, Some(bytes), Expect::Absent, admitted).await {
            Ok(_) => {
                self.ips.push(name);
                Ok(true)
            }
            Err(CommitError::Conflict(_)) => Ok(false),
            Err(CommitError::Status(status)) => Err(*status),
        }
    }

    /// The write succeeded.
    pub(crate) fn keep(&mut self) {
        self.ips.clear();
    }
}

impl Drop for Addresses {
    fn drop(&mut self) {
        if self.ips.is_empty() {
            return;
        }
        let ips = std::mem::take(&mut self.ips);
        let (state, namespace, name) = (self.state.clone(), self.namespace.clone(), self.name.clone());
        self.state.tasks.spawn("release addresses", async move {
            for ip in ips {
                give_back(&state, &ip, &namespace, &name).await;
            }
        });
    }
}

/// Deletes the IPAddress object, if it is this Service's.
async fn give_back(state: &Arc<State>, ip: &str, namespace: &str, name: &str) {
    let outcome = async {
        let target = addresses(state)?;
        let user = User::apiserver();
        let mut own = Writing::own(state, &target, &user, "");
        let Some(entry) = own.cached(ip)? else {
            return Ok(());
        };
        let mut object = entry.decode();
        let parent = &object["spec"]["parentRef"];
        if parent["namespace"] != namespace || parent["name"] != name {
            return Ok(());
        }
        let admitted = own.judge(Operation::Delete, ip, None, Some(&mut object)).await?;
        match own.commit(ip, None, Expect::At(Revision(entry.stored)), admitted).await {
            Ok(_) | Err(CommitError::Conflict(_)) => Ok(()),
            Err(CommitError::Status(status)) => Err(*status),
        }
    };
    if let Err(status) = outcome.await {
        // Nothing is lost but the address, which a later deletion of the same name frees.
        tracing::warn!(ip, namespace, name, error = %status, "release a cluster IP");
    }
}

fn addresses(state: &State) -> Result<Target, Status> {
    Target::stored_as(state, "networking.k8s.io", "ipaddresses").ok_or_else(super::target::missing)
}

// === Node ports ===

fn has_node_ports(service: &Value) -> bool {
    matches!(service["spec"]["type"].as_str(), Some("NodePort" | "LoadBalancer"))
}

fn allocates_ports(service: &Value) -> bool {
    let spec = &service["spec"];
    spec["type"] == "NodePort" || (spec["type"] == "LoadBalancer" && spec["allocateLoadBalancerNodePorts"] != false)
}

fn needs_health_check(service: &Value) -> bool {
    service["spec"]["type"] == "LoadBalancer" && service["spec"]["externalTrafficPolicy"] == "Local"
}

/// Ports of a new Service. Ports with one number and several protocols share one node port.
fn new_ports(writing: &Writing<'_>, service: &mut Value, claim: &mut PortClaim) -> Result<(), Status> {
    let allocates = allocates_ports(service);
    let ports = service["spec"]["ports"].as_array().cloned().unwrap_or_default();
    let mut by_port: Vec<(i64, i64)> = Vec::new();
    for (at, port) in ports.iter().enumerate() {
        let (number, asked) = (port["port"].as_i64().unwrap_or(0), port["nodePort"].as_i64().unwrap_or(0));
        if asked == 0 && !allocates {
            continue;
        }
        let known = by_port.iter().find(|(port, _)| *port == number).map(|(_, node)| *node);
        let node = match known {
            Some(known) if asked == 0 || asked == known => known,
            Some(_) => {
                claim.take(asked).map_err(|why| refuse_port(writing, service, at, asked, &why))?;
                asked
            }
            None => {
                let wanted = ports.iter().filter(|p| p["port"].as_i64() == Some(number));
                let wanted = wanted.filter_map(|p| p["nodePort"].as_i64()).find(|node| *node != 0).unwrap_or(0);
                let node = if wanted == 0 {
                    i64::from(claim.take_any().map_err(|why| no_port(&why))?)
                } else {
                    claim.take(wanted).map_err(|why| refuse_port(writing, service, at, wanted, &why))?;
                    wanted
                };
                by_port.push((number, node));
                node
            }
        };
        service["spec"]["ports"][at]["nodePort"] = node.into();
    }
    Ok(())
}

/// Ports of a changed Service: what it had it keeps.
fn changed_ports(writing: &Writing<'_>, service: &mut Value, old: &Value, claim: &mut PortClaim) -> Result<(), Status> {
    let allocates = allocates_ports(service);
    let had: Vec<i64> = match old["spec"]["ports"].as_array() {
        Some(ports) => ports.iter().filter_map(|port| port["nodePort"].as_i64()).collect(),
        None => Vec::new(),
    };
    let mut mine: Vec<i64> = Vec::new();
    let mut pairs: Vec<(String, i64)> = Vec::new();
    let count = service["spec"]["ports"].as_array().map_or(0, Vec::len);
    for at in 0..count {
        let asked = service["spec"]["ports"][at]["nodePort"].as_i64().unwrap_or(0);
        if asked == 0 && !allocates {
            continue;
        }
        if asked == 0 {
            let node = claim.take_any().map_err(|why| no_port(&why))?;
            service["spec"]["ports"][at]["nodePort"] = node.into();
        } else if !had.contains(&asked) && !mine.contains(&asked) {
            claim.take(asked).map_err(|why| refuse_port(writing, service, at, asked, &why))?;
            mine.push(asked);
        }
        let port = &service["spec"]["ports"][at];
        let pair = (port["protocol"].as_str().unwrap_or_default().to_owned(), port["nodePort"].as_i64().unwrap_or(0));
        if pairs.contains(&pair) {
            return Err(Status::failure(500, "", format!("duplicate nodePort: {{{} {}}}", pair.0, pair.1)));
        }
        pairs.push(pair);
    }
    Ok(())
}

fn health_check_port(service: &mut Value, claim: &mut PortClaim) -> Result<(), Status> {
    let asked = service["spec"]["healthCheckNodePort"].as_i64().unwrap_or(0);
    if asked == 0 {
        let port = claim.take_any();
        let port = port.map_err(|why| Status::internal(format!("failed to allocate a HealthCheck NodePort 0: {why}")))?;
        service["spec"]["healthCheckNodePort"] = port.into();
        return Ok(());
    }
    claim.take(asked).map_err(|why| Status::internal(format!("failed to allocate requested HealthCheck NodePort {asked}: {why}")))
}

fn refuse_port(_writing: &Writing<'_>, service: &Value, at: usize, port: i64, why: &Taken) -> Status {
    let mut faults = Faults::default();
    let spec = Path::new("spec");
    let ports = spec.child("ports");
    let path = ports.index(at);
    faults.invalid_int(&path.child("nodePort"), port, &why.to_string());
    invalid(meta_text(service, "name"), &faults)
}

fn no_port(why: &Taken) -> Status {
    Status::internal(format!("failed to allocate a nodePort: {why}"))
}

fn invalid(name: &str, faults: &Faults) -> Status {
    Status::invalid("", "Service", name, faults)
}

fn cluster_ips(service: &Value) -> Vec<&str> {
    let list = service["spec"]["clusterIPs"].as_array();
    list.map(|list| list.iter().filter_map(Value::as_str).collect()).unwrap_or_default()
}

fn texts(service: &Value, field: &str) -> Vec<String> {
    let list = service["spec"][field].as_array();
    list.map(|list| list.iter().filter_map(Value::as_str).map(str::to_owned).collect()).unwrap_or_default()
}

/// Whether a Service of this state has addresses to speak of.
#[must_use]
pub(crate) fn is_service(target: &Target) -> bool {
    target.is("", "services")
}
