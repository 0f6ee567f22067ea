//! The API server: one HTTP front, one request pipeline, one generic registry over the catalogue, one watch cache.
//!
//! A request goes through [`server`] (bytes), [`pipeline`] (who, may they, what), then to the [`registry`] or to one of
//! the small handlers that are no resource (discovery, health, metrics). Reads are answered from [`cache`] without
//! decoding; writes decode once. This page is the table of contents, in the order in which a request meets the modules.
#![forbid(unsafe_code)]

pub mod config;
mod features;

pub mod server;

pub mod request;
pub mod user;

pub mod proof;

pub mod pipeline;

pub mod authn;
pub mod authz;
pub mod flowcontrol;

pub mod audit;
mod cors;

pub mod negotiate;
pub mod response;
pub mod warnings;

pub mod registry;

pub mod admission;

pub mod cache;
pub mod reader;

pub mod table;

pub mod allocator;

pub mod reviews;
mod socket;
pub mod stream;
pub mod tokens;

mod content;
pub mod discovery;
mod duration;
pub mod health;
pub mod metrics;
pub mod openapi;
pub mod zpages;

pub mod bootstrap;
pub mod certs;

mod state;

pub use config::Config;
pub use server::{ApiServer, StartError};
pub use state::State;
pub use user::User;
