//! Admission: what may change or refuse a write after authorization. Plugins are asked in upstream's order, first all
//! that change, then all that only judge; the chain returns the [`Admitted`](crate::proof::Admitted) that a write needs.

mod certificates;
mod declared_features;
mod limit_ranger;
mod metrics;
mod namespace_lifecycle;
mod node_restriction;
mod pod_security;
mod pods;
mod policy;
mod quota;
mod service_account;
mod storage;
mod tools;

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use serde_json::Value;

use corten_api::status::Status;

use crate::metrics::{Admission, Timed};
use crate::state::State;
use crate::user::User;

/// What is done to the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// A new object (or a subresource that is posted: binding, eviction).
    Create,
    /// A changed object.
    Update,
    /// A deletion.
    Delete,
    /// A connection: exec, attach, portforward, proxy.
    Connect,
}

/// One write, as admission sees it.
#[derive(Debug)]
pub struct AdmissionRequest {
    /// What is done.
    pub operation: Operation,
    /// API group of the resource.
    pub group: String,
    /// API version of the documents.
    pub version: String,
    /// Plural name of the resource.
    pub resource: String,
    /// Subresource, empty for none.
    pub subresource: String,
    /// Kind of the documents.
    pub kind: String,
    /// Namespace, empty for cluster scope.
    pub namespace: String,
    /// Name; empty when it is still to be generated.
    pub name: String,
    /// The new state; `None` for a deletion.
    pub object: Option<Value>,
    /// The state before; `None` for a creation.
    pub old: Option<Value>,
    /// The options of the request (`CreateOptions`, …), as a document.
    pub options: Value,
    /// Who asks.
    pub user: User,
    /// Whether nothing will be written.
    pub dry_run: bool,
    /// Texts for `Warning` headers.
    pub warnings: Vec<String>,
    /// Annotations for the audit event.
    pub audit_annotations: BTreeMap<String, String>,
    /// Whether the changing pass is to be repeated.
    pub reinvocation: Reinvocation,
}

/// How policies that change objects ask for a second look at what came of it all.
#[derive(Debug, Default)]
pub struct Reinvocation {
    /// A policy has run that others may have to see the outcome of.
    pub wanted: bool,
    /// This is the second pass; there is no third.
    pub again: bool,
    /// What ran in the first pass and wants to run in the second.
    pub invoked: Vec<String>,
}

/// A future that a plugin returns.
pub type Verdict<'a> = Pin<Box<dyn Future<Output = Result<(), Status>> + Send + 'a>>;

/// One admission plugin. A plugin reads other objects through a [`crate::reader::Reader`] it was given when it was made.
pub trait Plugin: Send + Sync + 'static {
    /// Upstream's name, as `--enable-admission-plugins` has it.
    fn name(&self) -> &'static str;

    /// Whether the plugin wants to see this request at all; asked before anything is cloned for it.
    fn handles(&self, request: &AdmissionRequest) -> bool;

    /// Whether the plugin looks at managed fields, or shows the documents to somebody outside. To others they may come as one
    /// text: see [`corten_schema::apply::unfold`].
    fn reads_managed_fields(&self) -> bool {
        true
    }

    /// Whether the plugin, which handles this update, looks at more of the object than its metadata. When none does, a change of
    /// metadata may come without the rest.
    fn reads_content(&self, request: &AdmissionRequest) -> bool {
        let _ = request;
        true
    }

    /// May change `request.object`.
    fn admit<'a>(&'a self, request: &'a mut AdmissionRequest) -> Verdict<'a> {
        let _ = request;
        Box::pin(std::future::ready(Ok(())))
    }

    /// Gets the server, for a plugin that writes objects; called before the first request.
    fn attach(&self, state: &Arc<State>) {
        let _ = state;
    }

    /// Judges the final object, for a plugin that also warns or writes to the audit log when it does.
    fn judge<'a>(&'a self, request: &'a mut AdmissionRequest) -> Verdict<'a> {
        self.validate(request)
    }

    /// Judges the final object.
    fn validate<'a>(&'a self, request: &'a AdmissionRequest) -> Verdict<'a> {
        let _ = request;
        Box::pin(std::future::ready(Ok(())))
    }
}

/// The plugins of this server, in order.
pub struct Chain {
    plugins: Vec<(Box<dyn Plugin>, Timed)>,
    metrics: Admission,
}

impl Chain {
    /// A chain of `plugins`, asked in this order and timed in `metrics`.
    #[must_use]
    pub fn new(plugins: Vec<Box<dyn Plugin>>, metrics: Admission) -> Self {
        let plugins = plugins.into_iter().map(|plugin| {
            let timed = metrics.plugin(plugin.name());
            (plugin, timed)
        });
        Self { plugins: plugins.collect(), metrics }
    }

    /// Gives managed fields the form that the plugins want that will see this request.
    pub fn prepare(&self, request: &mut AdmissionRequest) {
        if self.plugins.iter().any(|(plugin, _)| plugin.reads_managed_fields() && plugin.handles(request)) {
            request.object.iter_mut().chain(&mut request.old).for_each(corten_schema::apply::unfold);
        }
    }

    /// Whether a plugin wants to see more of an update than metadata.
    #[must_use]
    pub fn reads_content(&self, request: &AdmissionRequest) -> bool {
        self.plugins.iter().any(|(plugin, _)| plugin.handles(request) && plugin.reads_content(request))
    }

    /// The changing pass, and a second one when a policy has changed something.
    pub async fn mutate(&self, request: &mut AdmissionRequest) -> Result<(), Status> {
        self.mutate_once(request).await?;
        if !request.reinvocation.wanted {
            return Ok(());
        }
        request.reinvocation.again = true;
        self.mutate_once(request).await
    }

    async fn mutate_once(&self, request: &mut AdmissionRequest) -> Result<(), Status> {
        let (since, operation) = (Instant::now(), request.operation);
        let mut outcome = Ok(());
        // One look at the clock between two plugins, not two: there are many, and most take less than that.
        let mut started = since;
        for (plugin, timed) in &self.plugins {
            if plugin.handles(request) {
                outcome = plugin.admit(request).await;
                let ended = Instant::now();
                timed.observe(false, operation, outcome.is_err(), ended - started);
                started = ended;
                if outcome.is_err() {
                    break;
                }
            }
        }
        self.metrics.steps().observe(false, operation, outcome.is_err(), started - since);
        outcome
    }

    /// The judging pass, on the object as it will be stored.
    pub async fn validate(&self, request: &mut AdmissionRequest) -> Result<crate::proof::Admitted, Status> {
        let (since, operation) = (Instant::now(), request.operation);
        let mut outcome = Ok(());
        // One look at the clock between two plugins, not two: there are many, and most take less than that.
        let mut started = since;
        for (plugin, timed) in &self.plugins {
            if plugin.handles(request) {
                outcome = plugin.judge(request).await;
                let ended = Instant::now();
                timed.observe(true, operation, outcome.is_err(), ended - started);
                started = ended;
                if outcome.is_err() {
                    break;
                }
            }
        }
        self.metrics.steps().observe(true, operation, outcome.is_err(), started - since);
        outcome.map(|()| crate::proof::Admitted::new())
    }
}

impl Chain {
    /// The plugins that the configuration switches on, in upstream's order.
    #[must_use]
    pub fn standard(
        config: &crate::Config,
        reader: &crate::reader::Reader,
        authz: &Arc<crate::authz::Authorizer>,
        registry: &prometheus::Registry,
    ) -> Self {
        let reader = || reader.clone();
        let cel = metrics::CelMetrics::new(registry);
        let mut plugins: Vec<Box<dyn Plugin>> = vec![
            Box::new(namespace_lifecycle::NamespaceLifecycle { reader: reader() }),
            Box::new(limit_ranger::LimitRanger { reader: reader() }),
            Box::new(service_account::ServiceAccount { reader: reader() }),
            Box::new(node_restriction::NodeRestriction { reader: reader() }),
            Box::new(pods::TaintNodesByCondition),
            Box::new(pod_security::PodSecurity { reader: reader(), metrics: metrics::PodSecurityMetrics::new(registry) }),
            Box::new(pods::Priority { reader: reader() }),
            Box::new(pods::DefaultTolerationSeconds {
                not_ready: config.not_ready_toleration_seconds,
                unreachable: config.unreachable_toleration_seconds,
            }),
            Box::new(storage::DefaultStorageClass { reader: reader() }),
            Box::new(storage::StorageObjectInUseProtection),
            Box::new(storage::PersistentVolumeClaimResize { reader: reader() }),
            Box::new(pods::RuntimeClass { reader: reader() }),
            Box::new(certificates::ForSigner::approval(authz.clone())),
            Box::new(certificates::ForSigner::signing(authz.clone())),
            Box::new(certificates::CertificateSubjectRestriction),
            Box::new(storage::DefaultIngressClass { reader: reader() }),
            Box::new(pods::PodTopologyLabels { reader: reader() }),
            Box::new(declared_features::NodeDeclaredFeatures { reader: reader() }),
            Box::new(pods::PodResize { reader: reader() }),
            Box::new(policy::MutatingAdmissionPolicies::new(reader(), authz.clone(), cel.clone())),
            Box::new(policy::ValidatingAdmissionPolicies::new(
                reader(),
                authz.clone(),
                metrics::PolicyMetrics::new(registry),
                cel,
            )),
            Box::new(quota::ResourceQuota::new(reader())),
        ];
        let off = &config.disable_admission_plugins;
        for name in config.enable_admission_plugins.iter().chain(off) {
            if !plugins.iter().any(|plugin| plugin.name() == name) {
                tracing::warn!(plugin = name, "there is no such admission plugin here, or it has no effect yet");
            }
        }
        plugins.retain(|plugin| !off.iter().any(|name| name == plugin.name()));
        // No plugin of upstream's and never off: the check of the role storage.
        plugins.push(Box::new(crate::authz::escalation::Escalation::new(authz.clone())));
        Self::new(plugins, Admission::new(registry))
    }

    /// Gives plugins that write the server they belong to; called once, when it is put together.
    pub fn attach(&self, state: &Arc<State>) {
        for (plugin, _) in &self.plugins {
            plugin.attach(state);
        }
    }
}
