//! The downward API: what a pod may learn about itself, as text.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Pod, ResourceFieldSelector};

use crate::pod::PodExt;
use crate::quantity::{self, Resources};

/// What the node contributes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Node<'a> {
    pub host_ips: &'a [IpAddr],
    pub pod_ips: &'a [IpAddr],
    /// Limits of containers without any are the node's allocatable resources.
    pub allocatable: Option<&'a Resources>,
}

/// Why a field has no text.
#[derive(Clone, Debug, thiserror::Error)]
pub enum FieldError {
    #[error("unsupported fieldPath: {0}")]
    Field(String),
    #[error("unsupported container resource : {0}")]
    Resource(String),
    #[error("container {0} not found")]
    Container(String),
}

/// The text of `fieldRef`.
pub fn field(pod: &Pod, path: &str, node: &Node<'_>) -> Result<String, FieldError> {
    let joined = |ips: &[IpAddr]| ips.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let first = |ips: &[IpAddr]| ips.first().map(ToString::to_string).unwrap_or_default();
    let pod_ips = if pod.host_network() { node.host_ips } else { node.pod_ips };
    let meta = &pod.metadata;
    if let Some((map, key)) = subscript(path) {
        let values = match map {
            "metadata.labels" => meta.labels.as_ref(),
            "metadata.annotations" => meta.annotations.as_ref(),
            _ => return Err(FieldError::Field(path.to_owned())),
        };
        return Ok(values.and_then(|values| values.get(key)).cloned().unwrap_or_default());
    }
    Ok(match path {
        "metadata.name" => pod.name().to_owned(),
        "metadata.namespace" => pod.namespace().to_owned(),
        "metadata.uid" => pod.uid().to_owned(),
        "metadata.labels" => lines(meta.labels.as_ref()),
        "metadata.annotations" => lines(meta.annotations.as_ref()),
        "spec.nodeName" => pod.spec().node_name.clone().unwrap_or_default(),
        "spec.serviceAccountName" => pod.spec().service_account_name.clone().unwrap_or_default(),
        "status.hostIP" => first(node.host_ips),
        "status.hostIPs" => joined(node.host_ips),
        "status.podIP" => first(pod_ips),
        "status.podIPs" => joined(pod_ips),
        _ => return Err(FieldError::Field(path.to_owned())),
    })
}

/// The text of `resourceFieldRef`, for the container it names or else `own`.
pub fn resource(pod: &Pod, own: Option<&str>, reference: &ResourceFieldSelector, node: &Node<'_>) -> Result<String, FieldError> {
    let name = reference.container_name.as_deref().filter(|name| !name.is_empty()).or(own).unwrap_or_default();
    let (_, container) = pod.container(name).ok_or_else(|| FieldError::Container(name.to_owned()))?;
    let unknown = || FieldError::Resource(reference.resource.clone());
    let (list, resource) = reference.resource.split_once('.').ok_or_else(unknown)?;
    let resources = container.resources.unwrap_or_default();
    let amount = match list {
        "limits" => quantity::amount(resources.limits.as_ref(), resource)
            .filter(|amount| *amount > 0)
            .or_else(|| quantity::amount(node.allocatable, resource)),
        "requests" => quantity::amount(resources.requests.as_ref(), resource),
        _ => return Err(unknown()),
    };
    let divisor = reference.divisor.as_ref();
    let divisor = match resource {
        "cpu" => divisor.map(quantity::milli).filter(|by| *by > 0).unwrap_or(1000),
        _ => divisor.map(quantity::value).filter(|by| *by > 0).unwrap_or(1),
    };
    Ok(quantity::divided(amount.unwrap_or(0), divisor).to_string())
}

/// `metadata.labels['key']` as its two parts.
fn subscript(path: &str) -> Option<(&str, &str)> {
    let (map, key) = path.strip_suffix("']")?.split_once("['")?;
    Some((map, key))
}

/// `key="value"` lines with Go's quoting.
fn lines(map: Option<&BTreeMap<String, String>>) -> String {
    let lines: Vec<String> = map.into_iter().flatten().map(|(key, value)| format!("{key}={}", quote(value))).collect();
    lines.join("\n")
}

/// Go's `%q`.
pub fn quote(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() => out.push_str(&format!("\\x{:02x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test::pod;

    #[test]
    #[rustfmt::skip]
    fn fields_and_resources_have_their_text() {
        let mut pod = pod("{nodeName: n1, serviceAccountName: robot, containers: [{name: a, resources: {limits: {cpu: 1500m, memory: 64Mi}, requests: {cpu: 250m}}}]}");
        pod.metadata.labels = Some(BTreeMap::from([("app".to_owned(), "a\"b".to_owned()), ("x".to_owned(), "y".to_owned())]));
        let ips = ["10.0.0.1".parse().expect("an address"), "fd00::1".parse().expect("an address")];
        let hosts = ["192.0.2.1".parse().expect("an address")];
        let node = Node { host_ips: &hosts, pod_ips: &ips, allocatable: None };
        for (path, text) in [
            ("metadata.name", "web"), ("metadata.uid", "u1"), ("metadata.labels['x']", "y"), ("metadata.labels['none']", ""),
            ("metadata.labels", "app=\"a\\\"b\"\nx=\"y\""), ("spec.nodeName", "n1"), ("spec.serviceAccountName", "robot"),
            ("status.podIP", "10.0.0.1"), ("status.podIPs", "10.0.0.1,fd00::1"), ("status.hostIP", "192.0.2.1"),
        ] {
            assert_eq!(field(&pod, path, &node).expect("supported"), text, "{path}");
        }
        assert_eq!(field(&pod, "spec.x", &node).expect_err("unsupported").to_string(), "unsupported fieldPath: spec.x");
        for (name, divisor, text) in [
            ("limits.cpu", "0", "2"), ("limits.cpu", "1m", "1500"), ("limits.memory", "0", "67108864"), ("limits.memory", "1Mi", "64"),
            ("requests.cpu", "1m", "250"), ("requests.memory", "0", "0"),
        ] {
            let reference = ResourceFieldSelector {
                container_name: None,
                divisor: Some(k8s_openapi::apimachinery::pkg::api::resource::Quantity(divisor.to_owned())),
                resource: name.to_owned(),
            };
            assert_eq!(resource(&pod, Some("a"), &reference, &node).expect("supported"), text, "{name} by {divisor}");
        }
    }
}
