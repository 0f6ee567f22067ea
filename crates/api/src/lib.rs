//! The vocabulary of the Kubernetes API: what kinds there are, what shape their types have, and how names, quantities,
//! selectors and errors are spoken of. No I/O of any kind.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a failed unwrap fails the test"))]

pub mod catalogue;
pub mod facts;
pub mod field;
pub mod names;
pub mod quantity;
pub mod selector;
pub mod status;
pub mod time;

pub use k8s_openapi;
