//! The one crate with `unsafe`: system calls that neither `std` nor `nix` offers as safe functions. Everything here is
//! small, has a safe face, and knows nothing of containers or Kubernetes.

#![allow(unsafe_code)]

pub mod allocator;
pub mod devices;
pub mod fds;
pub mod mount;
pub mod poll;
pub mod process;
pub mod seccomp;
pub mod terminal;
pub mod xattr;
