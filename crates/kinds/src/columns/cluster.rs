//! Columns of what a cluster is governed with: access, admission, flow control, scheduling, devices.

use super::{AGE, CREATED_TEXT, NAME, column};
use crate::Column;

pub(crate) static APISERVICES: &[Column] = &[
    NAME,
    column("Service", "string", "", "The reference to the service that hosts this API endpoint.", 0),
    column("Available", "string", "", "Whether this service is available.", 0),
    AGE,
];

pub(crate) static CERTIFICATESIGNINGREQUESTS: &[Column] = &[
    NAME,
    AGE,
    column(
        "SignerName",
        "string",
        "",
        "Requested signer for the request. It is a qualified name in the form: `scope-hostname.io/name`. If empty, it will be defaulted:\n 1. If it's a kubelet client certificate, it is assigned\n    \"kubernetes.io/kube-apiserver-client-kubelet\".\n 2. If it's a kubelet serving certificate, it is assigned\n    \"kubernetes.io/kubelet-serving\".\n 3. Otherwise, it is assigned \"kubernetes.io/legacy-unknown\".\nDistribution of trust for signers happens out of band. You can select on this field using `spec.signerName`.",
        0,
    ),
    column("Requestor", "string", "", "Base64-encoded PKCS#10 CSR data", 0),
    column(
        "RequestedDuration",
        "string",
        "",
        "expirationSeconds is the requested duration of validity of the issued certificate. The certificate signer may issue a certificate with a different validity duration so a client must check the delta between the notBefore and and notAfter fields in the issued certificate to determine the actual duration.\n\nThe v1.22+ in-tree implementations of the well-known Kubernetes signers will honor this field as long as the requested duration is not greater than the maximum duration they will honor per the --cluster-signing-duration CLI flag to the Kubernetes controller manager.\n\nCertificate signers may not honor this field for various reasons:\n\n  1. Old signer that is unaware of the field (such as the in-tree\n     implementations prior to v1.22)\n  2. Signer whose configured maximum is shorter than the requested duration\n  3. Signer whose configured minimum is longer than the requested duration\n\nThe minimum valid value for expirationSeconds is 600, i.e. 10 minutes.",
        0,
    ),
    column("Condition", "string", "", "Conditions applied to the request, such as approval or denial.", 0),
];

pub(crate) static CLUSTERROLEBINDINGS: &[Column] = &[
    NAME,
    column(
        "Role",
        "string",
        "",
        "RoleRef can only reference a ClusterRole in the global namespace. If the RoleRef cannot be resolved, the Authorizer must return an error.",
        0,
    ),
    AGE,
    column("Users", "string", "", "Users in the clusterRoleBinding", 1),
    column("Groups", "string", "", "Groups in the clusterRoleBinding", 1),
    column("ServiceAccounts", "string", "", "ServiceAccounts in the clusterRoleBinding", 1),
];

pub(crate) static CLUSTERROLES: &[Column] = &[NAME, column("Created At", "date", "", CREATED_TEXT, 0)];

pub(crate) static DEVICECLASSES: &[Column] = &[NAME, AGE];

pub(crate) static FLOWSCHEMAS: &[Column] = &[
    NAME,
    column("PriorityLevel", "string", "", "`name` is the name of the priority level configuration being referenced Required.", 0),
    column(
        "MatchingPrecedence",
        "string",
        "",
        "`matchingPrecedence` is used to choose among the FlowSchemas that match a given request. The chosen FlowSchema is among those with the numerically lowest (which we take to be logically highest) MatchingPrecedence.  Each MatchingPrecedence value must be ranged in [1,10000]. Note that if the precedence is not specified, it will be set to 1000 as default.",
        0,
    ),
    column(
        "DistinguisherMethod",
        "string",
        "",
        "`distinguisherMethod` defines how to compute the flow distinguisher for requests that match this schema. `nil` specifies that the distinguisher is disabled and thus will always be the empty string.",
        0,
    ),
    AGE,
    column("MissingPL", "string", "", "references a broken or non-existent PriorityLevelConfiguration", 0),
];

pub(crate) static LEASES: &[Column] = &[
    NAME,
    column(
        "Holder",
        "string",
        "",
        "holderIdentity contains the identity of the holder of a current lease. If Coordinated Leader Election is used, the holder identity must be equal to the elected LeaseCandidate.metadata.name field.",
        0,
    ),
    AGE,
];

pub(crate) static MUTATINGADMISSIONPOLICIES: &[Column] = &[
    NAME,
    column("Mutations", "integer", "", "Mutation indicates the number of mutations rules defined in this configuration", 0),
    column("ParamKind", "string", "", "ParamKind specifies the kind of resources used to parameterize this policy", 0),
    AGE,
];

pub(crate) static MUTATINGADMISSIONPOLICYBINDINGS: &[Column] = &[
    NAME,
    column("PolicyName", "string", "", "PolicyName indicates the policy definition which the policy binding binded to", 0),
    column("ParamRef", "string", "", "ParamRef indicates the param resource which sets the configuration param", 0),
    AGE,
];

pub(crate) static MUTATINGWEBHOOKCONFIGURATIONS: &[Column] = &[
    NAME,
    column("Webhooks", "integer", "", "Webhooks indicates the number of webhooks registered in this configuration", 0),
    AGE,
];

pub(crate) static PRIORITYCLASSES: &[Column] = &[
    NAME,
    column(
        "Value",
        "integer",
        "",
        "value represents the integer value of this priority class. This is the actual priority that pods receive when they have the name of this class in their pod spec.",
        0,
    ),
    column(
        "Global-Default",
        "boolean",
        "",
        "globalDefault specifies whether this PriorityClass should be considered as the default priority for pods that do not have any priority class. Only one PriorityClass can be marked as `globalDefault`. However, if more than one PriorityClasses exists with their `globalDefault` field set to true, the smallest value of such global default PriorityClasses will be used as the default priority.",
        0,
    ),
    AGE,
    column(
        "PreemptionPolicy",
        "string",
        "",
        "preemptionPolicy is the Policy for preempting pods with lower priority. One of Never, PreemptLowerPriority. Defaults to PreemptLowerPriority if unset.",
        0,
    ),
];

pub(crate) static PRIORITYLEVELCONFIGURATIONS: &[Column] = &[
    NAME,
    column(
        "Type",
        "string",
        "",
        "`type` indicates whether this priority level is subject to limitation on request execution.  A value of `\"Exempt\"` means that requests of this priority level are not subject to a limit (and thus are never queued) and do not detract from the capacity made available to other priority levels.  A value of `\"Limited\"` means that (a) requests of this priority level _are_ subject to limits and (b) some of the server's limited capacity is made available exclusively to this priority level. Required.",
        0,
    ),
    column(
        "NominalConcurrencyShares",
        "string",
        "",
        "`nominalConcurrencyShares` (NCS) contributes to the computation of the NominalConcurrencyLimit (NominalCL) of this level. This is the number of execution seats available at this priority level. This is used both for requests dispatched from this priority level as well as requests dispatched from other priority levels borrowing seats from this level. The server's concurrency limit (ServerCL) is divided among the Limited priority levels in proportion to their NCS values:\n\nNominalCL(i)  = ceil( ServerCL * NCS(i) / sum_ncs ) sum_ncs = sum[priority level k] NCS(k)\n\nBigger numbers mean a larger nominal concurrency limit, at the expense of every other priority level.\n\nIf not specified, this field defaults to a value of 30.\n\nSetting this field to zero supports the construction of a \"jail\" for this priority level that is used to hold some request(s)",
        0,
    ),
    column(
        "Queues",
        "string",
        "",
        "`queues` is the number of queues for this priority level. The queues exist independently at each apiserver. The value must be positive.  Setting it to 1 effectively precludes shufflesharding and thus makes the distinguisher method of associated flow schemas irrelevant.  This field has a default value of 64.",
        0,
    ),
    column(
        "HandSize",
        "string",
        "",
        "`handSize` is a small positive number that configures the shuffle sharding of requests into queues.  When enqueuing a request at this priority level the request's flow identifier (a string pair) is hashed and the hash value is used to shuffle the list of queues and deal a hand of the size specified here.  The request is put into one of the shortest queues in that hand. `handSize` must be no larger than `queues`, and should be significantly smaller (so that a few heavy flows do not saturate most of the queues).  See the user-facing documentation for more extensive guidance on setting this field.  This field has a default value of 8.",
        0,
    ),
    column(
        "QueueLengthLimit",
        "string",
        "",
        "`queueLengthLimit` is the maximum number of requests allowed to be waiting in a given queue of this priority level at a time; excess requests are rejected.  This value must be positive.  If not specified, it will be defaulted to 50.",
        0,
    ),
    AGE,
];

pub(crate) static RESOURCECLAIMS: &[Column] =
    &[NAME, column("State", "string", "", "A summary of the current state (allocated, pending, reserved, etc.).", 0), AGE];

pub(crate) static RESOURCECLAIMTEMPLATES: &[Column] = &[NAME, AGE];

pub(crate) static RESOURCESLICES: &[Column] = &[
    NAME,
    column(
        "Node",
        "string",
        "",
        "NodeName identifies the node which provides the resources in this pool. A field selector can be used to list only ResourceSlice objects belonging to a certain node.\n\nThis field can be used to limit access from nodes to ResourceSlices with the same node name. It also indicates to autoscalers that adding new nodes of the same type as some old node might also make new resources available.\n\nExactly one of NodeName, NodeSelector, AllNodes, and PerDeviceNodeSelection must be set. This field is immutable.",
        0,
    ),
    column(
        "Driver",
        "string",
        "",
        "Driver identifies the DRA driver providing the capacity information. A field selector can be used to list only ResourceSlice objects with a certain driver name.\n\nMust be a DNS subdomain and should end with a DNS domain owned by the vendor of the driver. It should use only lower case characters. This field is immutable.",
        0,
    ),
    column(
        "Pool",
        "string",
        "",
        "Name is used to identify the pool. For node-local devices, this is often the node name, but this is not required.\n\nIt must not be longer than 253 characters and must consist of one or more DNS sub-domains separated by slashes. This field is immutable.",
        0,
    ),
    AGE,
];

pub(crate) static ROLEBINDINGS: &[Column] = &[
    NAME,
    column(
        "Role",
        "string",
        "",
        "RoleRef can reference a Role in the current namespace or a ClusterRole in the global namespace. If the RoleRef cannot be resolved, the Authorizer must return an error.",
        0,
    ),
    AGE,
    column("Users", "string", "", "Users in the roleBinding", 1),
    column("Groups", "string", "", "Groups in the roleBinding", 1),
    column("ServiceAccounts", "string", "", "ServiceAccounts in the roleBinding", 1),
];

pub(crate) static ROLES: &[Column] = &[NAME, column("Created At", "date", "", CREATED_TEXT, 0)];

pub(crate) static RUNTIMECLASSES: &[Column] = &[NAME, column("Handler", "string", "", "", 0), AGE];

pub(crate) static VALIDATINGADMISSIONPOLICIES: &[Column] = &[
    NAME,
    column("Validations", "integer", "", "Validations indicates the number of validation rules defined in this configuration", 0),
    column("ParamKind", "string", "", "ParamKind specifies the kind of resources used to parameterize this policy", 0),
    AGE,
];

pub(crate) static VALIDATINGADMISSIONPOLICYBINDINGS: &[Column] = &[
    NAME,
    column("PolicyName", "string", "", "PolicyName indicates the policy definition which the policy binding binded to", 0),
    column("ParamRef", "string", "", "ParamRef indicates the param resource which sets the configuration param", 0),
    AGE,
];

pub(crate) static VALIDATINGWEBHOOKCONFIGURATIONS: &[Column] = &[
    NAME,
    column("Webhooks", "integer", "", "Webhooks indicates the number of webhooks registered in this configuration", 0),
    AGE,
];
