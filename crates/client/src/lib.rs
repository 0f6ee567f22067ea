//! How every component reaches the API: one `kube::Client` over an in-process or a TLS transport, shared informers, a
//! work queue, events and leader election.
//!
//! Seams agreed for the components (the modules say the rest):
//!
//! - [`Client`] is `kube::Client`; a component gets it by value and never knows the transport.
//! - `Informers::new(client, tasks)`, then `informers.of::<K>()` returns the shared [`Informer<K>`] of a kind in this
//!   process, started on first use; `informers.select::<K>(selector)` one that is limited by a field selector.
//! - `informer.synced().await`, `informer.get(&Key)`, `informer.list()`, `informer.on_change(|Change<K>| …)`,
//!   `informer.index(name, fn)`.
//! - `Queue::new()` with `add(key)`, `add_after(key, delay)`, `retry(key)` (back-off), `forget(&key)`, `next().await`.
//! - `Controller::run(name, queue, workers, |key| async { Result<Requeue, E> })`.
//! - `Recorder::new(client, component, host)` with `event(&object_reference, kind, reason, message)`; it correlates and
//!   counts as upstream's recorder does.

pub use kube::Client;
