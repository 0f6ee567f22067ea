//! The API server as a whole, in this process, on a temporary store.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod audit;
mod clients;
mod endpoints;
mod fuzz;
mod hostile;
mod limits;
mod policies;
mod properties;
mod registry;
mod relabel;
mod running;
mod wire;
