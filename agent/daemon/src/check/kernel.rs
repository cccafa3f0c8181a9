//! What the kernel offers, found by using it.

use std::fs;
use std::io;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, OpenTreeFlags, fsconfig_create, fsmount, fsopen, open_tree,
};
use rustix::process::{PidfdFlags, getpid, pidfd_open};

use super::Finding;

const NEWER: &str = "boot a newer kernel: 5.14 or later has all that is needed";

pub(super) fn check() -> Vec<Finding> {
    let uname = rustix::system::uname();
    let release = format!("{} {}", uname.sysname().to_string_lossy(), uname.release().to_string_lossy());
    let mut findings = vec![Finding::ok("kernel", release)];
    findings.extend([namespaces(), user_namespaces(), paths(), processes(), mounts(), seccomp()]);
    findings
}

fn namespaces() -> Finding {
    let kinds = ["mnt", "pid", "net", "ipc", "uts", "cgroup"];
    let absent: Vec<_> =
        kinds.into_iter().filter(|kind| !Path::new("/proc/self/ns").join(kind).exists()).collect();
    if absent.is_empty() {
        Finding::ok("namespaces", kinds.join(", "))
    } else {
        let found = format!("the kernel has none of: {}", absent.join(", "));
        Finding::missing("namespaces", found, "boot a kernel built with CONFIG_NAMESPACES and each of them")
    }
}

fn user_namespaces() -> Finding {
    let limit = fs::read_to_string("/proc/sys/user/max_user_namespaces");
    match limit.ok().and_then(|text| text.trim().parse::<u64>().ok()) {
        Some(limit @ 1..) => Finding::ok("user namespaces", format!("up to {limit}")),
        _ => Finding::weaker(
            "user namespaces",
            "none",
            "pods with hostUsers: false cannot run",
            "set the sysctl user.max_user_namespaces, on a kernel built with CONFIG_USER_NS",
        ),
    }
}

fn paths() -> Finding {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    match openat2(CWD, "/", flags, Mode::empty(), ResolveFlags::IN_ROOT) {
        Ok(_) => Finding::ok("openat2", "paths of containers are resolved beneath their root"),
        Err(errno) => Finding::missing("openat2", io::Error::from(errno).to_string(), NEWER),
    }
}

fn processes() -> Finding {
    match pidfd_open(getpid(), PidfdFlags::empty()) {
        Ok(_) => Finding::ok("pidfd", "processes are held by descriptor"),
        Err(errno) => Finding::missing("pidfd", io::Error::from(errno).to_string(), NEWER),
    }
}

fn mounts() -> Finding {
    let tried = || {
        let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
        fsconfig_create(&context)?;
        let flags = MountAttrFlags::empty();
        let mount = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, flags)?;
        let attributes = coracle_linux::MountAttributes::default();
        coracle_linux::mount_setattr(&mount, attributes)?;
        open_tree(CWD, "/", OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC)
    };
    match tried() {
        Ok(_) => Finding::ok("mounts by descriptor", "fsopen, fsmount, open_tree, mount_setattr"),
        Err(rustix::io::Errno::PERM) => Finding::missing(
            "mounts by descriptor",
            "Operation not permitted",
            "run as root with CAP_SYS_ADMIN; inside a container, as a privileged one",
        ),
        Err(errno) => Finding::missing("mounts by descriptor", io::Error::from(errno).to_string(), NEWER),
    }
}

fn seccomp() -> Finding {
    match fs::read_to_string("/proc/sys/kernel/seccomp/actions_avail") {
        Ok(actions) if actions.split_whitespace().any(|action| action == "errno") => {
            Finding::ok("seccomp", actions.trim())
        }
        _ => Finding::missing(
            "seccomp",
            "the kernel has no system call filter",
            "boot a kernel built with CONFIG_SECCOMP_FILTER",
        ),
    }
}
