//! Columns of pods and what makes them.

use super::{AGE, NAME, NAME_TEXT, column};
use crate::Column;

pub(crate) const SCALES: &[Column] = &[
    column("Name", "string", "", NAME_TEXT, 0),
    column("Desired", "integer", "", "replicas is the desired number of instances for the scaled object.", 0),
    column("Available", "integer", "", "replicas is the actual number of observed instances of the scaled object.", 0),
    AGE,
];

pub(crate) static CONTROLLERREVISIONS: &[Column] = &[
    NAME,
    column("Controller", "string", "", "Controller of the object", 0),
    column("Revision", "string", "", "Revision indicates the revision of the state represented by Data.", 0),
    AGE,
];

pub(crate) static CRONJOBS: &[Column] = &[
    NAME,
    column("Schedule", "string", "", "The schedule in Cron format, see https://en.wikipedia.org/wiki/Cron.", 0),
    column(
        "Timezone",
        "string",
        "",
        "The time zone name for the given schedule, see https://en.wikipedia.org/wiki/List_of_tz_database_time_zones. If not specified, this will default to the time zone of the kube-controller-manager process. The set of valid time zone names and the time zone offset is loaded from the system-wide time zone database by the API server during CronJob validation and the controller manager during execution. If no system-wide time zone database can be found a bundled version of the database is used instead. If the time zone name becomes invalid during the lifetime of a CronJob or due to a change in host configuration, the controller will stop creating new new Jobs and will create a system event with the reason UnknownTimeZone. More information can be found in https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/#time-zones",
        0,
    ),
    column(
        "Suspend",
        "boolean",
        "",
        "This flag tells the controller to suspend subsequent executions, it does not apply to already started executions.  Defaults to false.",
        0,
    ),
    column("Active", "integer", "", "A list of pointers to currently running jobs.", 0),
    column("Last Schedule", "string", "", "Information when was the last time the job was successfully scheduled.", 0),
    AGE,
    column("Containers", "string", "", "Names of each container in the template.", 1),
    column("Images", "string", "", "Images referenced by each container in the template.", 1),
    column(
        "Selector",
        "string",
        "",
        "A label query over pods that should match the pod count. Normally, the system sets this field for you. More info: https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#label-selectors",
        1,
    ),
];

pub(crate) static DAEMONSETS: &[Column] = &[
    NAME,
    column(
        "Desired",
        "integer",
        "",
        "The total number of nodes that should be running the daemon pod (including nodes correctly running the daemon pod). More info: https://kubernetes.io/docs/concepts/workloads/controllers/daemonset/",
        0,
    ),
    column(
        "Current",
        "integer",
        "",
        "The number of nodes that are running at least 1 daemon pod and are supposed to run the daemon pod. More info: https://kubernetes.io/docs/concepts/workloads/controllers/daemonset/",
        0,
    ),
    column(
        "Ready",
        "integer",
        "",
        "numberReady is the number of nodes that should be running the daemon pod and have one or more of the daemon pod running with a Ready Condition.",
        0,
    ),
    column("Up-to-date", "integer", "", "The total number of nodes that are running updated daemon pod", 0),
    column(
        "Available",
        "integer",
        "",
        "The number of nodes that should be running the daemon pod and have one or more of the daemon pod running and available (ready for at least spec.minReadySeconds)",
        0,
    ),
    column(
        "Node Selector",
        "string",
        "",
        "NodeSelector is a selector which must be true for the pod to fit on a node. Selector which must match a node's labels for the pod to be scheduled on that node. More info: https://kubernetes.io/docs/concepts/configuration/assign-pod-node/",
        0,
    ),
    AGE,
    column("Containers", "string", "", "Names of each container in the template.", 1),
    column("Images", "string", "", "Images referenced by each container in the template.", 1),
    column(
        "Selector",
        "string",
        "",
        "A label query over pods that are managed by the daemon set. Must match in order to be controlled. It must match the pod template's labels. More info: https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#label-selectors",
        1,
    ),
];

pub(crate) static DEPLOYMENTS: &[Column] = &[
    NAME,
    column("Ready", "string", "", "Number of the pod with ready state", 0),
    column(
        "Up-to-date",
        "string",
        "",
        "Total number of non-terminating pods targeted by this deployment that have the desired template spec.",
        0,
    ),
    column(
        "Available",
        "string",
        "",
        "Total number of available non-terminating pods (ready for at least minReadySeconds) targeted by this deployment.",
        0,
    ),
    AGE,
    column("Containers", "string", "", "Names of each container in the template.", 1),
    column("Images", "string", "", "Images referenced by each container in the template.", 1),
    column(
        "Selector",
        "string",
        "",
        "Label selector for pods. Existing ReplicaSets whose pods are selected by this will be the ones affected by this deployment. It must match the pod template's labels.",
        1,
    ),
];

pub(crate) static HORIZONTALPODAUTOSCALERS: &[Column] = &[
    NAME,
    column(
        "Reference",
        "string",
        "",
        "scaleTargetRef points to the target resource to scale, and is used to the pods for which metrics should be collected, as well as to actually change the replica count.",
        0,
    ),
    column(
        "Targets",
        "string",
        "",
        "metrics contains the specifications for which to use to calculate the desired replica count (the maximum replica count across all metrics will be used).  The desired replica count is calculated multiplying the ratio between the target value and the current value by the current number of pods.  Ergo, metrics used must decrease as the pod count is increased, and vice-versa.  See the individual metric source types for more information about how each type of metric must respond. If not set, the default metric will be set to 80% average CPU utilization.",
        0,
    ),
    column(
        "MinPods",
        "string",
        "",
        "minReplicas is the lower limit for the number of replicas to which the autoscaler can scale down.  It defaults to 1 pod.  minReplicas is allowed to be 0 if the alpha feature gate HPAScaleToZero is enabled and at least one Object or External metric is configured.  Scaling is active as long as at least one metric value is available.",
        0,
    ),
    column(
        "MaxPods",
        "string",
        "",
        "maxReplicas is the upper limit for the number of replicas to which the autoscaler can scale up. It cannot be less that minReplicas.",
        0,
    ),
    column(
        "Replicas",
        "string",
        "",
        "currentReplicas is current number of replicas of pods managed by this autoscaler, as last seen by the autoscaler.",
        0,
    ),
    AGE,
];

pub(crate) static JOBS: &[Column] = &[
    NAME,
    column("Status", "string", "", "Status of the job.", 0),
    column(
        "Completions",
        "string",
        "",
        "The number of pods which reached phase Succeeded. The value increases monotonically for a given spec. However, it may decrease in reaction to scale down of elastic indexed jobs.",
        0,
    ),
    column("Duration", "string", "", "Time required to complete the job.", 0),
    AGE,
    column("Containers", "string", "", "Names of each container in the template.", 1),
    column("Images", "string", "", "Images referenced by each container in the template.", 1),
    column(
        "Selector",
        "string",
        "",
        "A label query over pods that should match the pod count. Normally, the system sets this field for you. More info: https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#label-selectors",
        1,
    ),
];

pub(crate) static PODDISRUPTIONBUDGETS: &[Column] = &[
    NAME,
    column("Min Available", "string", "", "The minimum number of pods that must be available.", 0),
    column("Max Unavailable", "string", "", "The maximum number of pods that may be unavailable.", 0),
    column("Allowed Disruptions", "integer", "", "Calculated number of pods that may be disrupted at this time.", 0),
    AGE,
];

pub(crate) static PODS: &[Column] = &[
    NAME,
    column("Ready", "string", "", "The aggregate readiness state of this pod for accepting traffic.", 0),
    column("Status", "string", "", "The aggregate status of the containers in this pod.", 0),
    column(
        "Restarts",
        "string",
        "",
        "The number of times the containers in this pod have been restarted and when the last container in this pod has restarted.",
        0,
    ),
    AGE,
    column(
        "IP",
        "string",
        "",
        "podIP address allocated to the pod. Routable at least within the cluster. Empty if not yet allocated.",
        1,
    ),
    column(
        "Node",
        "string",
        "",
        "NodeName indicates in which node this pod is scheduled. If empty, this pod is a candidate for scheduling by the scheduler defined in schedulerName. Once this field is set, the kubelet for this node becomes responsible for the lifecycle of this pod. This field should not be used to express a desire for the pod to be scheduled on a specific node. https://kubernetes.io/docs/concepts/scheduling-eviction/assign-pod-node/#nodename",
        1,
    ),
    column(
        "Nominated Node",
        "string",
        "",
        "nominatedNodeName is set only when this pod preempts other pods on the node, but it cannot be scheduled right away as preemption victims receive their graceful termination periods. This field does not guarantee that the pod will be scheduled on this node. Scheduler may decide to place the pod elsewhere if other nodes become available sooner. Scheduler may also decide to give the resources on this node to a higher priority pod that is created after preemption. As a result, this field may be different than PodSpec.nodeName when the pod is scheduled.",
        1,
    ),
    column(
        "Readiness Gates",
        "string",
        "",
        "If specified, all readiness gates will be evaluated for pod readiness. A pod is ready when all its containers are ready AND all conditions specified in the readiness gates have status equal to \"True\" More info: https://git.k8s.io/enhancements/keps/sig-network/580-pod-readiness-gates",
        1,
    ),
];

pub(crate) static PODTEMPLATES: &[Column] = &[
    NAME,
    column("Containers", "string", "", "Names of each container in the template.", 0),
    column("Images", "string", "", "Images referenced by each container in the template.", 0),
    column("Pod Labels", "string", "", "The labels for the pod template.", 0),
];

pub(crate) static REPLICASETS: &[Column] = &[
    NAME,
    column(
        "Desired",
        "integer",
        "",
        "Replicas is the number of desired pods. This is a pointer to distinguish between explicit zero and unspecified. Defaults to 1. More info: https://kubernetes.io/docs/concepts/workloads/controllers/replicaset",
        0,
    ),
    column(
        "Current",
        "integer",
        "",
        "Replicas is the most recently observed number of non-terminating pods. More info: https://kubernetes.io/docs/concepts/workloads/controllers/replicaset",
        0,
    ),
    column("Ready", "integer", "", "The number of non-terminating pods targeted by this ReplicaSet with a Ready Condition.", 0),
    AGE,
    column("Containers", "string", "", "Names of each container in the template.", 1),
    column("Images", "string", "", "Images referenced by each container in the template.", 1),
    column(
        "Selector",
        "string",
        "",
        "Selector is a label query over pods that should match the replica count. Label keys and values that must match in order to be controlled by this replica set. It must match the pod template's labels. More info: https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#label-selectors",
        1,
    ),
];

pub(crate) static REPLICATIONCONTROLLERS: &[Column] = &[
    NAME,
    column(
        "Desired",
        "integer",
        "",
        "Replicas is the number of desired replicas. This is a pointer to distinguish between explicit zero and unspecified. Defaults to 1. More info: https://kubernetes.io/docs/concepts/workloads/controllers/replicationcontroller#what-is-a-replicationcontroller",
        0,
    ),
    column(
        "Current",
        "integer",
        "",
        "Replicas is the most recently observed number of replicas. More info: https://kubernetes.io/docs/concepts/workloads/controllers/replicationcontroller#what-is-a-replicationcontroller",
        0,
    ),
    column("Ready", "integer", "", "The number of ready replicas for this replication controller.", 0),
    AGE,
    column("Containers", "string", "", "Names of each container in the template.", 1),
    column("Images", "string", "", "Images referenced by each container in the template.", 1),
    column(
        "Selector",
        "string",
        "",
        "Selector is a label query over pods that should match the Replicas count. If Selector is empty, it is defaulted to the labels present on the Pod template. Label keys and values that must match in order to be controlled by this replication controller, if empty defaulted to labels on Pod template. More info: https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#label-selectors",
        1,
    ),
];

pub(crate) static STATEFULSETS: &[Column] = &[
    NAME,
    column("Ready", "string", "", "Number of the pod with ready state", 0),
    AGE,
    column("Containers", "string", "", "Names of each container in the template.", 1),
    column("Images", "string", "", "Images referenced by each container in the template.", 1),
];
