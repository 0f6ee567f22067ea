//! What tests of Corten need and a release does not: container images made without a network.
#![forbid(unsafe_code)]

pub mod enclosure;
pub mod image;
pub mod registry;

pub use image::{Image, busybox_image, hello_binary, hello_image};
