//! Every other field of `KubeletConfiguration` v1beta1 (Kubernetes 1.37), and what becomes of it: one table.
//!
//! What asks for what the node does in any case is accepted. What asks for something else is refused, because a node
//! that does not do it is not what its owner wants. What is about the kubelet's own workings, or about what a node of
//! Coracle has not (an API server, a port), is accepted with a warning: pods are the same without it, and nothing is
//! less secure.

/// A field that only the kubelet acts on.
#[derive(Debug)]
pub(in crate::config) struct KubeletField {
    pub(in crate::config) name: &'static str,
    pub(in crate::config) kind: Kind,
    pub(in crate::config) fate: Fate,
    /// What the node does instead, or has not.
    pub(in crate::config) why: &'static str,
}

/// What becomes of a field that is set.
#[derive(Debug)]
pub(in crate::config) enum Fate {
    /// Accepted where it is one of these, of which the first is what the node does; else refused.
    Same(&'static [Is]),
    /// Accepted with a warning.
    NoEffect,
}

/// A value.
#[derive(Debug)]
pub(in crate::config) enum Is {
    Bool(bool),
    Number(i64),
    /// Of a duration, whichever way it is written.
    Text(&'static str),
    Texts(&'static [&'static str]),
    /// An object with this field alone.
    Only(&'static str, &'static Is),
}

/// Of which type the value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::config) enum Kind {
    Bool,
    Number,
    Text,
    Duration,
    Texts,
    Numbers,
    Objects,
    Object,
    /// An object whose values are texts.
    TextMap,
    /// One whose values are thresholds of eviction.
    Thresholds,
}

/// The field of that name.
pub(in crate::config) fn field(name: &str) -> Option<&'static KubeletField> {
    FIELDS.iter().find(|field| field.name == name)
}

const SOCKET: &str = "the API is served on a unix socket that only root may use, and not over the network";
const API_SERVER: &str = "the node has no API server to speak with";
const EVICTION: &str = "pods are not evicted when the node runs short of memory or disk";
const RESERVED: &str = "nothing is set aside for the system, and pods may use all there is";
const PINNED: &str = "CPUs and memory are not pinned";

const NO_EFFECT: Fate = Fate::NoEffect;
const NOT_YET: Fate = Fate::Same(&[]);

const fn only(values: &'static [Is]) -> Fate {
    Fate::Same(values)
}

const fn of(name: &'static str, kind: Kind, fate: Fate, why: &'static str) -> KubeletField {
    KubeletField { name, kind, fate, why }
}

/// All of them, in the order of the type's definition.
pub(in crate::config) const FIELDS: &[KubeletField] = &[
    of("enableServer", Kind::Bool, NO_EFFECT, SOCKET),
    of("syncFrequency", Kind::Duration, NO_EFFECT, "a pod is looked at when something of it changes"),
    of(
        "fileCheckFrequency",
        Kind::Duration,
        NO_EFFECT,
        "the kernel tells of changed manifests; where it cannot, it is looked every 20 s",
    ),
    of("address", Kind::Text, NO_EFFECT, SOCKET),
    of("port", Kind::Number, NO_EFFECT, SOCKET),
    of("readOnlyPort", Kind::Number, only(&[Is::Number(0)]), SOCKET),
    of("tlsCertFile", Kind::Text, NO_EFFECT, SOCKET),
    of("tlsPrivateKeyFile", Kind::Text, NO_EFFECT, SOCKET),
    of("tlsCipherSuites", Kind::Texts, NO_EFFECT, SOCKET),
    of("tlsCurvePreferences", Kind::Numbers, NO_EFFECT, SOCKET),
    of("tlsMinVersion", Kind::Text, NO_EFFECT, SOCKET),
    of("rotateCertificates", Kind::Bool, NO_EFFECT, API_SERVER),
    of("serverTLSBootstrap", Kind::Bool, NO_EFFECT, API_SERVER),
    of("authentication", Kind::Object, NO_EFFECT, SOCKET),
    of("authorization", Kind::Object, NO_EFFECT, SOCKET),
    of(
        "eventRecordQPS",
        Kind::Number,
        NO_EFFECT,
        "events are kept by the node itself, and limited for each object",
    ),
    of(
        "eventBurst",
        Kind::Number,
        NO_EFFECT,
        "events are kept by the node itself, and limited for each object",
    ),
    of(
        "enableDebuggingHandlers",
        Kind::Bool,
        only(&[Is::Bool(true)]),
        "logs, exec, attach and port-forward are always served, to root alone",
    ),
    of("enableContentionProfiling", Kind::Bool, only(&[Is::Bool(false)]), "the node has no profiling"),
    of(
        "healthzPort",
        Kind::Number,
        NO_EFFECT,
        "the API is served on a unix socket that only root may use, and not over the network (GET /healthz)",
    ),
    of(
        "healthzBindAddress",
        Kind::Text,
        NO_EFFECT,
        "the API is served on a unix socket that only root may use, and not over the network (GET /healthz)",
    ),
    of("oomScoreAdj", Kind::Number, NO_EFFECT, "the agent's is OOMScoreAdjust of its unit"),
    of(
        "streamingConnectionIdleTimeout",
        Kind::Duration,
        NO_EFFECT,
        "the kubelet does not act on it any more either",
    ),
    of("nodeStatusUpdateFrequency", Kind::Duration, NO_EFFECT, API_SERVER),
    of("nodeStatusReportFrequency", Kind::Duration, NO_EFFECT, API_SERVER),
    of("nodeLeaseDurationSeconds", Kind::Number, NO_EFFECT, API_SERVER),
    of("volumeStatsAggPeriod", Kind::Duration, NO_EFFECT, "volumes are measured when a limit is set on them"),
    of("kubeletCgroups", Kind::Text, NO_EFFECT, "the agent's cgroup is that of its unit"),
    of("systemCgroups", Kind::Text, NOT_YET, "processes of the system are left where they are"),
    of("cgroupsPerQOS", Kind::Bool, only(&[Is::Bool(true)]), "there is a cgroup for each QoS class"),
    of("cpuManagerPolicy", Kind::Text, only(&[Is::Text("none")]), PINNED),
    of(
        "singleProcessOOMKill",
        Kind::Bool,
        only(&[Is::Bool(false)]),
        "on cgroup v2 all processes of a container are killed together",
    ),
    of("cpuManagerPolicyOptions", Kind::TextMap, NOT_YET, PINNED),
    of("cpuManagerReconcilePeriod", Kind::Duration, NO_EFFECT, PINNED),
    of("draManagerReconcilePeriod", Kind::Duration, NO_EFFECT, "there is no dynamic resource allocation"),
    of("memoryManagerPolicy", Kind::Text, only(&[Is::Text("None"), Is::Text("none")]), PINNED),
    of("topologyManagerPolicyOptions", Kind::TextMap, NOT_YET, "topologyManagerPolicy has no options"),
    of("qosReserved", Kind::TextMap, NOT_YET, RESERVED),
    of("runtimeRequestTimeout", Kind::Duration, NO_EFFECT, "the node is its own container runtime"),
    of(
        "hairpinMode",
        Kind::Text,
        NO_EFFECT,
        "whether pods reach themselves by a host port or a service is the network's matter",
    ),
    of("maxPods", Kind::Number, NOT_YET, "the number of pods is not limited"),
    of("runOnce", Kind::Bool, only(&[Is::Bool(false)]), "`coracle run -f FILE` runs pods once"),
    of("cpuCFSQuota", Kind::Bool, only(&[Is::Bool(true)]), "limits of CPU are always enforced"),
    of(
        "cpuCFSQuotaPeriod",
        Kind::Duration,
        only(&[Is::Text("100ms")]),
        "the period of CPU limits is always 100ms",
    ),
    of("nodeStatusMaxImages", Kind::Number, NO_EFFECT, API_SERVER),
    of("maxOpenFiles", Kind::Number, NO_EFFECT, "the agent's is LimitNOFILE of its unit"),
    of("contentType", Kind::Text, NO_EFFECT, API_SERVER),
    of("kubeAPIQPS", Kind::Number, NO_EFFECT, API_SERVER),
    of("kubeAPIBurst", Kind::Number, NO_EFFECT, API_SERVER),
    of("evictionHard", Kind::Thresholds, NOT_YET, EVICTION),
    of("evictionSoft", Kind::Thresholds, NOT_YET, EVICTION),
    of("evictionSoftGracePeriod", Kind::TextMap, NOT_YET, EVICTION),
    of("evictionPressureTransitionPeriod", Kind::Duration, NO_EFFECT, EVICTION),
    of("evictionMaxPodGracePeriod", Kind::Number, NO_EFFECT, EVICTION),
    of("evictionMinimumReclaim", Kind::TextMap, NO_EFFECT, EVICTION),
    of("mergeDefaultEvictionSettings", Kind::Bool, only(&[Is::Bool(false)]), EVICTION),
    of("podsPerCore", Kind::Number, only(&[Is::Number(0)]), "the number of pods is not limited"),
    of("enableControllerAttachDetach", Kind::Bool, NO_EFFECT, API_SERVER),
    of(
        "protectKernelDefaults",
        Kind::Bool,
        only(&[Is::Bool(false)]),
        "the kernel's settings are neither changed nor required; `coracle check` shows what this host lacks",
    ),
    of(
        "makeIPTablesUtilChains",
        Kind::Bool,
        NO_EFFECT,
        "no rules of iptables are made; the node has a table of nftables of its own",
    ),
    of("iptablesMasqueradeBit", Kind::Number, NO_EFFECT, "the kubelet does not act on it any more either"),
    of("iptablesDropBit", Kind::Number, NO_EFFECT, "the kubelet does not act on it any more either"),
    of(
        "featureGates",
        Kind::Object,
        NO_EFFECT,
        "there are no feature gates: what is finished is on, and what is not is refused",
    ),
    of(
        "failSwapOn",
        Kind::Bool,
        only(&[Is::Bool(false)]),
        "the node runs on a host with swap as well, and containers with a memory limit get none of it",
    ),
    of(
        "memorySwap",
        Kind::Object,
        NOT_YET,
        "containers with a memory limit get no swap, and others what the host has",
    ),
    of("containerLogMaxWorkers", Kind::Number, NO_EFFECT, "a log is rotated by whoever writes it"),
    of(
        "containerLogMonitorInterval",
        Kind::Duration,
        NO_EFFECT,
        "a log is rotated as soon as it has its size",
    ),
    of("configMapAndSecretChangeDetectionStrategy", Kind::Text, NO_EFFECT, API_SERVER),
    of("systemReserved", Kind::TextMap, NOT_YET, RESERVED),
    of("kubeReserved", Kind::TextMap, NOT_YET, RESERVED),
    of("reservedSystemCPUs", Kind::Text, NOT_YET, RESERVED),
    of("showHiddenMetricsForVersion", Kind::Text, NO_EFFECT, "there are no metrics of the kubelet"),
    of("systemReservedCgroup", Kind::Text, NOT_YET, RESERVED),
    of("kubeReservedCgroup", Kind::Text, NOT_YET, RESERVED),
    of("enforceNodeAllocatable", Kind::Texts, only(&[Is::Texts(&["pods"]), Is::Texts(&["none"])]), RESERVED),
    of("volumePluginDir", Kind::Text, NO_EFFECT, "there are no FlexVolumes"),
    of("providerID", Kind::Text, NO_EFFECT, API_SERVER),
    of("kernelMemcgNotification", Kind::Bool, NO_EFFECT, EVICTION),
    of("logging", Kind::Object, NO_EFFECT, "CORACLE_LOG says what is logged"),
    of(
        "enableSystemLogHandler",
        Kind::Bool,
        NO_EFFECT,
        "logs of the system are not served; journalctl shows them",
    ),
    of(
        "enableSystemLogQuery",
        Kind::Bool,
        NO_EFFECT,
        "logs of the system are not served; journalctl shows them",
    ),
    of(
        "crashLoopBackOff",
        Kind::Object,
        only(&[Is::Only("maxContainerRestartPeriod", &Is::Text("300s"))]),
        "the longest wait between restarts is always 300s",
    ),
    of("reservedMemory", Kind::Objects, NOT_YET, PINNED),
    of("enableProfilingHandler", Kind::Bool, NO_EFFECT, "there is no profiling"),
    of("enableDebugFlagsHandler", Kind::Bool, NO_EFFECT, "CORACLE_LOG says what is logged"),
    of("memoryThrottlingFactor", Kind::Number, NOT_YET, "memory.high is not set"),
    of(
        "memoryReservationPolicy",
        Kind::Text,
        only(&[Is::Text("None")]),
        "memory.min and memory.low are not set",
    ),
    of("registerWithTaints", Kind::Objects, NO_EFFECT, API_SERVER),
    of("registerNode", Kind::Bool, NO_EFFECT, API_SERVER),
    of("tracing", Kind::Object, NOT_YET, "no traces are written"),
    of(
        "localStorageCapacityIsolation",
        Kind::Bool,
        only(&[Is::Bool(true)]),
        "limits of emptyDir volumes are always enforced",
    ),
    of("containerRuntimeEndpoint", Kind::Text, NO_EFFECT, "the node is its own container runtime"),
    of("imageServiceEndpoint", Kind::Text, NO_EFFECT, "the node is its own container runtime"),
    of("failCgroupV1", Kind::Bool, only(&[Is::Bool(false)]), "the node runs on cgroup v1 as well"),
    of("userNamespaces", Kind::Object, NOT_YET, "pods have no user namespaces of their own"),
];
