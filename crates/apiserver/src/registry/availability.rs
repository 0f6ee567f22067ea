//! Tells of each APIService whether who serves it can be reached: the condition `Available`.
//!
//! Level-triggered: after any change of an APIService, or of a Service or EndpointSlice while one is named, all are looked at.
//! Whether a server answers is not told by any change, so those that are asked are asked again every half minute, upstream's
//! period.

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::bootstrap;
use crate::cache::{Feed, Interest, Watcher};
use crate::state::State;
use crate::stream;

const GROUP: &str = "apiregistration.k8s.io";
const PLURAL: &str = "apiservices";
const SLICES: (&str, &str) = ("discovery.k8s.io", "endpointslices");
/// Time between two questions to one server.
const AGAIN: Duration = Duration::from_secs(30);

/// Keeps the conditions true until the server stops.
pub(super) async fn run(state: Arc<State>) {
    let (Some(api_services), Some(services), Some(slices)) =
        (state.caches.of(GROUP, PLURAL), state.caches.of("", "services"), state.caches.of(SLICES.0, SLICES.1))
    else {
        return;
    };
    loop {
        // Watching starts before the look, so that no change is missed.
        let (_, mut changes) = api_services.watch(Interest::All);
        let remote = !named(&state).is_empty();
        let mut backends = if remote { vec![services.watch(Interest::All).1, slices.watch(Interest::All).1] } else { Vec::new() };
        loop {
            let again = reconcile(&state).await.then(|| Instant::now() + AGAIN);
            let look = async {
                match again {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            let feed = tokio::select! {
                feed = changes.next() => Some(feed),
                feed = first(&mut backends) => Some(feed),
                () = look => None,
            };
            if matches!(feed, Some(Feed::Cut)) || remote == named(&state).is_empty() {
                break;
            }
        }
    }
}

/// The next events of any of the watchers.
async fn first(watchers: &mut [Watcher]) -> Feed {
    match watchers {
        [one, two] => tokio::select! { feed = one.next() => feed, feed = two.next() => feed },
        _ => std::future::pending().await,
    }
}

/// The APIServices that somebody else serves.
fn named(state: &State) -> Vec<Value> {
    let all = state.reader.list(GROUP, PLURAL, "").into_iter().map(|entry| entry.decode());
    all.filter(|object| object["spec"]["service"].is_object()).collect()
}

/// Looks at all; whether a server was asked.
async fn reconcile(state: &Arc<State>) -> bool {
    let mut asked = false;
    for entry in state.reader.list(GROUP, PLURAL, "") {
        let object = entry.decode();
        let (status, reason, message) = match object["spec"]["service"].as_object() {
            None => ("True", "Local", "Local APIServices are always available".to_owned()),
            Some(_) => match reach(state, &object["spec"]["service"]) {
                Err((reason, message)) => ("False", reason, message),
                Ok((host, port)) => {
                    asked = true;
                    match stream::discover(state, host, port, &discovery_path(&object["spec"])).await {
                        Ok(()) => ("True", "Passed", "all checks passed".to_owned()),
                        Err(message) => ("False", "FailedDiscoveryCheck", message),
                    }
                }
            },
        };
        let Some(condition) = condition(&object, status, reason, message, jiff::Timestamp::now()) else { continue };
        write(state, object, condition).await;
    }
    asked
}

async fn write(state: &Arc<State>, mut object: Value, condition: Value) {
    let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let mut conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
    conditions.retain(|known| known["type"] != "Available");
    conditions.push(condition);
    object["status"] = json!({"conditions": conditions});
    let path = format!("/apis/{GROUP}/v1/{PLURAL}/{name}/status");
    // One that has changed meanwhile is looked at again; one that has gone needs no condition.
    if let Err(status) = bootstrap::send(state, Method::PUT, &path, "application/json", &object).await {
        tracing::debug!(name, message = status.message, "the condition of an API service was not written");
    }
}

/// What a server of the version has to answer.
fn discovery_path(spec: &Value) -> String {
    let text = |field: &str| spec[field].as_str().unwrap_or_default();
    match text("group") {
        "" => format!("/api/{}", text("version")),
        group => format!("/apis/{group}/{}", text("version")),
    }
}

/// An endpoint of the Service that `reference` names, or reason and message why there is none.
fn reach(state: &State, reference: &Value) -> Result<(String, u16), (&'static str, String)> {
    let text = |field: &str| reference[field].as_str().unwrap_or_default();
    let (namespace, name) = (text("namespace"), text("name"));
    let service = state.reader.document("", "services", namespace, name);
    let slices = state.reader.list(SLICES.0, SLICES.1, namespace).into_iter().map(|entry| entry.decode());
    let slices = slices.filter(|slice| slice["metadata"]["labels"]["kubernetes.io/service-name"] == name).collect::<Vec<_>>();
    endpoint(reference, service.as_ref(), &slices)
}

/// As [`reach`], of the objects.
fn endpoint(reference: &Value, service: Option<&Value>, slices: &[Value]) -> Result<(String, u16), (&'static str, String)> {
    let text = |field: &str| reference[field].as_str().unwrap_or_default();
    let namespace = corten_api::field::quoted(text("namespace"));
    let what = format!("service/{} in {namespace}", text("name"));
    let port = reference["port"].as_u64().unwrap_or(443);
    let service = service.ok_or_else(|| ("ServiceNotFound", format!("{what} is not present")))?;
    if service["spec"]["type"] == "ExternalName" {
        let host = service["spec"]["externalName"].as_str().unwrap_or_default().to_owned();
        return Ok((host, u16::try_from(port).unwrap_or(443)));
    }
    let ports = service["spec"]["ports"].as_array().into_iter().flatten();
    let open = ports.into_iter().find(|open| open["port"].as_u64() == Some(port));
    let open = open.ok_or_else(|| ("ServicePortError", format!("{what} is not listening on port {port}")))?;
    if slices.is_empty() {
        return Err(("EndpointsNotFound", format!("cannot find endpointslices for {what}")));
    }
    let port_name = open["name"].as_str().unwrap_or_default();
    let found = slices.iter().find_map(|slice| {
        let mut endpoints = slice["endpoints"].as_array()?.iter();
        let ready = endpoints.find(|endpoint| endpoint["conditions"]["ready"] != false)?;
        let named = |port: &&Value| port["name"].as_str().unwrap_or_default() == port_name;
        let port = slice["ports"].as_array()?.iter().find(named)?["port"].as_u64()?;
        Some((ready["addresses"][0].as_str()?.to_owned(), u16::try_from(port).ok()?))
    });
    found.ok_or_else(|| {
        let port_name = corten_api::field::quoted(port_name);
        ("MissingEndpoints", format!("endpointslices for {what} have no addresses with port name {port_name}"))
    })
}

/// The condition to write, when the one there does not say it.
fn condition(object: &Value, status: &str, reason: &str, message: String, now: jiff::Timestamp) -> Option<Value> {
    let there = object["status"]["conditions"].as_array().into_iter().flatten().find(|known| known["type"] == "Available");
    let mut since = Value::from(now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
    if let Some(there) = there.filter(|there| there["status"] == status) {
        if there["reason"] == reason && there["message"] == message.as_str() {
            return None;
        }
        since = there["lastTransitionTime"].clone();
    }
    Some(json!({"type": "Available", "status": status, "lastTransitionTime": since, "reason": reason, "message": message}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_keeps_a_service_from_being_reached_is_told() {
        let reference = json!({"namespace": "ns", "name": "api", "port": 443});
        let service = |port: u16| json!({"spec": {"ports": [{"name": "https", "port": port}]}});
        let slice = |ready: bool, name: &str| json!({"endpoints": [{"addresses": ["10.0.0.1"], "conditions": {"ready": ready}}], "ports": [{"name": name, "port": 8443}]});
        let fault =
            |service: Option<Value>, slices: &[Value]| endpoint(&reference, service.as_ref(), slices).map_err(|(_, text)| text);
        let missing = "endpointslices for service/api in \"ns\" have no addresses with port name \"https\"";
        for (service, slices, expected) in [
            (None, vec![], "service/api in \"ns\" is not present"),
            (Some(service(80)), vec![], "service/api in \"ns\" is not listening on port 443"),
            (Some(service(443)), vec![], "cannot find endpointslices for service/api in \"ns\""),
            (Some(service(443)), vec![slice(false, "https")], missing),
            (Some(service(443)), vec![slice(true, "http")], missing),
        ] {
            assert_eq!(fault(service, &slices), Err(expected.to_owned()));
        }
        let slices = [slice(false, "https"), slice(true, "https")];
        assert_eq!(fault(Some(service(443)), &slices), Ok(("10.0.0.1".to_owned(), 8443)));
    }

    #[test]
    fn the_time_of_a_condition_is_that_of_its_status() {
        let epoch = jiff::Timestamp::UNIX_EPOCH;
        let first = condition(&json!({}), "False", "ServiceNotFound", "a".into(), epoch).unwrap_or_default();
        let object = json!({"status": {"conditions": [first]}});
        assert_eq!(condition(&object, "False", "ServiceNotFound", "a".into(), jiff::Timestamp::MAX), None);
        let other = condition(&object, "False", "MissingEndpoints", "b".into(), jiff::Timestamp::MAX).unwrap_or_default();
        assert_eq!(other["lastTransitionTime"], "1970-01-01T00:00:00Z");
        let passed = condition(&object, "True", "Passed", "c".into(), jiff::Timestamp::MAX).unwrap_or_default();
        assert_ne!(passed["lastTransitionTime"], "1970-01-01T00:00:00Z");
    }
}
