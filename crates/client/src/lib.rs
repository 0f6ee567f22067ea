//! How every component reaches the API: one `kube::Client` over an in-process or a TLS transport, shared informers, a
//! work queue, events and leader election.
//!
//! - [`Client`] is `kube::Client`, made by [`remote`] or [`in_process`]; a component gets it by value and never knows
//!   the transport.
//! - [`Accounts`] makes clients that act as service accounts.
//! - [`Informers::of`] returns the shared [`Informer`] of a kind in this process, started on first use;
//!   [`Informers::select`] one that is limited by selectors, [`Informers::metadata`] one that keeps metadata only.
//! - [`Queue`] hands out keys: each once at a time, no sooner than asked, failed ones after a growing delay.
//! - [`Controller::run`] drives a reconcile function from a queue.
//! - [`Recorder`] writes Events, correlated and limited as upstream's recorder does.
//! - [`LeaderElector`] lets one of several processes act; [`Expectations`] keeps a controller from acting twice on a
//!   cache that lags behind its own writes.

#![forbid(unsafe_code)]

mod account;
mod backoff;
mod controller;
mod expectations;
mod informer;
mod informers;
mod key;
mod leader;
mod metrics;
mod queue;
mod recorder;
mod transport;

pub use account::Accounts;
pub use controller::{Controller, Requeue};
pub use expectations::Expectations;
pub use informer::{Change, Informer, Object};
pub use informers::{Informers, Metadata, Selection};
pub use key::Key;
pub use kube::Client;
pub use leader::{LeaderConfig, LeaderElector};
pub use queue::{Queue, Work};
pub use recorder::{Deed, DeedRecorder, EventType, Recorder};
pub use transport::{RemoteError, in_process, remote};
