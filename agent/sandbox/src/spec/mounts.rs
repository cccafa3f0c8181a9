//! The file systems every container has, and the paths hidden in them.

/// A mount of the runtime specification, before it becomes one.
pub(super) struct SystemMount {
    pub(super) destination: &'static str,
    pub(super) kind: &'static str,
    pub(super) options: &'static [&'static str],
}

const fn mount(
    destination: &'static str,
    kind: &'static str,
    options: &'static [&'static str],
) -> SystemMount {
    SystemMount { destination, kind, options }
}

/// In the order of mounting. The same as under containerd, so that programs find what they expect.
pub(super) const SYSTEM: [SystemMount; 5] = [
    mount("/proc", "proc", &["nosuid", "noexec", "nodev"]),
    mount("/dev", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
    mount("/dev/pts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
    mount("/dev/mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
    mount("/sys", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
];

/// What holds the mounts of a host with several cgroup hierarchies.
pub(super) const CGROUP_DIRECTORY: SystemMount =
    mount("/sys/fs/cgroup", "tmpfs", &["nosuid", "noexec", "nodev", "mode=755", "size=64k"]);

/// How every cgroup file system is mounted.
pub(super) const CGROUP_OPTIONS: [&str; 5] = ["nosuid", "noexec", "nodev", "relatime", "ro"];

/// The pod's or the host's, which is what it was made to be.
pub(super) const SHM: SystemMount = mount("/dev/shm", "bind", &[]);

/// Hidden: they tell of, or reach, the host.
pub(super) const MASKED: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

/// Not to be written.
pub(super) const READ_ONLY: [&str; 5] =
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];
