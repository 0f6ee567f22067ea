//! The policies of one kind with their bindings, compiled when one of them changes and not when a request comes.

use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use serde_json::Value;

use corten_kinds::CompiledPolicy;

use super::GROUP;
use crate::admission::metrics::CelMetrics;
use crate::admission::tools::text;
use crate::reader::Reader;

/// All policies of a kind.
pub(super) struct Policies {
    reader: Reader,
    plural: &'static str,
    bindings: &'static str,
    compiled: Mutex<Compiled>,
    cel: CelMetrics,
}

/// Policies and their bindings as of the revisions of both resources.
#[derive(Default)]
struct Compiled {
    as_of: (u64, u64),
    policies: Arc<Vec<Policy>>,
}

/// A policy with its bindings.
pub(super) struct Policy {
    pub(super) name: String,
    pub(super) spec: Value,
    pub(super) expressions: CompiledPolicy,
    pub(super) bindings: Vec<Value>,
}

impl Policy {
    /// Whether the request goes on when the policy cannot be applied.
    pub(super) fn ignores_faults(&self) -> bool {
        self.spec["failurePolicy"] == "Ignore"
    }
}

impl Policies {
    pub(super) fn new(reader: Reader, plural: &'static str, bindings: &'static str, cel: CelMetrics) -> Self {
        Self { reader, plural, bindings, compiled: Mutex::default(), cel }
    }

    /// Where it is told how long expressions take.
    pub(super) fn cel(&self) -> &CelMetrics {
        &self.cel
    }

    /// Whether there is any binding: without one no policy says anything.
    pub(super) fn are_bound(&self) -> bool {
        !self.reader.snapshot(GROUP, self.bindings).is_empty()
    }

    /// Those that are bound, by name.
    pub(super) fn all(&self) -> Arc<Vec<Policy>> {
        let as_of = (self.reader.changed(GROUP, self.plural), self.reader.changed(GROUP, self.bindings));
        let mut compiled = self.compiled.lock();
        if compiled.as_of != as_of {
            *compiled = Compiled { as_of, policies: Arc::new(self.compile()) };
        }
        compiled.policies.clone()
    }

    fn compile(&self) -> Vec<Policy> {
        let bindings: Vec<Value> = self.reader.list(GROUP, self.bindings, "").iter().map(|entry| entry.decode()).collect();
        let compile = |mut policy: Value| {
            let name = text(&policy, "/metadata/name").to_owned();
            let mine = bindings.iter().filter(|binding| text(binding, "/spec/policyName") == name).cloned().collect();
            let spec = policy["spec"].take();
            let began = Instant::now();
            let expressions = CompiledPolicy::of(&spec);
            self.cel.compiled(began.elapsed());
            Policy { expressions, name, spec, bindings: mine }
        };
        let policies = self.reader.list(GROUP, self.plural, "");
        policies.iter().map(|entry| compile(entry.decode())).filter(|policy| !policy.bindings.is_empty()).collect()
    }
}
