//! Leader election on a Lease, compatible with client-go's: of several processes with one lease name, one leads.
//!
//! A candidate measures how long it has seen the lease unchanged on its own clock, so clocks need not agree. A leader that
//! could not renew for `renew_deadline` stops what it started, before another one may begin.

use std::time::Duration;

use corten_task::Tasks;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::time::Instant;
use tracing::{debug, info, warn};

/// Which lease, who asks, and how patient everybody is.
#[derive(Clone, Debug)]
pub struct LeaderConfig {
    /// Namespace of the lease, usually `kube-system`.
    pub namespace: String,
    /// Name of the lease, usually the component.
    pub name: String,
    /// Who asks; unique per process.
    pub identity: String,
    /// How long a candidate waits after the last change it saw before it takes the lease.
    pub lease_duration: Duration,
    /// How long a leader tries to renew before it gives up.
    pub renew_deadline: Duration,
    /// Pause between attempts.
    pub retry_period: Duration,
}

impl LeaderConfig {
    /// With upstream's defaults: 15 s, 10 s and 2 s.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>, identity: impl Into<String>) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
            identity: identity.into(),
            lease_duration: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry_period: Duration::from_secs(2),
        }
    }
}

/// One candidate.
#[derive(Debug)]
pub struct LeaderElector {
    config: LeaderConfig,
    leases: Api<Lease>,
    /// The lease as last seen, and since when it has been like that on our clock.
    observed: Option<(Lease, Instant)>,
}

impl LeaderElector {
    /// A candidate that has not asked yet.
    #[must_use]
    pub fn new(client: Client, config: LeaderConfig) -> Self {
        let leases = Api::namespaced(client, &config.namespace);
        Self { config, leases, observed: None }
    }

    /// Waits for the lease, then calls `lead` with an owner for everything the leader does, and renews. When the lease is
    /// lost that owner is stopped and the candidate asks again. When `tasks` stops, the leader's work is stopped first
    /// and the lease is given back then.
    pub async fn run(mut self, tasks: &Tasks, lead: impl Fn(&Tasks)) {
        while !tasks.is_stopping() {
            tokio::select! {
                () = self.acquire() => {}
                () = tasks.stopping() => return,
            }
            info!(lease = %self.config.name, identity = %self.config.identity, "became leader");
            let leading = tasks.child("leader");
            lead(&leading);
            let lost = tokio::select! {
                () = self.renew() => true,
                () = tasks.stopping() => false,
            };
            leading.stop().await;
            if lost {
                warn!(lease = %self.config.name, identity = %self.config.identity, "lost the lease");
            } else {
                self.release().await;
            }
        }
    }

    async fn acquire(&mut self) {
        while !self.try_to_hold().await {
            // As client-go: jittered, so that candidates do not ask in step.
            tokio::time::sleep(self.config.retry_period.mul_f64(1.0 + 1.2 * rand::random::<f64>())).await;
        }
    }

    /// Returns when the lease could not be renewed in time.
    async fn renew(&mut self) {
        let mut renewed = Instant::now();
        loop {
            tokio::time::sleep(self.config.retry_period).await;
            let deadline = renewed + self.config.renew_deadline;
            match tokio::time::timeout_at(deadline, self.try_to_hold()).await {
                Ok(true) => renewed = Instant::now(),
                Ok(false) if Instant::now() < deadline => {}
                _ => return,
            }
        }
    }

    /// One attempt to create, take or renew the lease.
    async fn try_to_hold(&mut self) -> bool {
        match self.attempt().await {
            Ok(holding) => holding,
            Err(err) => {
                debug!(lease = %self.config.name, error = %err, "no access to the lease");
                false
            }
        }
    }

    async fn attempt(&mut self) -> kube::Result<bool> {
        let now = Timestamp::now();
        let Some(current) = self.leases.get_opt(&self.config.name).await? else {
            let lease = Lease {
                metadata: ObjectMeta {
                    name: Some(self.config.name.clone()),
                    namespace: Some(self.config.namespace.clone()),
                    ..ObjectMeta::default()
                },
                spec: Some(self.held(now, None)),
            };
            let created = self.leases.create(&PostParams::default(), &lease).await?;
            self.observe(created);
            return Ok(true);
        };
        self.observe(current.clone());
        let unchanged = self.observed.as_ref().map_or(Duration::ZERO, |(_, since)| since.elapsed());
        let spec = current.spec.clone().unwrap_or_default();
        if !may_hold(&spec, &self.config.identity, unchanged, self.config.lease_duration) {
            return Ok(false);
        }
        let next = Lease { spec: Some(self.held(now, Some(&spec))), ..current };
        let written = self.leases.replace(&self.config.name, &PostParams::default(), &next).await?;
        self.observe(written);
        Ok(true)
    }

    async fn release(&mut self) {
        let Some((lease, _)) = self.observed.take() else { return };
        let now = MicroTime(Timestamp::now());
        let spec = LeaseSpec {
            holder_identity: Some(String::new()),
            lease_duration_seconds: Some(1),
            acquire_time: Some(now.clone()),
            renew_time: Some(now),
            lease_transitions: lease.spec.as_ref().and_then(|spec| spec.lease_transitions),
            ..LeaseSpec::default()
        };
        let released = Lease { spec: Some(spec), ..lease };
        if let Err(err) = self.leases.replace(&self.config.name, &PostParams::default(), &released).await {
            debug!(lease = %self.config.name, error = %err, "could not give the lease back");
        }
    }

    fn observe(&mut self, lease: Lease) {
        if self.observed.as_ref().is_none_or(|(known, _)| known.spec != lease.spec) {
            self.observed = Some((lease, Instant::now()));
        } else if let Some((known, _)) = &mut self.observed {
            *known = lease;
        }
    }

    fn held(&self, now: Timestamp, before: Option<&LeaseSpec>) -> LeaseSpec {
        let ours = before.is_some_and(|spec| spec.holder_identity.as_deref() == Some(&*self.config.identity));
        let transitions = before.and_then(|spec| spec.lease_transitions).unwrap_or(0);
        LeaseSpec {
            holder_identity: Some(self.config.identity.clone()),
            lease_duration_seconds: Some(i32::try_from(self.config.lease_duration.as_secs()).unwrap_or(i32::MAX)),
            acquire_time: before.filter(|_| ours).and_then(|spec| spec.acquire_time.clone()).or(Some(MicroTime(now))),
            renew_time: Some(MicroTime(now)),
            lease_transitions: Some(if ours || before.is_none() { transitions } else { transitions + 1 }),
            ..LeaseSpec::default()
        }
    }
}

/// Whether `identity` may take or keep a lease that it has seen `unchanged` for this long.
fn may_hold(spec: &LeaseSpec, identity: &str, unchanged: Duration, lease_duration: Duration) -> bool {
    match spec.holder_identity.as_deref() {
        None | Some("") => true,
        Some(holder) => holder == identity || unchanged >= lease_duration,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use corten_fakeapi::FakeApi;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_second_leads_only_after_the_first_has_stopped() {
        let api = FakeApi::new();
        let (one, two) = (Tasks::root("one"), Tasks::root("two"));
        let leading = Arc::new(AtomicUsize::new(0));
        for (tasks, identity, mark) in [(&one, "one", 1), (&two, "two", 10)] {
            let client = crate::in_process(api.service(), "default");
            let elector = LeaderElector::new(client, LeaderConfig::new("kube-system", "test", identity));
            let (owner, leading) = (tasks.clone(), leading.clone());
            tasks.spawn_graceful("election", async move {
                elector.run(&owner, move |_| _ = leading.fetch_add(mark, Ordering::SeqCst)).await;
            });
            tokio::time::sleep(Duration::from_secs(60)).await;
        }
        assert_eq!(leading.load(Ordering::SeqCst), 1);
        // A stopped leader gives the lease back, so the next one need not wait for it to expire.
        one.stop().await;
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(leading.load(Ordering::SeqCst), 11);
        let lease = api.get("/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/test").unwrap();
        assert_eq!(lease["spec"]["holderIdentity"], "two");
        assert_eq!(lease["spec"]["leaseTransitions"], 1);
        two.stop().await;
    }

    #[test]
    fn a_lease_is_taken_when_it_is_free_ours_or_old() {
        let held = |holder: &str| LeaseSpec { holder_identity: Some(holder.into()), ..LeaseSpec::default() };
        let (short, long) = (Duration::from_secs(14), Duration::from_secs(15));
        assert!(may_hold(&held(""), "a", Duration::ZERO, long));
        assert!(may_hold(&held("a"), "a", Duration::ZERO, long));
        assert!(!may_hold(&held("b"), "a", short, long));
        assert!(may_hold(&held("b"), "a", long, long));
    }
}
