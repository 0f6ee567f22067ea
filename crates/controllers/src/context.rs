//! What every controller is given.

use std::fmt::Display;
use std::future::Future;
use std::hash::Hash;
use std::sync::Arc;

use corten_client::{Client, Controller, Informers, Queue, Recorder, Requeue};
use corten_task::Tasks;

use crate::Config;
use crate::error::Result;

/// The means of one set of controllers.
pub(crate) struct Context {
    pub(crate) config: Config,
    pub(crate) client: Client,
    pub(crate) informers: Informers,
    pub(crate) tasks: Tasks,
}

impl Context {
    /// A recorder whose events come from `component`.
    pub(crate) fn recorder(&self, component: &str) -> Recorder {
        Recorder::new(self.client.clone(), component, "", &self.tasks)
    }

    /// Starts `controller` on the keys of `queue`, once `synced` is done: deciding on half a cache would delete what is
    /// merely not read yet.
    pub(crate) fn run<C, K, S, R, F>(
        &self,
        name: &'static str,
        workers: usize,
        queue: Queue<K>,
        synced: S,
        controller: Arc<C>,
        reconcile: R,
    ) where
        C: Send + Sync + 'static,
        K: Clone + Ord + Hash + Display + Send + Sync + 'static,
        S: Future<Output = ()> + Send + 'static,
        R: Fn(Arc<C>, K) -> F + Send + 'static,
        F: Future<Output = Result<Requeue>> + Send + 'static,
    {
        self.tasks.spawn(name, async move {
            synced.await;
            Controller::run(name, queue, workers, move |key| reconcile(controller.clone(), key)).await;
        });
    }
}

/// Waits until every one of the informers is synced.
macro_rules! synced {
    ($($informer:expr),+ $(,)?) => {{
        let informers = ($($informer.clone(),)+);
        async move { $crate::context::Synced::synced(informers).await }
    }};
}
pub(crate) use synced;

/// A tuple of informers.
pub(crate) trait Synced {
    fn synced(self) -> impl Future<Output = ()> + Send;
}

macro_rules! tuples {
    ($(($($name:ident),+))+) => {$(
        impl<$($name: corten_client::Object),+> Synced for ($(corten_client::Informer<$name>,)+) {
            #[allow(non_snake_case, reason = "type parameters double as variable names")]
            async fn synced(self) {
                let ($($name,)+) = self;
                $($name.synced().await;)+
            }
        }
    )+};
}
tuples! { (A) (A, B) (A, B, C) (A, B, C, D) (A, B, C, D, E) }
