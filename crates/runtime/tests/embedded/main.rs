//! The embedded runtime with real containers. Needs root, control groups and overlayfs; nothing is skipped: what is
//! missing fails the test with its name. Every test works in directories and control groups of its own, and ends by
//! looking for what it may have left behind.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
#![forbid(unsafe_code)]

mod fixture;
mod images;
mod lifecycle;
mod registry;
mod restart;
mod security;
mod streams;
