//! Pure functions on API documents: decoding and writing, the patch kinds, server-side apply, protobuf.
//!
//! A document is a [`serde_json::Value`]. What shape it should have is told by the table of types in [`corten_api::facts`],
//! or, for custom resources, by whoever implements the schema traits here. No I/O of any kind.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a failed unwrap fails the test"))]

pub mod apply;
pub mod decode;
pub mod encode;
pub mod patch;
pub mod proto;
