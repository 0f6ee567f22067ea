//! The Common Expression Language (<https://github.com/google/cel-spec>) as Kubernetes v1.36 compiles it: the same grammar,
//! macros, libraries and types, and faults in the words of cel-go, because users read and match them.
//!
//! An [`Environment`] says which names an expression may use; [`Environment::compile`] parses it, expands its macros and
//! finds the type of every part. [`evaluate`] runs what was compiled, over documents that it does not copy. Pure: no I/O, no
//! clock.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a failed unwrap fails the test"))]

pub mod environment;
pub mod eval;
pub mod issue;
pub mod types;
pub mod value;

pub mod ast;
mod check;
mod declare;
mod functions;
mod lex;
mod library;
mod macros;
mod parse;
mod syntax;
mod validate;

pub use environment::{Checked, Environment};
pub use eval::{Outcome, evaluate};
pub use issue::Issues;
pub use parse::is_reserved;
pub use types::Type;
pub use value::{EvalError, Host, Value};
