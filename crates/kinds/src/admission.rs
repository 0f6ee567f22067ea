//! `admissionregistration.k8s.io` and `apiregistration.k8s.io`: what extends the server, as objects.

mod webhooks;

mod bindings;
mod policies;

mod client;
mod expression;
mod policy;
mod rules;

mod api_services;

pub(crate) use api_services::ApiServices;
pub(crate) use bindings::PolicyBindings;
pub(crate) use client::client;
pub(crate) use policies::Policies;
pub(crate) use webhooks::Webhooks;

pub use expression::{CompiledPolicy, Expression, Mutation, Validation};
