//! What the host allows: privileges, limits, security modules, cgroups.

use std::fs;
use std::path::Path;

use coracle_cgroup::Mode;
use rustix::process::{Resource, geteuid, getrlimit};

use super::Finding;
use crate::config::{CgroupDriver, Config};

/// Where the system's D-Bus is (the D-Bus specification, "Well-known Message Bus Instances").
const BUS: &str = "/run/dbus/system_bus_socket";

/// Capabilities the agent cannot do without, by number (linux/capability.h).
const ESSENTIAL: [(u32, &str); 10] = [
    (0, "CHOWN"),
    (1, "DAC_OVERRIDE"),
    (3, "FOWNER"),
    (5, "KILL"),
    (6, "SETGID"),
    (7, "SETUID"),
    (8, "SETPCAP"),
    (12, "NET_ADMIN"),
    (21, "SYS_ADMIN"),
    (27, "MKNOD"),
];

/// Capabilities whose lack is felt in one thing each.
const USEFUL: [(u32, &str, &str); 8] = [
    (2, "DAC_READ_SEARCH", "containers cannot be given it"),
    (4, "FSETID", "containers lack one of their default capabilities"),
    (10, "NET_BIND_SERVICE", "containers lack one of their default capabilities"),
    (13, "NET_RAW", "containers lack one of their default capabilities"),
    (18, "SYS_CHROOT", "containers lack one of their default capabilities"),
    (
        24,
        "SYS_RESOURCE",
        "a negative oom_score_adj is refused, so the kernel may kill pause for want of memory, and limits \
         cannot be raised above the agent's own",
    ),
    (29, "AUDIT_WRITE", "containers lack one of their default capabilities"),
    (
        31,
        "SETFCAP",
        "containers lack one of their default capabilities, and images' file capabilities are lost",
    ),
];

const DESCRIPTORS: u64 = 65_536;
const INOTIFY_INSTANCES: u64 = 128;

pub(super) fn check() -> Vec<Finding> {
    let mut findings = vec![root()];
    findings.extend(capabilities());
    findings.extend([descriptors(), inotify(), security_module()]);
    findings
}

/// What the cgroup hierarchies lack, and whether the driver can make cgroups in them.
pub(super) fn cgroups(config: &Config) -> Vec<Finding> {
    let host = match coracle_cgroup::Host::detect() {
        Ok(host) => host,
        Err(error) => {
            let remedy = "mount cgroup2 on /sys/fs/cgroup; inside a container, run it privileged with a cgroup namespace";
            return vec![Finding::missing("cgroups", error.to_string(), remedy)];
        }
    };
    let mode = match host.mode() {
        Mode::Unified => "v2 (unified)",
        Mode::Hybrid => "v1 with a v2 tree beside (hybrid)",
        Mode::Legacy => "v1 only",
    };
    let weak = host.missing();
    let mut findings = vec![Finding::ok("cgroups", mode)];
    findings.extend(
        weak.iter().map(|weak| Finding::weaker("cgroups", weak.lacks.as_str(), &weak.effect, &weak.remedy)),
    );
    // sd_booted(3).
    let booted = Path::new("/run/systemd/system").is_dir();
    let bus = std::env::var_os("DBUS_SYSTEM_BUS_ADDRESS").is_some() || Path::new(BUS).exists();
    findings.push(driver(config.cgroup_driver, host.mode(), booted, bus));
    findings
}

/// Who makes the pods' cgroups; `booted` by systemd, with a `bus`.
fn driver(driver: CgroupDriver, mode: Mode, booted: bool, bus: bool) -> Finding {
    let name = "cgroup driver";
    let usable = mode == Mode::Unified && booted && bus;
    let lack = match (booted, bus, mode) {
        (false, ..) => "systemd is not PID 1 here".to_owned(),
        (_, false, _) => format!("the system's D-Bus is not at {BUS}"),
        _ => "controllers are on cgroup v1".to_owned(),
    };
    match driver {
        CgroupDriver::Cgroupfs if usable => Finding::ok(name, "cgroupfs; systemd would do as well"),
        CgroupDriver::Cgroupfs => Finding::ok(name, "cgroupfs"),
        CgroupDriver::Systemd if usable => Finding::ok(name, "systemd"),
        CgroupDriver::Systemd => Finding::missing(
            name,
            format!("systemd, and {lack}"),
            "set cgroupDriver to cgroupfs, which needs no systemd; or boot with systemd as PID 1, dbus, and cgroup v2 \
             alone (systemd.unified_cgroup_hierarchy=1)",
        ),
    }
}

fn root() -> Finding {
    let uid = geteuid().as_raw();
    match uid {
        0 => Finding::ok("user", "root"),
        _ => Finding::missing("user", format!("uid {uid}"), "run as root: sudo coracle check"),
    }
}

fn capabilities() -> Vec<Finding> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    capabilities_in(&status)
}

fn capabilities_in(status: &str) -> Vec<Finding> {
    let mask = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let held = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    let lacks = |number: u32| held & (1 << number) == 0;
    let absent: Vec<_> =
        ESSENTIAL.into_iter().filter(|(number, _)| lacks(*number)).map(|(_, name)| name).collect();
    let remedy = "run the agent as root outside any container, or in a container with --privileged";
    let mut findings = vec![if absent.is_empty() {
        Finding::ok("capabilities", "all that are needed")
    } else {
        Finding::missing("capabilities", format!("without {}", absent.join(", ")), remedy)
    }];
    let weaker = USEFUL.into_iter().filter(|(number, ..)| lacks(*number));
    findings.extend(
        weaker.map(|(_, name, effect)| {
            Finding::weaker(&format!("capability {name}"), "not held", effect, remedy)
        }),
    );
    findings
}

fn descriptors() -> Finding {
    let name = "open files";
    let limit = getrlimit(Resource::Nofile).maximum;
    match limit {
        Some(limit) if limit < DESCRIPTORS => Finding::weaker(
            name,
            format!("at most {limit}"),
            "the agent holds some descriptors of every container, and containers inherit the limit",
            "start the agent with LimitNOFILE=1048576 (systemd) or ulimit -Hn 1048576",
        ),
        Some(limit) => Finding::ok(name, format!("at most {limit}")),
        None => Finding::ok(name, "without limit"),
    }
}

fn inotify() -> Finding {
    let name = "inotify";
    let read = |file: &str| -> Option<u64> {
        fs::read_to_string(Path::new("/proc/sys/fs/inotify").join(file)).ok()?.trim().parse().ok()
    };
    match (read("max_user_instances"), read("max_user_watches")) {
        (Some(instances), Some(watches)) if instances >= INOTIFY_INSTANCES => {
            Finding::ok(name, format!("{instances} instances, {watches} watches"))
        }
        (Some(instances), _) => Finding::weaker(
            name,
            format!("{instances} instances"),
            "few clients can follow logs at once; programs of containers that watch files share the limit",
            "sysctl fs.inotify.max_user_instances=1024",
        ),
        (None, _) => Finding::missing(
            name,
            "the kernel does not have it",
            "boot a kernel built with CONFIG_INOTIFY_USER",
        ),
    }
}

fn security_module() -> Finding {
    let name = "security module";
    let apparmor = fs::read_to_string("/sys/module/apparmor/parameters/enabled");
    if apparmor.is_ok_and(|enabled| enabled.trim() == "Y") {
        return Finding::ok(name, "AppArmor");
    }
    if Path::new("/sys/fs/selinux/enforce").exists() {
        return Finding::ok(name, "SELinux");
    }
    Finding::weaker(
        name,
        "neither AppArmor nor SELinux",
        "containers are held by namespaces, capabilities and seccomp alone",
        "boot with lsm=...,apparmor on a kernel that has it",
    )
}

#[cfg(test)]
mod tests {
    use super::super::Severity;
    use super::*;

    #[test]
    fn the_driver_systemd_wants_systemd_its_bus_and_cgroup_v2() {
        let severity = |driver_, mode, booted, bus| driver(driver_, mode, booted, bus).severity;
        let systemd = CgroupDriver::Systemd;
        assert_eq!(severity(systemd, Mode::Unified, true, true), Severity::Ok);
        for (mode, booted, bus) in
            [(Mode::Hybrid, true, true), (Mode::Unified, false, true), (Mode::Unified, true, false)]
        {
            assert_eq!(severity(systemd, mode, booted, bus), Severity::Missing);
            assert_eq!(severity(CgroupDriver::Cgroupfs, mode, booted, bus), Severity::Ok);
        }
    }

    #[test]
    fn capabilities_are_told_apart_by_what_their_lack_costs() {
        let all = capabilities_in("Name:\tx\nCapEff:\t000001ffffffffff\n");
        assert!(all.iter().all(|finding| finding.severity == Severity::Ok), "{all:?}");
        let without_resource =
            capabilities_in(&format!("CapEff:\t{:016x}\n", 0x1ff_ffff_ffffu64 & !(1 << 24)));
        let weaker: Vec<_> = without_resource.iter().filter(|it| it.severity == Severity::Weaker).collect();
        assert_eq!(weaker.len(), 1);
        assert!(
            weaker[0].name.contains("SYS_RESOURCE")
                && weaker[0].effect.as_ref().unwrap().contains("oom_score_adj")
        );
        let none = capabilities_in("");
        assert_eq!(none[0].severity, Severity::Missing);
        assert!(none[0].found.contains("SYS_ADMIN"));
    }
}
