//! Empties a namespace that is being deleted, and lets it go when nothing is left.
//!
//! Everything the server can list and delete in a namespace is deleted, whatever its group. Pods go first and get their grace
//! period: what they rely on stays until the last is gone (KEP-5080). What keeps the namespace is said in its conditions.

mod conditions;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use corten_client::{Change, Client, Informer, Key, Queue, Requeue};
use k8s_openapi::api::core::v1::{Namespace, NamespaceStatus, Pod};
use kube::Api;
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::core::{DynamicObject, PartialObjectMeta};

use crate::clock::now;
use crate::context::{Context, synced};
use crate::discovery::{Served, discover};
use crate::error::{During, Error, Result, gone_is_fine, message};
use crate::meta::{is_deleting, namespace};
use conditions::Findings;

const FINALIZER: &str = "kubernetes";
/// How long finalizers and other waits without a deadline of their own are given before the next look
/// (upstream's `finalizerEstimateSeconds`).
const PATIENCE: Duration = Duration::from_secs(15);

struct Controller {
    client: Client,
    namespaces: Informer<Namespace>,
}

/// Starts the controller.
pub(crate) fn start(ctx: &Context) {
    let queue: Queue = Queue::new();
    let controller = Arc::new(Controller { client: ctx.client.clone(), namespaces: ctx.informers.of() });
    let pods: Informer<Pod> = ctx.informers.of();
    controller.namespaces.on_change({
        let queue = queue.clone();
        move |change: &Change<Namespace>| {
            let namespace = change.object();
            if !change.is_deleted() && is_deleting(&namespace.metadata) {
                queue.add(Key::of(&**namespace));
            }
        }
    });
    pods.on_change({
        let (queue, controller, pods) = (queue.clone(), controller.clone(), pods.clone());
        move |change: &Change<Pod>| {
            let namespace = namespace(&change.object().metadata);
            if !change.is_deleted() || !pods.list_in(namespace).is_empty() {
                return;
            }
            let key = Key::new("", namespace);
            if controller.namespaces.get(&key).is_some_and(|namespace| is_deleting(&namespace.metadata)) {
                queue.add(key);
            }
        }
    });
    let synced = synced!(controller.namespaces);
    ctx.run("namespace", 10, queue, synced, controller, |controller, key| async move { controller.reconcile(&key).await });
}

impl Controller {
    async fn reconcile(&self, key: &Key) -> Result<Requeue> {
        let Some(namespace) = self.namespaces.get(key) else { return Ok(Requeue::OnChange) };
        if !is_deleting(&namespace.metadata) || !has_finalizer(&namespace) {
            return Ok(Requeue::OnChange);
        }
        let api: Api<Namespace> = Api::all(self.client.clone());
        let mut findings = Findings::default();
        self.empty(&key.name, &mut findings).await;
        let conditions = conditions::update(&namespace, &findings, now());
        let status = NamespaceStatus { phase: Some("Terminating".into()), conditions: Some(conditions) };
        let mut current = Namespace::clone(&namespace);
        if current.status.as_ref() != Some(&status) {
            current.status = Some(status);
            let written = gone_is_fine(api.replace_status(&key.name, &PostParams::default(), &current).await);
            let Some(written) = written.during("update the status of namespace", key)? else { return Ok(Requeue::OnChange) };
            current = written;
        }
        if let Some(failure) = findings.failure() {
            return Err(Error::Invalid(format!("namespace {key} is not empty: {failure}")));
        }
        if findings.is_something_left() {
            return Ok(Requeue::After(findings.wait.unwrap_or(PATIENCE).min(PATIENCE) + Duration::from_secs(1)));
        }
        if let Some(spec) = &mut current.spec {
            spec.finalizers.get_or_insert_default().retain(|finalizer| finalizer != FINALIZER);
        }
        let params = PostParams::default();
        gone_is_fine(api.replace_subresource("finalize", &key.name, &params, &current).await)
            .during("finalize namespace", key)?;
        Ok(Requeue::OnChange)
    }

    /// Deletes what is in the namespace and notes what stays.
    async fn empty(&self, namespace: &str, findings: &mut Findings) {
        let discovered = match discover(&self.client).await {
            Ok(discovered) => discovered,
            Err(err) => {
                findings.discovery_failures.push(with_source(&err));
                return;
            }
        };
        for group in &discovered.failed {
            findings.discovery_failures.push(format!(
                "unable to retrieve the complete list of server APIs: {group}: stale GroupVersion discovery: {group}"
            ));
        }
        // Not those that another group shows as well.
        let deletable = |served: &&Served| {
            served.namespaced && served.can("delete") && served.can("list") && served.resource.group != "events.k8s.io"
        };
        let (pods, others): (Vec<_>, Vec<_>) = discovered.served.iter().filter(deletable).partition(|served| is_pods(served));
        for resources in [pods, others] {
            for served in resources {
                if let Err(err) = self.empty_resource(namespace, served, findings).await {
                    findings.content_failures.push(message(&err));
                }
            }
            if findings.is_something_left() {
                return;
            }
        }
    }

    async fn empty_resource(&self, namespace: &str, served: &Served, findings: &mut Findings) -> kube::Result<()> {
        let api: Api<PartialObjectMeta<DynamicObject>> = Api::namespaced_with(self.client.clone(), namespace, &served.resource);
        let present = |result: kube::Result<_>| match result {
            // A resource that went away between discovery and now has nothing left.
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 405) => Ok(None),
            other => other.map(Some),
        };
        let Some(list) = present(api.list(&ListParams::default()).await)? else { return Ok(()) };
        if list.items.is_empty() {
            return Ok(());
        }
        let pods_wait = is_pods(served).then(|| longest_grace(&self.client, namespace));
        if served.can("deletecollection") {
            api.delete_collection(&DeleteParams::background(), &ListParams::default()).await?;
        } else {
            for item in &list.items {
                let name = item.metadata.name.as_deref().unwrap_or_default();
                gone_is_fine(api.delete(name, &DeleteParams::background()).await)?;
            }
        }
        let wait = match pods_wait {
            Some(wait) => wait.await?,
            None => None,
        };
        let Some(left) = present(api.list(&ListParams::default()).await)? else { return Ok(()) };
        if left.items.is_empty() {
            return Ok(());
        }
        let mut finalizers: BTreeMap<String, usize> = BTreeMap::new();
        for finalizer in left.items.iter().flat_map(|item| item.metadata.finalizers.iter().flatten()) {
            *finalizers.entry(finalizer.clone()).or_default() += 1;
        }
        // Pods that only wait for their kubelet come back with their own deadline; so do all others after a while.
        let wait = if finalizers.is_empty() { wait.unwrap_or(PATIENCE) } else { PATIENCE };
        let resource = if served.resource.group.is_empty() {
            format!("{}.", served.resource.plural)
        } else {
            format!("{}.{}", served.resource.plural, served.resource.group)
        };
        findings.remaining.insert(resource, left.items.len());
        for (finalizer, count) in finalizers {
            *findings.finalizers.entry(finalizer).or_default() += count;
        }
        findings.wait = Some(findings.wait.map_or(wait, |known| known.max(wait)));
        Ok(())
    }
}

fn is_pods(served: &Served) -> bool {
    served.resource.group.is_empty() && served.resource.plural == "pods"
}

async fn longest_grace(client: &Client, namespace: &str) -> kube::Result<Option<Duration>> {
    let pods = Api::<Pod>::namespaced(client.clone(), namespace).list(&ListParams::default()).await?;
    let active = pods.items.iter().filter(|pod| !crate::pods::is_terminal(pod));
    let grace = active.filter_map(|pod| pod.spec.as_ref()?.termination_grace_period_seconds).max();
    Ok(grace.map(|seconds| Duration::from_secs(u64::try_from(seconds).unwrap_or(0))))
}

fn has_finalizer(namespace: &Namespace) -> bool {
    namespace.spec.iter().flat_map(|spec| spec.finalizers.iter().flatten()).any(|finalizer| finalizer == FINALIZER)
}

fn with_source(err: &Error) -> String {
    match err {
        Error::Api { source, .. } => message(source),
        Error::Invalid(text) => text.clone(),
    }
}
