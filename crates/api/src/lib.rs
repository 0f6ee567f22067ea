//! The vocabulary of the Kubernetes API: what kinds there are, what shape their types have, and how names, quantities,
//! selectors and errors are spoken of. No I/O of any kind.

pub mod field;
pub mod status;

pub use k8s_openapi;
