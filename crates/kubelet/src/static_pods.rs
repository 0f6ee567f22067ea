//! Pods from a directory of manifests, for what must run before or without the API server. Each gets a mirror object.
//! The directory is watched by inotify.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, Toleration};
use nix::sys::inotify::AddWatchFlags;
use sha2::{Digest, Sha256};

use crate::context::Context;
use crate::inotify::Watch;
use crate::pod::{CONFIG_HASH, CONFIG_SEEN, PodExt, SOURCE};
use crate::pods::Pods;
use crate::worker::End;

/// Follows the directory for ever.
pub async fn run(ctx: Arc<Context>, pods: Arc<Pods>) {
    let Some(dir) = ctx.config.static_pods.clone() else { return };
    let changes = match watch(&dir) {
        Ok(changes) => changes,
        Err(err) => {
            tracing::error!(error = %err, path = %dir.display(), "watch the directory of static pods");
            return;
        }
    };
    let mut running: BTreeMap<String, Arc<Pod>> = BTreeMap::new();
    let mut node = ctx.node.clone();
    loop {
        let wanted = read(&ctx, &dir);
        for (uid, pod) in &running {
            if !wanted.contains_key(uid) {
                pods.end(uid, End::Gone);
                tracing::info!(pod = %pod.described(), "static pod removed");
            }
        }
        for (uid, pod) in &wanted {
            if !running.contains_key(uid) {
                pods.take(pod.clone());
            }
        }
        running = wanted;
        let live: Vec<_> = running.values().map(|pod| (pod.namespace().to_owned(), pod.name().to_owned())).collect();
        // Mirrors need the API; the pods themselves do not wait for it.
        let mirrors = async {
            pods.synced().await;
            ctx.mirrors.retain(&live).await;
            loop {
                let current = node.borrow_and_update().clone();
                let mut all = true;
                for pod in running.values() {
                    all &= ctx.mirrors.ensure(pod, current.as_deref()).await;
                    pods.wake(Some(pod.uid()));
                }
                if all {
                    break;
                }
                tokio::time::sleep(std::time::Duration::from_secs(2)).await;
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = mirrors => {}
            result = changes.changed() => {
                if let Err(err) = result {
                    tracing::error!(error = %err, "watch the directory of static pods");
                    return;
                }
            }
        }
    }
}

fn watch(dir: &Path) -> std::io::Result<Watch> {
    std::fs::create_dir_all(dir)?;
    Watch::on(
        dir,
        AddWatchFlags::IN_CLOSE_WRITE | AddWatchFlags::IN_MOVED_TO | AddWatchFlags::IN_MOVED_FROM | AddWatchFlags::IN_DELETE,
    )
}

/// The pods of the directory's manifests, by UID. A manifest that is no pod is left out with a message.
fn read(ctx: &Context, dir: &Path) -> BTreeMap<String, Arc<Pod>> {
    let mut pods = BTreeMap::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        let hidden = path.file_name().and_then(|name| name.to_str()).is_none_or(|name| name.starts_with('.'));
        if hidden || !path.is_file() {
            continue;
        }
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(err) => {
                tracing::warn!(error = %err, path = %path.display(), "read a manifest");
                continue;
            }
        };
        match parse(&text, &ctx.config.node_name, &ctx.clock.now().to_string()) {
            Ok(pod) => {
                pods.insert(pod.uid().to_owned(), Arc::new(pod));
            }
            Err(why) => tracing::warn!(error = why, path = %path.display(), "a manifest is no pod"),
        }
    }
    pods
}

/// A static pod from its manifest: the node's name is part of its own, and a hash of its content its identity.
fn parse(text: &str, node: &str, seen: &str) -> Result<Pod, String> {
    let mut pod: Pod = serde_yaml_ng::from_str(text).map_err(|err| err.to_string())?;
    let name = pod.metadata.name.clone().filter(|name| !name.is_empty()).ok_or("the pod has no name")?;
    if pod.spec.as_ref().is_none_or(|spec| spec.containers.is_empty()) {
        return Err("the pod has no containers".to_owned());
    }
    pod.metadata.name = Some(format!("{name}-{node}"));
    pod.metadata.namespace.get_or_insert_with(|| "default".to_owned());
    let mut digest = Sha256::new();
    digest.update(node);
    digest.update(serde_json::to_vec(&pod).map_err(|err| err.to_string())?);
    let hash: String = digest.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    pod.metadata.uid = Some(hash.clone());
    let annotations = pod.metadata.annotations.get_or_insert_default();
    for (key, value) in [(SOURCE, "file"), (CONFIG_HASH, &hash), (CONFIG_SEEN, seen)] {
        annotations.insert(key.to_owned(), value.to_owned());
    }
    let spec = pod.spec.get_or_insert_default();
    spec.node_name = Some(node.to_owned());
    // What the API server would set by default.
    spec.restart_policy.get_or_insert_with(|| "Always".to_owned());
    spec.dns_policy.get_or_insert_with(|| "ClusterFirst".to_owned());
    spec.enable_service_links.get_or_insert(true);
    spec.termination_grace_period_seconds.get_or_insert(30);
    for container in spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten()) {
        container.termination_message_path.get_or_insert_with(|| "/dev/termination-log".to_owned());
        container.termination_message_policy.get_or_insert_with(|| "File".to_owned());
    }
    // Nothing takes a static pod off its node.
    let forever =
        Toleration { operator: Some("Exists".to_owned()), effect: Some("NoExecute".to_owned()), ..Toleration::default() };
    spec.tolerations.get_or_insert_default().push(forever);
    pod.status = None;
    Ok(pod)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_becomes_a_pod_of_this_node() {
        let text = "apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec: {containers: [{name: a, image: b}]}\n";
        let pod = parse(text, "n1", "now").expect("a pod");
        assert_eq!((pod.name(), pod.namespace(), pod.is_static()), ("web-n1", "default", true));
        assert_eq!(pod.uid(), parse(text, "n1", "later").expect("a pod").uid());
        assert_ne!(pod.uid(), parse(&text.replace("image: b", "image: c"), "n1", "now").expect("a pod").uid());
        assert!(parse("kind: Pod", "n1", "now").is_err());
    }
}
