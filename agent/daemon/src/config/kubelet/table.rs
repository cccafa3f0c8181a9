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
}

/// The field of that name.
pub(in crate::config) fn field(name: &str) -> Option<&'static KubeletField> {
    FIELDS.iter().find(|field| field.name == name)
}

/// All of them, in the order of the type's definition.
pub(in crate::config) const FIELDS: &[KubeletField] = &[
    KubeletField {
        name: "enableServer",
        kind: Kind::Bool,
        fate: Fate::NoEffect,
        why: "the API is served on a unix socket that only root may use, and not over the network",
    },
    KubeletField {
        name: "syncFrequency",
        kind: Kind::Duration,
        fate: Fate::NoEffect,
        why: "a pod is looked at when something of it changes",
    },
    KubeletField {
        name: "fileCheckFrequency",
        kind: Kind::Duration,
        fate: Fate::NoEffect,
        why: "the kernel tells of changed manifests",
    },
    KubeletField {
        name: "address",
        kind: Kind::Text,
        fate: Fate::NoEffect,
        why: "the API is served on a unix socket that only root may use, and not over the network",
    },
    KubeletField {
        name: "port",
        kind: Kind::Number,
        fate: Fate::NoEffect,
        why: "the API is served on a unix socket that only root may use, and not over the network",
    },
    KubeletField {
        name: "readOnlyPort",
        kind: Kind::Number,
        fate: Fate::Same(&[Is::Number(0)]),
        why: "the API is served on a unix socket that only root may use, and not over the network",
    },
    KubeletField {
        name: "tlsCertFile",
        kind: Kind::Text,
        fate: Fate::NoEffect,
        why: "the API is served on a unix socket that only root may use, and not over the network",
    },
    KubeletField {
        name: "tlsPrivateKeyFile",
        kind: Kind::Text,
        fate: Fate::NoEffect,
        why: "the API is served on a unix socket that only root may use, and not over the network",
    },
    KubeletField {
        name: "tlsCipherSuites",
        kind: Kind::Texts,
        fate: Fate::NoEffect,
        why: "the API is served on a unix socket that only root may use, and not over the network",
    },
    KubeletField {
        name: "tlsCurvePreferences",
        kind: Kind::Numbers,
        fate: Fate::NoEffect,
        why: "the API is served on a unix socket that only root may use, and not over the network",
    },
    KubeletField {
        name: "tlsMinVersion",
        kind: Kind::Text,
        fate: Fate::NoEffect,
        why: "the API is served on a unix socket that only root may use, and not over the network",
    },
    KubeletField {
        name: "rotateCertificates",
        kind: Kind::Bool,
        fate: Fate::NoEffect,
        why: "the node has no API server to speak with",
    },
    KubeletField {
        name: "serverTLSBootstrap",
        kind: Kind::Bool,
        fate: Fate::NoEffect,
        why: "the node has no API server to speak with",
    },
    KubeletField {
        name: "authentication",
        kind: Kind::Object,
        fate: Fate::NoEffect,
        why: "the API is served on a unix socket that only root may use, and not over the network",
    },
    KubeletField {
        name: "authorization",
        kind: Kind::Object,
        fate: Fate::NoEffect,
        why: "the API is served on a unix socket that only root may use, and not over the network",
    },
    KubeletField {
        name: "eventRecordQPS",
        kind: Kind::Number,
        fate: Fate::NoEffect,
        why: "events are kept by the node itself, and limited for each object",
    },
    KubeletField {
        name: "eventBurst",
        kind: Kind::Number,
        fate: Fate::NoEffect,
        why: "events are kept by the node itself, and limited for each object",
    },
    KubeletField {
        name: "enableDebuggingHandlers",
        kind: Kind::Bool,
        fate: Fate::Same(&[Is::Bool(true)]),
        why: "logs, exec, attach and port-forward are always served, to root alone",
    },
    KubeletField {
        name: "enableContentionProfiling",
        kind: Kind::Bool,
        fate: Fate::Same(&[Is::Bool(false)]),
        why: "the node has no profiling",
    },
    KubeletField {
        name: "healthzPort",
        kind: Kind::Number,
        fate: Fate::NoEffect,
        why: "the API is served on a unix socket that only root may use, and not over the network (GET /healthz)",
    },
    KubeletField {
        name: "healthzBindAddress",
        kind: Kind::Text,
        fate: Fate::NoEffect,
        why: "the API is served on a unix socket that only root may use, and not over the network (GET /healthz)",
    },
    KubeletField {
        name: "oomScoreAdj",
        kind: Kind::Number,
        fate: Fate::NoEffect,
        why: "the agent's is OOMScoreAdjust of its unit",
    },
    KubeletField {
        name: "streamingConnectionIdleTimeout",
        kind: Kind::Duration,
        fate: Fate::NoEffect,
        why: "the kubelet does not act on it any more either",
    },
    KubeletField {
        name: "nodeStatusUpdateFrequency",
        kind: Kind::Duration,
        fate: Fate::NoEffect,
        why: "the node has no API server to speak with",
    },
    KubeletField {
        name: "nodeStatusReportFrequency",
        kind: Kind::Duration,
        fate: Fate::NoEffect,
        why: "the node has no API server to speak with",
    },
    KubeletField {
        name: "nodeLeaseDurationSeconds",
        kind: Kind::Number,
        fate: Fate::NoEffect,
        why: "the node has no API server to speak with",
    },
    KubeletField {
        name: "volumeStatsAggPeriod",
        kind: Kind::Duration,
        fate: Fate::NoEffect,
        why: "volumes are measured when a limit is set on them",
    },
    KubeletField {
        name: "kubeletCgroups",
        kind: Kind::Text,
        fate: Fate::NoEffect,
        why: "the agent's cgroup is that of its unit",
    },
    KubeletField {
        name: "systemCgroups",
        kind: Kind::Text,
        fate: Fate::Same(&[]),
        why: "processes of the system are left where they are",
    },
    KubeletField {
        name: "cgroupsPerQOS",
        kind: Kind::Bool,
        fate: Fate::Same(&[Is::Bool(true)]),
        why: "there is a cgroup for each QoS class",
    },
    KubeletField {
        name: "cpuManagerPolicy",
        kind: Kind::Text,
        fate: Fate::Same(&[Is::Text("none")]),
        why: "CPUs, memory and devices are not pinned",
    },
    KubeletField {
        name: "singleProcessOOMKill",
        kind: Kind::Bool,
        fate: Fate::Same(&[Is::Bool(false)]),
        why: "on cgroup v2 all processes of a container are killed together",
    },
    KubeletField {
        name: "cpuManagerPolicyOptions",
        kind: Kind::TextMap,
        fate: Fate::Same(&[]),
        why: "CPUs, memory and devices are not pinned",
    },
    KubeletField {
        name: "cpuManagerReconcilePeriod",
        kind: Kind::Duration,
        fate: Fate::NoEffect,
        why: "CPUs, memory and devices are not pinned",
    },
    KubeletField {
        name: "draManagerReconcilePeriod",
        kind: Kind::Duration,
        fate: Fate::NoEffect,
        why: "there is no dynamic resource allocation",
    },
    KubeletField {
        name: "memoryManagerPolicy",
        kind: Kind::Text,
        fate: Fate::Same(&[Is::Text("None"), Is::Text("none")]),
        why: "CPUs, memory and devices are not pinned",
    },
    KubeletField {
        name: "topologyManagerPolicy",
        kind: Kind::Text,
        fate: Fate::Same(&[Is::Text("none")]),
        why: "CPUs, memory and devices are not pinned",
    },
    KubeletField {
        name: "topologyManagerScope",
        kind: Kind::Text,
        fate: Fate::Same(&[Is::Text("container")]),
        why: "CPUs, memory and devices are not pinned",
    },
    KubeletField {
        name: "topologyManagerPolicyOptions",
        kind: Kind::TextMap,
        fate: Fate::Same(&[]),
        why: "CPUs, memory and devices are not pinned",
    },
    KubeletField {
        name: "qosReserved",
        kind: Kind::TextMap,
        fate: Fate::Same(&[]),
        why: "nothing is set aside for the system, and pods may use all there is",
    },
    KubeletField {
        name: "runtimeRequestTimeout",
        kind: Kind::Duration,
        fate: Fate::NoEffect,
        why: "the node is its own container runtime",
    },
    KubeletField {
        name: "hairpinMode",
        kind: Kind::Text,
        fate: Fate::NoEffect,
        why: "whether pods reach themselves by a host port or a service is the network's matter",
    },
    KubeletField {
        name: "maxPods",
        kind: Kind::Number,
        fate: Fate::Same(&[]),
        why: "the number of pods is not limited",
    },
    KubeletField {
        name: "runOnce",
        kind: Kind::Bool,
        fate: Fate::Same(&[Is::Bool(false)]),
        why: "`coracle run -f FILE` runs pods once",
    },
    KubeletField {
        name: "cpuCFSQuota",
        kind: Kind::Bool,
        fate: Fate::Same(&[Is::Bool(true)]),
        why: "limits of CPU are always enforced",
    },
    KubeletField {
        name: "cpuCFSQuotaPeriod",
        kind: Kind::Duration,
        fate: Fate::Same(&[Is::Text("100ms")]),
        why: "the period of CPU limits is always 100ms",
    },
    KubeletField {
        name: "nodeStatusMaxImages",
        kind: Kind::Number,
        fate: Fate::NoEffect,
        why: "the node has no API server to speak with",
    },
    KubeletField {
        name: "maxOpenFiles",
        kind: Kind::Number,
        fate: Fate::NoEffect,
        why: "the agent's is LimitNOFILE of its unit",
    },
    KubeletField {
        name: "contentType",
        kind: Kind::Text,
        fate: Fate::NoEffect,
        why: "the node has no API server to speak with",
    },
    KubeletField {
        name: "kubeAPIQPS",
        kind: Kind::Number,
        fate: Fate::NoEffect,
        why: "the node has no API server to speak with",
    },
    KubeletField {
        name: "kubeAPIBurst",
        kind: Kind::Number,
        fate: Fate::NoEffect,
        why: "the node has no API server to speak with",
    },
    KubeletField {
        name: "evictionHard",
        kind: Kind::TextMap,
        fate: Fate::Same(&[]),
        why: "pods are not evicted when the node runs short of memory or disk",
    },
    KubeletField {
        name: "evictionSoft",
        kind: Kind::TextMap,
        fate: Fate::Same(&[]),
        why: "pods are not evicted when the node runs short of memory or disk",
    },
    KubeletField {
        name: "evictionSoftGracePeriod",
        kind: Kind::TextMap,
        fate: Fate::Same(&[]),
        why: "pods are not evicted when the node runs short of memory or disk",
    },
    KubeletField {
        name: "evictionPressureTransitionPeriod",
        kind: Kind::Duration,
        fate: Fate::NoEffect,
        why: "pods are not evicted when the node runs short of memory or disk",
    },
    KubeletField {
        name: "evictionMaxPodGracePeriod",
        kind: Kind::Number,
        fate: Fate::NoEffect,
        why: "pods are not evicted when the node runs short of memory or disk",
    },
    KubeletField {
        name: "evictionMinimumReclaim",
        kind: Kind::TextMap,
        fate: Fate::NoEffect,
        why: "pods are not evicted when the node runs short of memory or disk",
    },
    KubeletField {
        name: "mergeDefaultEvictionSettings",
        kind: Kind::Bool,
        fate: Fate::Same(&[Is::Bool(false)]),
        why: "pods are not evicted when the node runs short of memory or disk",
    },
    KubeletField {
        name: "podsPerCore",
        kind: Kind::Number,
        fate: Fate::Same(&[Is::Number(0)]),
        why: "the number of pods is not limited",
    },
    KubeletField {
        name: "enableControllerAttachDetach",
        kind: Kind::Bool,
        fate: Fate::NoEffect,
        why: "the node has no API server to speak with",
    },
    KubeletField {
        name: "protectKernelDefaults",
        kind: Kind::Bool,
        fate: Fate::Same(&[Is::Bool(false)]),
        why: "the kernel's settings are neither changed nor required; `coracle check` shows what this host lacks",
    },
    KubeletField {
        name: "makeIPTablesUtilChains",
        kind: Kind::Bool,
        fate: Fate::NoEffect,
        why: "no rules of iptables are made; the node has a table of nftables of its own",
    },
    KubeletField {
        name: "iptablesMasqueradeBit",
        kind: Kind::Number,
        fate: Fate::NoEffect,
        why: "the kubelet does not act on it any more either",
    },
    KubeletField {
        name: "iptablesDropBit",
        kind: Kind::Number,
        fate: Fate::NoEffect,
        why: "the kubelet does not act on it any more either",
    },
    KubeletField {
        name: "featureGates",
        kind: Kind::Object,
        fate: Fate::NoEffect,
        why: "there are no feature gates: what is finished is on, and what is not is refused",
    },
    KubeletField {
        name: "failSwapOn",
        kind: Kind::Bool,
        fate: Fate::Same(&[Is::Bool(false)]),
        why: "the node runs on a host with swap as well, and containers with a memory limit get none of it",
    },
    KubeletField {
        name: "memorySwap",
        kind: Kind::Object,
        fate: Fate::Same(&[]),
        why: "containers with a memory limit get no swap, and others what the host has",
    },
    KubeletField {
        name: "containerLogMaxWorkers",
        kind: Kind::Number,
        fate: Fate::NoEffect,
        why: "a log is rotated by whoever writes it",
    },
    KubeletField {
        name: "containerLogMonitorInterval",
        kind: Kind::Duration,
        fate: Fate::NoEffect,
        why: "a log is rotated as soon as it has its size",
    },
    KubeletField {
        name: "configMapAndSecretChangeDetectionStrategy",
        kind: Kind::Text,
        fate: Fate::NoEffect,
        why: "the node has no API server to speak with",
    },
    KubeletField {
        name: "systemReserved",
        kind: Kind::TextMap,
        fate: Fate::Same(&[]),
        why: "nothing is set aside for the system, and pods may use all there is",
    },
    KubeletField {
        name: "kubeReserved",
        kind: Kind::TextMap,
        fate: Fate::Same(&[]),
        why: "nothing is set aside for the system, and pods may use all there is",
    },
    KubeletField {
        name: "reservedSystemCPUs",
        kind: Kind::Text,
        fate: Fate::Same(&[]),
        why: "nothing is set aside for the system, and pods may use all there is",
    },
    KubeletField {
        name: "showHiddenMetricsForVersion",
        kind: Kind::Text,
        fate: Fate::NoEffect,
        why: "there are no metrics of the kubelet",
    },
    KubeletField {
        name: "systemReservedCgroup",
        kind: Kind::Text,
        fate: Fate::Same(&[]),
        why: "nothing is set aside for the system, and pods may use all there is",
    },
    KubeletField {
        name: "kubeReservedCgroup",
        kind: Kind::Text,
        fate: Fate::Same(&[]),
        why: "nothing is set aside for the system, and pods may use all there is",
    },
    KubeletField {
        name: "enforceNodeAllocatable",
        kind: Kind::Texts,
        fate: Fate::Same(&[Is::Texts(&["pods"]), Is::Texts(&["none"])]),
        why: "nothing is set aside for the system, and pods may use all there is",
    },
    KubeletField {
        name: "volumePluginDir",
        kind: Kind::Text,
        fate: Fate::NoEffect,
        why: "there are no FlexVolumes",
    },
    KubeletField {
        name: "providerID",
        kind: Kind::Text,
        fate: Fate::NoEffect,
        why: "the node has no API server to speak with",
    },
    KubeletField {
        name: "kernelMemcgNotification",
        kind: Kind::Bool,
        fate: Fate::NoEffect,
        why: "pods are not evicted when the node runs short of memory or disk",
    },
    KubeletField {
        name: "logging",
        kind: Kind::Object,
        fate: Fate::NoEffect,
        why: "CORACLE_LOG says what is logged",
    },
    KubeletField {
        name: "enableSystemLogHandler",
        kind: Kind::Bool,
        fate: Fate::NoEffect,
        why: "logs of the system are not served; journalctl shows them",
    },
    KubeletField {
        name: "enableSystemLogQuery",
        kind: Kind::Bool,
        fate: Fate::NoEffect,
        why: "logs of the system are not served; journalctl shows them",
    },
    KubeletField {
        name: "crashLoopBackOff",
        kind: Kind::Object,
        fate: Fate::Same(&[Is::Only("maxContainerRestartPeriod", &Is::Text("300s"))]),
        why: "the longest wait between restarts is always 300s",
    },
    KubeletField {
        name: "reservedMemory",
        kind: Kind::Objects,
        fate: Fate::Same(&[]),
        why: "CPUs, memory and devices are not pinned",
    },
    KubeletField {
        name: "enableProfilingHandler",
        kind: Kind::Bool,
        fate: Fate::NoEffect,
        why: "there is no profiling",
    },
    KubeletField {
        name: "enableDebugFlagsHandler",
        kind: Kind::Bool,
        fate: Fate::NoEffect,
        why: "CORACLE_LOG says what is logged",
    },
    KubeletField {
        name: "memoryThrottlingFactor",
        kind: Kind::Number,
        fate: Fate::Same(&[]),
        why: "memory.high is not set",
    },
    KubeletField {
        name: "memoryReservationPolicy",
        kind: Kind::Text,
        fate: Fate::Same(&[Is::Text("None")]),
        why: "memory.min and memory.low are not set",
    },
    KubeletField {
        name: "registerWithTaints",
        kind: Kind::Objects,
        fate: Fate::NoEffect,
        why: "the node has no API server to speak with",
    },
    KubeletField {
        name: "registerNode",
        kind: Kind::Bool,
        fate: Fate::NoEffect,
        why: "the node has no API server to speak with",
    },
    KubeletField { name: "tracing", kind: Kind::Object, fate: Fate::Same(&[]), why: "no traces are written" },
    KubeletField {
        name: "localStorageCapacityIsolation",
        kind: Kind::Bool,
        fate: Fate::Same(&[Is::Bool(true)]),
        why: "limits of emptyDir volumes are always enforced",
    },
    KubeletField {
        name: "containerRuntimeEndpoint",
        kind: Kind::Text,
        fate: Fate::NoEffect,
        why: "the node is its own container runtime",
    },
    KubeletField {
        name: "imageServiceEndpoint",
        kind: Kind::Text,
        fate: Fate::NoEffect,
        why: "the node is its own container runtime",
    },
    KubeletField {
        name: "failCgroupV1",
        kind: Kind::Bool,
        fate: Fate::Same(&[Is::Bool(false)]),
        why: "the node runs on cgroup v1 as well",
    },
    KubeletField {
        name: "userNamespaces",
        kind: Kind::Object,
        fate: Fate::Same(&[]),
        why: "pods have no user namespaces of their own",
    },
];
