//! Columns of the rest of the core group.

use super::{AGE, CREATED_TEXT, NAME, NAME_TEXT, column};
use crate::Column;

pub(crate) const COMPONENTSTATUSES: &[Column] = &[
    NAME,
    column("Status", "string", "", "Status of the component conditions", 0),
    column("Message", "string", "", "Message of the component conditions", 0),
    column("Error", "string", "", "Error of the component conditions", 0),
];

pub(crate) static CONFIGMAPS: &[Column] = &[
    NAME,
    column(
        "Data",
        "string",
        "",
        "Data contains the configuration data. Each key must consist of alphanumeric characters, '-', '_' or '.'. Values with non-UTF-8 byte sequences must use the BinaryData field. The keys stored in Data must not overlap with the keys in the BinaryData field, this is enforced during validation process.",
        0,
    ),
    AGE,
];

pub(crate) static EVENTS: &[Column] = &[
    column("Last Seen", "string", "", "The time at which the most recent occurrence of this event was recorded.", 0),
    column("Type", "string", "", "Type of this event (Normal, Warning), new types could be added in the future", 0),
    column(
        "Reason",
        "string",
        "",
        "This should be a short, machine understandable string that gives the reason for the transition into the object's current status.",
        0,
    ),
    column("Object", "string", "", "The object that this event is about.", 0),
    column(
        "Subobject",
        "string",
        "",
        "If referring to a piece of an object instead of an entire object, this string should contain a valid JSON/Go field access statement, such as desiredState.manifest.containers[2]. For example, if the object reference is to a container within a pod, this would take on a value like: \"spec.containers{name}\" (where \"name\" refers to the name of the container that triggered the event) or if no container name is specified \"spec.containers[2]\" (container with index 2 in this pod). This syntax is chosen only to have some well-defined way of referencing a part of an object.",
        1,
    ),
    column("Source", "string", "", "The component reporting this event. Should be a short machine understandable string.", 1),
    column("Message", "string", "", "A human-readable description of the status of this operation.", 0),
    column(
        "First Seen",
        "string",
        "",
        "The time at which the event was first recorded. (Time of server receipt is in TypeMeta.)",
        1,
    ),
    column("Count", "string", "", "The number of times this event has occurred.", 1),
    column("Name", "string", "name", NAME_TEXT, 1),
];

pub(crate) static LIMITRANGES: &[Column] = &[NAME, column("Created At", "date", "", CREATED_TEXT, 0)];

pub(crate) static NAMESPACES: &[Column] = &[NAME, column("Status", "string", "", "The status of the namespace", 0), AGE];

pub(crate) static NODES: &[Column] = &[
    NAME,
    column("Status", "string", "", "The status of the node", 0),
    column("Roles", "string", "", "The roles of the node", 0),
    AGE,
    column("Version", "string", "", "Kubelet Version reported by the node.", 0),
    column(
        "Internal-IP",
        "string",
        "",
        "List of addresses reachable to the node. Queried from cloud provider, if available. More info: https://kubernetes.io/docs/reference/node/node-status/#addresses Note: This field is declared as mergeable, but the merge key is not sufficiently unique, which can cause data corruption when it is merged. Callers should instead use a full-replacement patch. See https://pr.k8s.io/79391 for an example. Consumers should assume that addresses can change during the lifetime of a Node. However, there are some exceptions where this may not be possible, such as Pods that inherit a Node's address in its own status or consumers of the downward API (status.hostIP).",
        1,
    ),
    column(
        "External-IP",
        "string",
        "",
        "List of addresses reachable to the node. Queried from cloud provider, if available. More info: https://kubernetes.io/docs/reference/node/node-status/#addresses Note: This field is declared as mergeable, but the merge key is not sufficiently unique, which can cause data corruption when it is merged. Callers should instead use a full-replacement patch. See https://pr.k8s.io/79391 for an example. Consumers should assume that addresses can change during the lifetime of a Node. However, there are some exceptions where this may not be possible, such as Pods that inherit a Node's address in its own status or consumers of the downward API (status.hostIP).",
        1,
    ),
    column("OS-Image", "string", "", "OS Image reported by the node from /etc/os-release (e.g. Debian GNU/Linux 7 (wheezy)).", 1),
    column("Kernel-Version", "string", "", "Kernel Version reported by the node from 'uname -r' (e.g. 3.16.0-0.bpo.4-amd64).", 1),
    column(
        "Container-Runtime",
        "string",
        "",
        "ContainerRuntime Version reported by the node through runtime remote API (e.g. containerd://1.4.2).",
        1,
    ),
];

pub(crate) static RESOURCEQUOTAS: &[Column] = &[
    NAME,
    column("Request", "string", "", "Request represents a minimum amount of cpu/memory that a container may consume.", 0),
    column(
        "Limit",
        "string",
        "",
        "Limits control the maximum amount of cpu/memory that a container may use independent of contention on the node.",
        0,
    ),
    AGE,
];

pub(crate) static SECRETS: &[Column] = &[
    NAME,
    column(
        "Type",
        "string",
        "",
        "Used to facilitate programmatic handling of secret data. More info: https://kubernetes.io/docs/concepts/configuration/secret/#secret-types",
        0,
    ),
    column(
        "Data",
        "string",
        "",
        "Data contains the secret data. Each key must consist of alphanumeric characters, '-', '_' or '.'. The serialized form of the secret data is a base64 encoded string, representing the arbitrary (possibly non-string) data value here. Described in https://tools.ietf.org/html/rfc4648#section-4",
        0,
    ),
    AGE,
];

pub(crate) static SERVICEACCOUNTS: &[Column] = &[NAME, AGE];
