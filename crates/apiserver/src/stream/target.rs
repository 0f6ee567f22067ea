//! Where a request goes: the kubelet of a pod's node, a node, a pod, or an endpoint of a service.

use std::net::IpAddr;
use std::sync::Arc;

use serde_json::Value;

use corten_api::status::Status;

use crate::pipeline::Call;
use crate::request::RequestInfo;
use crate::state::State;

/// A host, a port and a path with query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) security: Security,
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) path: String,
}

/// How the target is talked to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Security {
    /// HTTP.
    Plain,
    /// HTTPS, both sides known.
    Kubelet,
    /// HTTPS, this side known, as the client does not mind who the other is.
    AnyKubelet,
    /// HTTPS, whoever it is.
    Any,
    /// HTTPS, whoever it is; this server shows its front proxy certificate.
    FrontProxy,
}

const KUBELET_PORT: u16 = 10250;

impl Target {
    /// `host:port`, as a `Host` header has it.
    pub(super) fn authority(&self) -> String {
        match self.host.parse::<IpAddr>() {
            Ok(IpAddr::V6(address)) => format!("[{address}]:{}", self.port),
            _ => format!("{}:{}", self.host, self.port),
        }
    }
}

/// The name of the object in a proxy request's `scheme:name:port`; the name as it is in others.
#[must_use]
pub fn object_name(info: &RequestInfo) -> &str {
    if info.subresource == "proxy" { split_name(&info.name).1 } else { &info.name }
}

/// `scheme:name:port`, `name:port` or `name`.
fn split_name(name: &str) -> (&str, &str, &str) {
    let parts: Vec<&str> = name.split(':').collect();
    match parts.as_slice() {
        [scheme, name, port] => (scheme, name, port),
        [name, port] => ("", name, port),
        _ => ("", name, ""),
    }
}

/// Refuses what is no `scheme:name:port`, before anything is looked up.
///
/// # Errors
/// 400
pub(super) fn check_name(info: &RequestInfo) -> Result<(), Status> {
    let (scheme, name, _) = split_name(&info.name);
    if name.is_empty() || !matches!(scheme, "" | "http" | "https") || info.name.matches(':').count() > 2 {
        let kind = info.resource.trim_end_matches('s');
        return Err(Status::bad_request(format!("invalid {kind} request {}", corten_api::field::quoted(&info.name))));
    }
    Ok(())
}

/// What follows `/proxy` in a path, with its slash.
pub(super) fn rest<'p>(path: &'p str, resource: &str) -> &'p str {
    let after = path.find(&format!("/{resource}/")).map_or(path, |at| &path[at + resource.len() + 2..]);
    after.find("/proxy").map_or("", |at| &after[at + "/proxy".len()..])
}

/// The kubelet's endpoint for log, exec, attach and portforward of a pod; `None` for the log of a pod that is on no node.
pub(super) fn kubelet(state: &Arc<State>, call: &Call, pod: &Value) -> Result<Option<Target>, Status> {
    let info = call.info();
    let text = |pointer| pod.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let (namespace, name) = (text("/metadata/namespace"), text("/metadata/name"));
    let subresource = info.subresource.as_str();
    let container = match subresource {
        "portforward" => String::new(),
        _ => container(pod, name, call.query.text("container"))?,
    };
    let node = text("/spec/nodeName");
    if node.is_empty() {
        return match subresource {
            "log" => Ok(None),
            _ => Err(Status::bad_request(format!("pod {name} does not have a host assigned"))),
        };
    }
    let mut query = QueryWriter::default();
    let copy = |query: &mut QueryWriter, from: &str, to: &str| {
        for value in call.query.all(from) {
            query.add(to, value);
        }
    };
    let place = match subresource {
        "log" => {
            for name in ["follow", "limitBytes", "previous", "sinceSeconds", "sinceTime", "stream", "tailLines", "timestamps"] {
                match name {
                    "follow" | "previous" | "timestamps" if !call.query.flag(name) => {}
                    "follow" | "previous" | "timestamps" => query.add(name, "true"),
                    _ => copy(&mut query, name, name),
                }
            }
            format!("/containerLogs/{namespace}/{name}/{container}")
        }
        "exec" | "attach" => {
            copy(&mut query, "command", "command");
            for (from, to) in [("stderr", "error"), ("stdin", "input"), ("stdout", "output"), ("tty", "tty")] {
                if call.query.flag(from) {
                    query.add(to, "1");
                }
            }
            format!("/{subresource}/{namespace}/{name}/{container}")
        }
        _ => {
            for ports in call.query.all("ports") {
                ports.split(',').for_each(|port| query.add("port", port));
            }
            format!("/portForward/{namespace}/{name}")
        }
    };
    let (host, port) = node_address(state, "pods", node)?;
    let trusting = subresource == "log" && call.query.flag("insecureSkipTLSVerifyBackend");
    let security = if trusting { Security::AnyKubelet } else { Security::Kubelet };
    Ok(Some(Target { security, host, port, path: format!("{place}{}", query.finish()) }))
}

/// The container that is meant: the one that is named, or the only one.
fn container(pod: &Value, name: &str, asked: &str) -> Result<String, Status> {
    let names = |list: &str| -> Vec<String> {
        let containers = pod["spec"][list].as_array().into_iter().flatten();
        containers.filter_map(|container| container["name"].as_str().map(str::to_owned)).collect()
    };
    let (main, init, ephemeral) = (names("containers"), names("initContainers"), names("ephemeralContainers"));
    if asked.is_empty() {
        if let [only] = main.as_slice() {
            return Ok(only.clone());
        }
        let all: Vec<&str> = init.iter().chain(&main).chain(&ephemeral).map(String::as_str).collect();
        let message = format!("a container name must be specified for pod {name}, choose one of: [{}]", all.join(" "));
        return Err(Status::bad_request(message));
    }
    if main.iter().chain(&init).chain(&ephemeral).any(|container| container == asked) {
        return Ok(asked.to_owned());
    }
    Err(Status::bad_request(format!("container {asked} is not valid for pod {name}")))
}

/// Address and port of a node's kubelet. A node that is not there is told of as one of the `resource` that was asked for.
fn node_address(state: &State, resource: &str, name: &str) -> Result<(String, u16), Status> {
    let node = state.reader.document("", "nodes", "", name).ok_or_else(|| Status::not_found("", resource, name))?;
    let port = node.pointer("/status/daemonEndpoints/kubeletEndpoint/Port").and_then(Value::as_u64);
    let port = port.and_then(|port| u16::try_from(port).ok()).filter(|port| *port != 0).unwrap_or(KUBELET_PORT);
    let addresses = || node.pointer("/status/addresses").and_then(Value::as_array).into_iter().flatten();
    let of = |kind: &str| addresses().find(|address| address["type"] == kind).and_then(|address| address["address"].as_str());
    // A host name that only the node itself knows is of no use: names are taken where there is no address.
    let mut preferred: Vec<&String> = state.config.kubelet_preferred_address_types.iter().collect();
    preferred.sort_by_key(|kind| !kind.ends_with("IP"));
    let found = preferred.into_iter().find_map(|kind| of(kind));
    let found = found.ok_or_else(|| {
        let known: Vec<_> = addresses()
            .map(|address| {
                format!(
                    "{{{} {}}}",
                    address["type"].as_str().unwrap_or_default(),
                    address["address"].as_str().unwrap_or_default()
                )
            })
            .collect();
        let why = format!("no preferred addresses found; known addresses: [{}]", known.join(" "));
        Status::failure(500, "", why)
    })?;
    Ok((found.to_owned(), port))
}

/// The target of a proxy request to a node, a pod or a service.
pub(super) async fn proxied(state: &Arc<State>, call: &Call, object: &Value, rest: &str) -> Result<Target, Status> {
    let info = call.info();
    let (scheme, name, port) = split_name(&info.name);
    let security = if scheme == "https" { Security::Any } else { Security::Plain };
    let query = call.uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    let path = format!("{}{query}", if rest.is_empty() { "/" } else { rest });
    match info.resource.as_str() {
        "nodes" => {
            let (host, own) = node_address(state, "nodes", name)?;
            allowed(&host).await?;
            let port = if port.is_empty() { own } else { number(port, name)? };
            let security = match (scheme, port == own) {
                ("http", _) => Security::Plain,
                (_, true) => Security::Kubelet,
                _ => security,
            };
            Ok(Target { security, host, port, path })
        }
        "pods" => {
            let host = object.pointer("/status/podIP").and_then(Value::as_str).unwrap_or_default();
            if !host.parse().is_ok_and(is_global) {
                return Err(Status::bad_request("address not allowed"));
            }
            let port = if port.is_empty() { first_port(object) } else { number(port, name)? };
            Ok(Target { security, host: host.to_owned(), port, path })
        }
        _ => {
            let namespace = info.namespace.as_str();
            let (host, port) = endpoint(state, object, namespace, &info.name, port)?;
            Ok(Target { security, host, port, path })
        }
    }
}

fn number(port: &str, name: &str) -> Result<u16, Status> {
    let invalid = || match port.bytes().all(|byte| byte.is_ascii_digit()) {
        true => super::unreachable(&format!("dial tcp: address {port}: invalid port")),
        false => Status::bad_request(format!("invalid port {port:?} of {name:?}")),
    };
    port.parse().map_err(|_| invalid())
}

/// Refuses a host whose addresses are about this machine or its link: nobody gets behind the server's own doors through it.
async fn allowed(host: &str) -> Result<(), Status> {
    let addresses = tokio::net::lookup_host((host, 0)).await;
    let addresses = addresses.map_err(|err| Status::bad_request(super::transport::lookup(host, &err)))?;
    let mut addresses = addresses.map(|address| address.ip()).peekable();
    if addresses.peek().is_none() {
        return Err(Status::bad_request("no addresses for hostname"));
    }
    if addresses.all(is_global) { Ok(()) } else { Err(Status::bad_request("address not allowed")) }
}

/// Whether an address is one of a host somewhere (Go's `IsGlobalUnicast`).
fn is_global(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            !(ip.is_unspecified() || ip.is_loopback() || ip.is_multicast() || ip.is_link_local() || ip.is_broadcast())
        }
        IpAddr::V6(ip) => !(ip.is_unspecified() || ip.is_loopback() || ip.is_multicast() || ip.is_unicast_link_local()),
    }
}

fn first_port(pod: &Value) -> u16 {
    let containers = pod["spec"]["containers"].as_array().into_iter().flatten();
    let mut ports = containers.flat_map(|container| container["ports"].as_array().into_iter().flatten());
    let first = ports.find_map(|port| u16::try_from(port["containerPort"].as_u64()?).ok());
    first.unwrap_or(80)
}

/// The name of the port that is meant: a number is looked up, everything else is a name. `None` for a number of no port.
fn port_name<'a>(service: &'a Value, port: &'a str) -> Option<&'a str> {
    let Ok(number) = port.parse::<i64>() else { return Some(port) };
    let mut ports = service["spec"]["ports"].as_array().into_iter().flatten();
    ports.find(|port| port["port"] == number).map(|port| port["name"].as_str().unwrap_or_default())
}

/// A ready endpoint of a service's port, by chance. Only pods are endpoints here: whoever may write Endpoints must not get behind
/// the server's own doors through them.
fn endpoint(state: &State, service: &Value, namespace: &str, id: &str, port: &str) -> Result<(String, u16), Status> {
    let name = split_name(id).1;
    let unavailable = |why: String| Status::failure(503, "ServiceUnavailable", why);
    let port_name =
        port_name(service, port).ok_or_else(|| unavailable(format!("no service port {port} found for service {name:?}")))?;
    let endpoints =
        state.reader.document("", "endpoints", namespace, name).ok_or_else(|| Status::not_found("", "services", name))?;
    let subsets = endpoints["subsets"].as_array().map(Vec::as_slice).unwrap_or_default();
    if subsets.is_empty() {
        return Err(unavailable(format!("no endpoints available for service {name:?}")));
    }
    let is_pod = |address: &Value| {
        let text = |pointer| address.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        if text("/targetRef/namespace") != namespace {
            return false;
        }
        let pod = state.reader.document("", "pods", namespace, text("/targetRef/name"));
        let ips = pod.as_ref().and_then(|pod| pod["status"]["podIPs"].as_array()).into_iter().flatten();
        ips.into_iter().any(|ip| ip["ip"] == address["ip"])
    };
    let mut found = Vec::new();
    for subset in subsets {
        let ports = subset["ports"].as_array().into_iter().flatten();
        let named = ports.filter(|port| port["name"].as_str().unwrap_or_default() == port_name);
        let ports: Vec<u16> = named.filter_map(|port| u16::try_from(port["port"].as_u64()?).ok()).collect();
        let addresses = subset["addresses"].as_array().into_iter().flatten().filter(|address| is_pod(address));
        for ip in addresses.filter_map(|address| address["ip"].as_str()) {
            found.extend(ports.iter().map(|port| (ip.to_owned(), *port)));
        }
    }
    if found.is_empty() {
        return Err(unavailable(format!("no endpoints available for service {id:?}")));
    }
    let at = rand::random_range(0..found.len());
    Ok(found.swap_remove(at))
}

/// Writes a query string.
#[derive(Default)]
struct QueryWriter(String);

impl QueryWriter {
    fn add(&mut self, name: &str, value: &str) {
        self.0.push(if self.0.is_empty() { '?' } else { '&' });
        self.0.push_str(name);
        self.0.push('=');
        for byte in value.bytes() {
            match byte {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => self.0.push(char::from(byte)),
                _ => self.0.push_str(&format!("%{byte:02X}")),
            }
        }
    }

    fn finish(self) -> String {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn ports_of_services_are_found_by_number_or_taken_for_names() {
        let service = json!({"spec": {"ports": [{"port": 80, "name": "web"}, {"port": 443}]}});
        assert_eq!((port_name(&service, "80"), port_name(&service, "443")), (Some("web"), Some("")));
        assert_eq!((port_name(&service, "8080"), port_name(&service, "")), (None, Some("")));
        assert_eq!(port_name(&service, "other"), Some("other"));
    }

    #[test]
    fn proxied_paths_keep_what_follows() {
        for (path, resource, expected) in [
            ("/api/v1/namespaces/a/pods/b/proxy/x/y", "pods", "/x/y"),
            ("/api/v1/namespaces/a/services/https:b:8443/proxy/", "services", "/"),
            ("/api/v1/nodes/n/proxy", "nodes", ""),
            ("/api/v1/namespaces/proxy/pods/proxy/proxy/proxy", "pods", "/proxy"),
        ] {
            assert_eq!(rest(path, resource), expected, "{path}");
        }
        assert_eq!(split_name("https:web:443"), ("https", "web", "443"));
        assert_eq!(split_name("web:http"), ("", "web", "http"));
        assert_eq!(split_name("web"), ("", "web", ""));
    }

    #[test]
    fn containers_are_chosen_in_upstreams_words() {
        let pod = json!({"spec": {"containers": [{"name": "a"}, {"name": "b"}], "initContainers": [{"name": "i"}]}});
        let message = |asked| container(&pod, "p", asked).map_err(|status| status.message);
        assert_eq!(message("i"), Ok("i".into()));
        assert_eq!(message("x"), Err("container x is not valid for pod p".into()));
        let expected = "a container name must be specified for pod p, choose one of: [i a b]";
        assert_eq!(message(""), Err(expected.into()));
    }

    #[test]
    fn addresses_of_the_machine_itself_are_not_proxied_to() {
        for (address, global) in [
            ("10.0.0.1", true),
            ("192.168.1.1", true),
            ("fd00::1", true),
            ("127.0.0.1", false),
            ("169.254.169.254", false),
            ("0.0.0.0", false),
            ("255.255.255.255", false),
            ("224.0.0.1", false),
            ("::1", false),
            ("fe80::1", false),
        ] {
            assert_eq!(is_global(address.parse().unwrap()), global, "{address}");
        }
    }

    #[test]
    fn names_are_checked_before_anything_is_looked_up() {
        for (name, good) in
            [("web", true), ("https:web:1", true), (":web:", true), ("ftp:web:1", false), ("a:b:c:d", false), (":", false)]
        {
            let info = RequestInfo { resource: "pods".into(), name: name.into(), ..RequestInfo::default() };
            let checked = check_name(&info).map_err(|status| status.message);
            assert_eq!(checked, if good { Ok(()) } else { Err(format!("invalid pod request {name:?}")) });
        }
    }

    #[test]
    fn queries_are_escaped() {
        let mut query = QueryWriter::default();
        query.add("command", "a b&c");
        query.add("command", "ü");
        assert_eq!(query.finish(), "?command=a%20b%26c&command=%C3%BC");
    }
}
