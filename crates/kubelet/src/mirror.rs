//! Static pods as the API shows them: a mirror object per static pod, made and removed by the kubelet, with which users
//! can see but not change it.

use std::collections::HashMap;

use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{DeleteParams, PostParams, Preconditions};
use kube::{Api, Client};
use parking_lot::Mutex;

use crate::pod::{CONFIG_HASH, MIRROR, PodExt};

/// The mirror objects the API has.
pub struct Mirrors {
    client: Client,
    node: String,
    known: Mutex<HashMap<(String, String), Known>>,
}

#[derive(Clone, Debug)]
struct Known {
    uid: String,
    hash: String,
    deleting: bool,
}

impl Mirrors {
    pub fn new(client: Client, node: &str) -> Self {
        Self { client, node: node.to_owned(), known: Mutex::default() }
    }

    /// UID of the mirror object of a static pod.
    pub fn uid(&self, namespace: &str, name: &str) -> Option<String> {
        let known = self.known.lock();
        known.get(&(namespace.to_owned(), name.to_owned())).filter(|mirror| !mirror.deleting).map(|mirror| mirror.uid.clone())
    }

    /// A mirror object came or changed.
    pub fn seen(&self, mirror: &Pod) {
        let known = Known {
            uid: mirror.uid().to_owned(),
            hash: mirror.annotation(MIRROR).unwrap_or_default().to_owned(),
            deleting: mirror.is_deleting(),
        };
        self.known.lock().insert((mirror.namespace().to_owned(), mirror.name().to_owned()), known);
    }

    /// A mirror object went.
    pub fn gone(&self, mirror: &Pod) {
        self.known.lock().remove(&(mirror.namespace().to_owned(), mirror.name().to_owned()));
    }

    /// Makes the mirror of a static pod exist, and be of this version of it. Returns whether it is in order now.
    pub async fn ensure(&self, pod: &Pod, node: Option<&Node>) -> bool {
        let key = (pod.namespace().to_owned(), pod.name().to_owned());
        let hash = pod.annotation(CONFIG_HASH).unwrap_or_default().to_owned();
        let known = self.known.lock().get(&key).cloned();
        if let Some(known) = known {
            if known.hash == hash && !known.deleting {
                return true;
            }
            self.delete(&key.0, &key.1, &known.uid).await;
            return false;
        }
        let mut mirror = pod.clone();
        mirror.metadata.uid = None;
        mirror.metadata.resource_version = None;
        mirror.metadata.annotations.get_or_insert_default().insert(MIRROR.to_owned(), hash);
        if let Some(uid) = node.and_then(|node| node.metadata.uid.clone()) {
            mirror.metadata.owner_references = Some(vec![OwnerReference {
                api_version: "v1".to_owned(),
                kind: "Node".to_owned(),
                name: self.node.clone(),
                uid,
                controller: Some(true),
                ..OwnerReference::default()
            }]);
        }
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &key.0);
        match pods.create(&PostParams::default(), &mirror).await {
            Ok(made) => {
                self.seen(&made);
                true
            }
            Err(err) => {
                tracing::debug!(pod = %pod.described(), error = %crate::chain(&err), "create a mirror pod");
                false
            }
        }
    }

    /// Deletes the mirrors whose static pod is not in `live` (namespace and name).
    pub async fn retain(&self, live: &[(String, String)]) {
        let orphans: Vec<_> = {
            let known = self.known.lock();
            known.iter().filter(|(key, _)| !live.contains(key)).map(|(key, mirror)| (key.clone(), mirror.uid.clone())).collect()
        };
        for ((namespace, name), uid) in orphans {
            self.delete(&namespace, &name, &uid).await;
        }
    }

    async fn delete(&self, namespace: &str, name: &str, uid: &str) {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let params = DeleteParams {
            grace_period_seconds: Some(0),
            preconditions: Some(Preconditions { uid: Some(uid.to_owned()), resource_version: None }),
            ..DeleteParams::default()
        };
        if let Err(err) = pods.delete(name, &params).await {
            tracing::debug!(pod = %format!("{namespace}/{name}"), error = %crate::chain(&err), "delete a mirror pod");
        }
    }
}
