//! A double of the API server: objects in memory behind a `tower` service, for tests of clients and controllers under
//! paused time. It serves any resource without validation: get, list, watch (with streaming lists), create, replace,
//! patch, delete with finalizers and propagation, subresources. It is a dev-dependency only.
//!
//! What it adds for tests: a record of the requests, objects put in directly, and failures on demand.

#![forbid(unsafe_code)]

mod request;
mod server;
mod state;
mod status;

pub use request::{Recorded, Target};
pub use server::FakeApi;
pub use status::{failure, internal};
