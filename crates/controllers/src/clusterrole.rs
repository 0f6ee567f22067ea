//! Fills ClusterRoles that are made of others: `admin`, `edit`, `view`, and those of users.

use std::sync::Arc;

use corten_client::{Change, Client, Informer, Key, Queue, Requeue};
use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule};
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use crate::context::{Context, synced};
use crate::error::{During, Result, gone_is_fine};
use crate::meta::{map, uid};
use crate::selector::selects;

struct Aggregation {
    client: Client,
    roles: Informer<ClusterRole>,
}

/// Starts the controller.
pub(crate) fn start(ctx: &Context) {
    let queue: Queue = Queue::new();
    let controller = Arc::new(Aggregation { client: ctx.client.clone(), roles: ctx.informers.of() });
    controller.roles.on_change({
        let (queue, controller) = (queue.clone(), controller.clone());
        move |change: &Change<ClusterRole>| {
            let role = change.object();
            let concerned = |aggregating: &ClusterRole| {
                let covers = |role: &ClusterRole| is_part(aggregating, role);
                uid(&aggregating.metadata) == uid(&role.metadata) || covers(role) || change.old().is_some_and(|old| covers(old))
            };
            // While the first list comes in, each aggregating role adds itself; the parts come with it.
            if !controller.roles.is_synced() {
                if role.aggregation_rule.is_some() {
                    queue.add(Key::of(&**role));
                }
                return;
            }
            for other in controller.roles.list().iter().filter(|other| other.aggregation_rule.is_some() && concerned(other)) {
                queue.add(Key::of(&**other));
            }
        }
    });
    let synced = synced!(controller.roles);
    ctx.run(
        "clusterroleaggregation",
        1,
        queue,
        synced,
        controller,
        |controller, key| async move { controller.reconcile(&key).await },
    );
}

impl Aggregation {
    async fn reconcile(&self, key: &Key) -> Result<Requeue> {
        let Some(role) = self.roles.get(key).filter(|role| role.aggregation_rule.is_some()) else { return Ok(Requeue::OnChange) };
        let rules = plan(&role, &self.roles.list());
        if role.rules.as_deref().unwrap_or_default() == rules {
            return Ok(Requeue::OnChange);
        }
        let patch = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": &*key.name}, "rules": rules});
        let params = PatchParams::apply("clusterrole-aggregation-controller").force();
        let api: Api<ClusterRole> = Api::all(self.client.clone());
        gone_is_fine(api.patch(&key.name, &params, &Patch::Apply(patch)).await)
            .during("update the rules of cluster role", key)?;
        Ok(Requeue::OnChange)
    }
}

fn is_part(aggregating: &ClusterRole, role: &ClusterRole) -> bool {
    let selectors = aggregating.aggregation_rule.iter().flat_map(|rule| rule.cluster_role_selectors.iter().flatten());
    uid(&aggregating.metadata) != uid(&role.metadata)
        && selectors.into_iter().any(|selector| selects(selector, map(&role.metadata.labels)))
}

/// The rules of all parts, selector by selector and by name within one, each rule once.
fn plan(role: &ClusterRole, all: &[Arc<ClusterRole>]) -> Vec<PolicyRule> {
    let mut rules: Vec<PolicyRule> = Vec::new();
    for selector in role.aggregation_rule.iter().flat_map(|rule| rule.cluster_role_selectors.iter().flatten()) {
        for part in
            all.iter().filter(|part| part.metadata.name != role.metadata.name && selects(selector, map(&part.metadata.labels)))
        {
            for rule in part.rules.iter().flatten() {
                if !rules.contains(rule) {
                    rules.push(rule.clone());
                }
            }
        }
    }
    rules
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::testing::World;

    #[tokio::test(start_paused = true)]
    async fn rules_are_the_sum_of_the_parts() {
        let roles = "/apis/rbac.authorization.k8s.io/v1/clusterroles";
        let world = World::new(&[super::start]);
        let rule = |verb: &str| json!({"apiGroups": [""], "resources": ["pods"], "verbs": [verb]});
        let part = |name: &str, verb: &str| {
            json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
                "metadata": {"name": name, "labels": {"to-view": "true"}}, "rules": [rule(verb)]})
        };
        world.api.create(roles, part("b", "list"));
        world.api.create(
            roles,
            json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "view"},
            "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"to-view": "true"}}]}}),
        );
        world.settle().await;
        let rules = || world.api.get(&format!("{roles}/view")).unwrap()["rules"].clone();
        assert_eq!(rules(), json!([rule("list")]));
        world.api.create(roles, part("a", "get"));
        world.settle().await;
        assert_eq!(rules(), json!([rule("get"), rule("list")]));
        world.api.delete(&format!("{roles}/b"));
        world.settle().await;
        assert_eq!(rules(), json!([rule("get")]));
        world.stop().await;
    }
}
