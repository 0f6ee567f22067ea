//! Which resources the server has now: built-in ones, custom ones, aggregated ones.

use corten_client::Client;
use kube::api::ApiResource;
use kube::client::APIGroupDiscovery;

use crate::error::{During, Result};

/// A resource in the version the server prefers.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Served {
    pub(crate) resource: ApiResource,
    pub(crate) namespaced: bool,
    pub(crate) verbs: Vec<String>,
}

impl Served {
    pub(crate) fn can(&self, verb: &str) -> bool {
        self.verbs.iter().any(|known| known == verb)
    }
}

/// What is served, and the groups whose resources are not known at the moment (an aggregated API that is down).
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Discovered {
    pub(crate) served: Vec<Served>,
    pub(crate) failed: Vec<String>,
}

/// Asks the server: two requests, whatever the number of groups.
pub(crate) async fn discover(client: &Client) -> Result<Discovered> {
    let core = client.list_core_api_versions_aggregated().await.during("discover", "the core group")?;
    let groups = client.list_api_groups_aggregated().await.during("discover", "the API groups")?;
    let mut discovered = Discovered::default();
    for group in core.items.iter().chain(&groups.items) {
        read_group(group, &mut discovered);
    }
    Ok(discovered)
}

/// Takes each resource once, in the first version that has it: versions come in the server's order of preference.
fn read_group(group: &APIGroupDiscovery, discovered: &mut Discovered) {
    let name = group.metadata.as_ref().and_then(|meta| meta.name.clone()).unwrap_or_default();
    let from = discovered.served.len();
    for version in &group.versions {
        let version_name = version.version.clone().unwrap_or_default();
        let api_version = if name.is_empty() { version_name.clone() } else { format!("{name}/{version_name}") };
        if version.freshness.as_deref() == Some("Stale") {
            discovered.failed.push(api_version);
            continue;
        }
        for resource in &version.resources {
            let Some(plural) = resource.resource.clone() else { continue };
            if discovered.served[from..].iter().any(|known| known.resource.plural == plural) {
                continue;
            }
            // Its response kind may live in another group (Scale); that is the case for subresources only.
            let kind = resource.response_kind.as_ref().and_then(|kind| kind.kind.clone()).unwrap_or_default();
            discovered.served.push(Served {
                resource: ApiResource {
                    group: name.clone(),
                    version: version_name.clone(),
                    api_version: api_version.clone(),
                    kind,
                    plural,
                },
                namespaced: resource.scope.as_deref() == Some("Namespaced"),
                verbs: resource.verbs.clone(),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{from_value, json};

    use super::*;

    #[test]
    fn a_resource_is_taken_once_and_stale_versions_are_named() {
        let resource = |name: &str, scope: &str| json!({"resource": name, "responseKind": {"kind": "X"}, "scope": scope, "verbs": ["list", "delete"]});
        let group = json!({"metadata": {"name": "apps"}, "versions": [
            {"version": "v1", "resources": [resource("deployments", "Namespaced"), resource("things", "Cluster")]},
            {"version": "v1beta1", "resources": [resource("deployments", "Namespaced"), resource("olds", "Namespaced")]},
            {"version": "v1alpha1", "freshness": "Stale", "resources": []}]});
        let mut discovered = Discovered::default();
        read_group(&from_value(group).unwrap(), &mut discovered);
        let found: Vec<_> = discovered
            .served
            .iter()
            .map(|served| format!("{} {} {}", served.resource.api_version, served.resource.plural, served.namespaced))
            .collect();
        assert_eq!(found, ["apps/v1 deployments true", "apps/v1 things false", "apps/v1beta1 olds true"]);
        assert_eq!(discovered.failed, ["apps/v1alpha1"]);
        assert!(discovered.served[0].can("delete") && !discovered.served[0].can("watch"));
    }
}
