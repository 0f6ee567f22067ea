//! Spreads endpoints over slices. Pure.
//!
//! Every write of a slice is sent to every node, so what is already in a slice stays there: slices lose and change
//! endpoints in place, new endpoints first fill slices that are written anyway, then one that has room for all of them,
//! and only then new slices. Slices are never rebalanced.

use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::api::discovery::v1::{Endpoint, EndpointPort, EndpointSlice};

/// Endpoints in one slice at most (`--max-endpoints-per-slice`).
pub(crate) const MAX_ENDPOINTS: usize = 100;

/// The writes that lead from the slices there are to those there should be.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Plan {
    pub(crate) create: Vec<EndpointSlice>,
    pub(crate) update: Vec<EndpointSlice>,
    pub(crate) delete: Vec<Arc<EndpointSlice>>,
}

impl Plan {
    pub(crate) fn merge(&mut self, other: Self) {
        self.create.extend(other.create);
        self.update.extend(other.update);
        self.delete.extend(other.delete);
    }
}

/// Plans for the slices of one address family. `blank` has the metadata that every slice should have.
pub(crate) fn plan(
    existing: &[Arc<EndpointSlice>],
    desired: Vec<(Vec<EndpointPort>, Vec<Endpoint>)>,
    blank: &EndpointSlice,
    max: usize,
) -> Plan {
    let mut plan = Plan::default();
    let mut rest: Vec<&Arc<EndpointSlice>> = existing.iter().collect();
    for (ports, endpoints) in desired {
        let (same, other) = rest.into_iter().partition(|slice| has_ports(slice, &ports));
        rest = other;
        plan.merge(plan_ports(same, &ports, endpoints, blank, max));
    }
    plan.delete.extend(rest.into_iter().cloned());
    // A service without endpoints keeps one empty slice, which tells it apart from one that nobody looked at yet.
    if plan.create.is_empty() && plan.delete.len() == existing.len() {
        let is_placeholder = |slice: &Arc<EndpointSlice>| endpoints_of(slice).is_empty() && has_ports(slice, &[]);
        match plan.delete.iter().position(is_placeholder) {
            Some(n) => {
                let slice = plan.delete.swap_remove(n);
                plan.update.extend(with_metadata(&slice, blank));
            }
            None => plan.create.push(blank.clone()),
        }
    }
    plan
}

fn plan_ports(
    existing: Vec<&Arc<EndpointSlice>>,
    ports: &[EndpointPort],
    endpoints: Vec<Endpoint>,
    blank: &EndpointSlice,
    max: usize,
) -> Plan {
    let mut plan = Plan::default();
    let mut order: Vec<String> = Vec::new();
    let mut wanted: HashMap<String, Endpoint> = HashMap::new();
    for endpoint in endpoints {
        let key = identity(&endpoint);
        order.push(key.clone());
        wanted.insert(key, endpoint);
    }
    let mut unchanged: Vec<&Arc<EndpointSlice>> = Vec::new();
    for slice in existing {
        let before = endpoints_of(slice);
        let kept: Vec<Endpoint> = before.iter().filter_map(|endpoint| wanted.remove(&identity(endpoint))).collect();
        if kept.is_empty() {
            plan.delete.push(slice.clone());
        } else if kept != before {
            let mut slice = with_metadata(slice, blank).unwrap_or_else(|| EndpointSlice::clone(slice));
            slice.endpoints = Some(kept);
            plan.update.push(slice);
        } else if let Some(slice) = with_metadata(slice, blank) {
            plan.update.push(slice);
        } else {
            unchanged.push(slice);
        }
    }
    let mut new = order.into_iter().filter_map(|key| wanted.remove(&key)).collect::<Vec<_>>().into_iter().peekable();

    plan.update.sort_by_key(|slice| std::cmp::Reverse(endpoints_of(slice).len()));
    for slice in &mut plan.update {
        let endpoints = slice.endpoints.get_or_insert_default();
        let room = max.saturating_sub(endpoints.len());
        endpoints.extend(new.by_ref().take(room));
    }
    while new.peek().is_some() {
        let left = new.len();
        let fitting = unchanged.iter().enumerate().filter(|(_, slice)| endpoints_of(slice).len() + left <= max);
        let fullest = fitting.max_by_key(|(_, slice)| endpoints_of(slice).len()).map(|(n, _)| n);
        let mut slice = match fullest {
            Some(n) => EndpointSlice::clone(unchanged.swap_remove(n)),
            // An emptied slice is written or deleted anyway: filling it saves the creation.
            None if !plan.delete.is_empty() => {
                let slice = plan.delete.remove(0);
                let mut slice = with_metadata(&slice, blank).unwrap_or_else(|| EndpointSlice::clone(&slice));
                slice.endpoints = Some(Vec::new());
                slice
            }
            None => EndpointSlice { ports: Some(ports.to_vec()), ..blank.clone() },
        };
        let is_new = slice.metadata.uid.is_none();
        let endpoints = slice.endpoints.get_or_insert_default();
        let room = max.saturating_sub(endpoints.len());
        endpoints.extend(new.by_ref().take(room));
        if is_new { plan.create.push(slice) } else { plan.update.push(slice) }
    }
    plan
}

/// What makes an endpoint the same one: the pod it is, or else its addresses.
fn identity(endpoint: &Endpoint) -> String {
    let uid = endpoint.target_ref.as_ref().and_then(|target| target.uid.as_deref()).unwrap_or_default();
    format!("{uid} {}", endpoint.addresses.join(","))
}

fn endpoints_of(slice: &EndpointSlice) -> &[Endpoint] {
    slice.endpoints.as_deref().unwrap_or_default()
}

fn has_ports(slice: &EndpointSlice, ports: &[EndpointPort]) -> bool {
    let plain = |port: &EndpointPort| {
        (port.name.clone().unwrap_or_default(), port.port, port.protocol.clone(), port.app_protocol.clone())
    };
    let (mut ours, mut theirs): (Vec<_>, Vec<_>) =
        (slice.ports.iter().flatten().map(plain).collect(), ports.iter().map(plain).collect());
    ours.sort();
    theirs.sort();
    ours == theirs
}

/// The slice with labels and owner as in `blank`; none when it has them.
fn with_metadata(slice: &Arc<EndpointSlice>, blank: &EndpointSlice) -> Option<EndpointSlice> {
    let same =
        slice.metadata.labels == blank.metadata.labels && slice.metadata.owner_references == blank.metadata.owner_references;
    if same {
        return None;
    }
    let mut slice = EndpointSlice::clone(slice);
    slice.metadata.labels = blank.metadata.labels.clone();
    slice.metadata.owner_references = blank.metadata.owner_references.clone();
    Some(slice)
}

#[cfg(test)]
mod tests {
    use serde_json::{from_value, json};

    use super::*;

    fn endpoint(n: usize) -> Endpoint {
        from_value(json!({"addresses": [format!("10.0.0.{n}")]})).unwrap()
    }

    fn endpoints(range: std::ops::Range<usize>) -> Vec<Endpoint> {
        range.map(endpoint).collect()
    }

    fn slice(name: &str, range: std::ops::Range<usize>) -> Arc<EndpointSlice> {
        let mut slice: EndpointSlice = from_value(json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"name": name, "uid": name}, "endpoints": [], "ports": [{"name": "http", "port": 80}]}))
        .unwrap();
        slice.endpoints = Some(endpoints(range));
        Arc::new(slice)
    }

    fn blank() -> EndpointSlice {
        EndpointSlice { metadata: Default::default(), address_type: "IPv4".into(), endpoints: Some(Vec::new()), ports: None }
    }

    fn run(existing: &[Arc<EndpointSlice>], wanted: Vec<Endpoint>) -> Vec<String> {
        let ports = from_value(json!([{"name": "http", "port": 80}])).unwrap();
        let desired = if wanted.is_empty() { Vec::new() } else { vec![(ports, wanted)] };
        let plan = plan(existing, desired, &blank(), 10);
        let size = |slice: &EndpointSlice| endpoints_of(slice).len();
        let creations = plan.create.iter().map(|slice| format!("create {}", size(slice)));
        let updates =
            plan.update.iter().map(|slice| format!("update {} {}", slice.metadata.name.as_deref().unwrap(), size(slice)));
        let deletions = plan.delete.iter().map(|slice| format!("delete {}", slice.metadata.name.as_deref().unwrap()));
        creations.chain(updates).chain(deletions).collect()
    }

    #[test]
    fn as_few_writes_as_possible() {
        // The first endpoints, and one family of nothing.
        assert_eq!(run(&[], endpoints(0..25)), ["create 10", "create 10", "create 5"]);
        assert_eq!(run(&[], Vec::new()), ["create 0"]);
        // What is right is left alone.
        assert_eq!(run(&[slice("a", 0..10), slice("b", 10..15)], endpoints(0..15)), [""; 0]);
        // A new one goes to the fullest slice with room.
        assert_eq!(run(&[slice("a", 0..8), slice("b", 8..10)], endpoints(0..11)), ["update a 9"]);
        // Slices that lose endpoints are filled first.
        let mut moved = endpoints(2..10);
        moved.extend(endpoints(20..23));
        assert_eq!(run(&[slice("a", 0..10)], moved), ["create 1", "update a 10"]);
        // A slice whose endpoints are all replaced is reused.
        assert_eq!(run(&[slice("a", 0..3)], endpoints(5..8)), ["update a 3"]);
        // The last endpoint goes: an empty slice remains in place of it.
        assert_eq!(run(&[slice("a", 0..3), slice("b", 3..6)], endpoints(0..3)), ["delete b"]);
        assert_eq!(run(&[slice("a", 0..3)], Vec::new()), ["create 0", "delete a"]);
    }

    #[test]
    fn an_empty_slice_stays_and_gets_new_labels() {
        let mut placeholder = EndpointSlice::clone(&slice("a", 0..0));
        placeholder.ports = None;
        let placeholder = Arc::new(placeholder);
        assert_eq!(plan(std::slice::from_ref(&placeholder), Vec::new(), &blank(), 10), Plan::default());
        let mut labelled = blank();
        labelled.metadata.labels = Some([("a".to_owned(), "b".to_owned())].into());
        let plan = plan(&[placeholder], Vec::new(), &labelled, 10);
        assert_eq!((plan.update.len(), plan.create.len(), plan.delete.len()), (1, 0, 0));
    }
}
