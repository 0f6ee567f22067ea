//! Table columns of the built-in kinds: headings, types, priorities and the descriptions that the API publishes.
//!
//! Facts only; the cells are made beside each kind. `kubectl get` shows headings in capitals and hides priority 1 without `-o wide`.

mod cluster;
mod core;
mod network;
mod storage;
mod workload;

pub(crate) use self::core::*;
pub(crate) use cluster::*;
pub(crate) use network::*;
pub(crate) use storage::*;
pub(crate) use workload::*;

use crate::Column;

const fn column(
    name: &'static str,
    kind: &'static str,
    format: &'static str,
    description: &'static str,
    priority: i32,
) -> Column {
    Column { name, kind, format, description, priority }
}

const NAME_TEXT: &str = "Name must be unique within a namespace. Is required when creating resources, although some resources may allow a client to request the generation of an appropriate name automatically. Name is primarily intended for creation idempotence and configuration definition. Cannot be updated. More info: https://kubernetes.io/docs/concepts/overview/working-with-objects/names#names";

const CREATED_TEXT: &str = "CreationTimestamp is a timestamp representing the server time when this object was created. It is not guaranteed to be set in happens-before order across separate operations. Clients may not set this value. It is represented in RFC3339 form and is in UTC.\n\nPopulated by the system. Read-only. Null for lists. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata";

const NAME: Column = column("Name", "string", "name", NAME_TEXT, 0);
const AGE: Column = column("Age", "string", "", CREATED_TEXT, 0);
