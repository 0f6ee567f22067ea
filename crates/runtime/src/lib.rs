//! Containers and images. [`Runtime`] and [`Images`] are modelled on the Container Runtime Interface (CRI v1), so that
//! the embedded OCI runtime and containerd or CRI-O are interchangeable. Kubernetes objects are unknown here.
#![forbid(unsafe_code)]

pub mod cri;
pub mod embedded;
pub mod images;

pub use cri::*;
