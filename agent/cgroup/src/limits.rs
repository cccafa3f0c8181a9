//! What the kernel is told, computed from what a pod asks for, as the kubelet does it.
//!
//! Pure functions: `pkg/kubelet/cm/helpers_linux.go` and `kuberuntime_container_linux.go` are where
//! the kubelet has the same rules.

use coracle_model::{Container, PodSpec, QosClass, Quantity, qos_class};

/// The bandwidth period in microseconds; the kubelet's `cpuCFSQuotaPeriod` default.
pub const CPU_PERIOD_US: u64 = 100_000;
/// The smallest quota the kernel takes, in microseconds.
pub const MIN_CPU_QUOTA_US: u64 = 1_000;
/// The smallest `cpu.shares`, what a pod that asks for nothing gets.
pub const MIN_CPU_SHARES: u64 = 2;
/// The largest `cpu.shares`.
pub const MAX_CPU_SHARES: u64 = 262_144;

/// The limits of one cgroup. `None` leaves the kernel's default, which is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// `cpu.shares`, 2 to 262144; [`cpu_weight`] gives what cgroup v2 is told.
    pub cpu_shares: Option<u64>,
    /// Microseconds of CPU time per [`CPU_PERIOD_US`].
    pub cpu_quota_us: Option<u64>,
    /// Bytes of memory, page cache included.
    pub memory: Option<u64>,
    /// Tasks: threads count.
    pub pids: Option<u64>,
}

/// The limits of a container's own cgroup.
pub fn container_limits(container: &Container) -> Limits {
    let (requests, limits) = (&container.resources.requests, &container.resources.limits);
    // A request that is missing equals its limit; one that is zero is the user's wish.
    let cpu_request = requests.cpu.or(limits.cpu).map_or(0, Quantity::milli);
    Limits {
        cpu_shares: Some(cpu_shares(cpu_request)),
        cpu_quota_us: cpu_quota_us(limits.cpu.map_or(0, Quantity::milli)),
        memory: bytes(limits.memory),
        pids: None,
    }
}

/// The limits of a pod's cgroup: what its containers may use together ([`PodSpec::limit`]). `pids` is the node's
/// `podPidsLimit`.
pub fn pod_limits(spec: &PodSpec, pids: Option<u64>) -> Limits {
    if qos_class(spec) == QosClass::BestEffort {
        return Limits { cpu_shares: Some(MIN_CPU_SHARES), pids, ..Limits::default() };
    }
    Limits {
        cpu_shares: Some(cpu_shares(pod_cpu_request(spec))),
        cpu_quota_us: spec.limit(|list| list.cpu.map_or(0, Quantity::milli)).and_then(cpu_quota_us),
        memory: spec.memory_limit(),
        pids,
    }
}

/// The CPU request of a pod as a whole ([`PodSpec::effective`]), in thousandths of a CPU.
pub fn pod_cpu_request(spec: &PodSpec) -> u64 {
    spec.effective(|c| c.resources.requests.cpu.or(c.resources.limits.cpu).map_or(0, Quantity::milli))
}

/// `cpu.shares` for a request in thousandths of a CPU: 1024 for one CPU, within the kernel's bounds.
pub fn cpu_shares(milli_cpu: u64) -> u64 {
    (milli_cpu.saturating_mul(1024) / 1000).clamp(MIN_CPU_SHARES, MAX_CPU_SHARES)
}

/// The quota in microseconds per period for a limit in thousandths of a CPU; none for no limit.
pub fn cpu_quota_us(milli_cpu: u64) -> Option<u64> {
    (milli_cpu > 0).then(|| (milli_cpu.saturating_mul(CPU_PERIOD_US) / 1000).max(MIN_CPU_QUOTA_US))
}

/// `cpu.weight` (1 to 10000) for `cpu.shares` (2 to 262144).
///
/// The quadratic of runc 1.3.2 and crun 1.23 on, which maps both ends and the default, 1024 to 100; the
/// linear formula before it gave one CPU a weight of 39 against the 100 of every system service.
pub fn cpu_weight(shares: u64) -> u64 {
    if shares <= MIN_CPU_SHARES {
        return 1;
    }
    if shares >= MAX_CPU_SHARES {
        return 10_000;
    }
    // Below 2^18 the conversion to f64 is exact.
    let l = (shares as f64).log2();
    let exponent = (l * l + 125.0 * l) / 612.0 - 7.0 / 34.0;
    10_f64.powf(exponent).ceil().clamp(1.0, 10_000.0) as u64
}

fn bytes(amount: Option<Quantity>) -> Option<u64> {
    amount.map(Quantity::units).filter(|bytes| *bytes > 0)
}

#[cfg(test)]
mod tests;
