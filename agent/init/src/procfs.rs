//! A procfs of our own, mounted nowhere.
//!
//! What is written through it cannot be redirected by anything mounted over the container's /proc
//! (CVE-2025-52881).

use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};

use crate::failure::{Context, Result, Step, describe};

/// Sysctls that belong to a namespace of the container; the others are the host's.
const NAMESPACED: [&str; 8] = [
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "kernel.shm_rmid_forced",
];

#[derive(Debug)]
pub(crate) struct PrivateProc {
    root: OwnedFd,
}

impl PrivateProc {
    pub(crate) fn open() -> Result<Self> {
        let context = fsopen("proc", FsOpenFlags::FSOPEN_CLOEXEC).at(Step::PrivateProc, "opening")?;
        fsconfig_create(&context).at(Step::PrivateProc, "creating")?;
        let flags = MountAttrFlags::MOUNT_ATTR_NOSUID
            | MountAttrFlags::MOUNT_ATTR_NODEV
            | MountAttrFlags::MOUNT_ATTR_NOEXEC;
        let root =
            fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, flags).at(Step::PrivateProc, "mounting")?;
        Ok(Self { root })
    }

    /// Sets how willing the kernel is to kill this process. A host that does not let us lower it
    /// (CAP_SYS_RESOURCE) makes a warning.
    pub(crate) fn set_oom_score_adj(&self, score: i32) -> Result<Option<String>> {
        match self.write("self/oom_score_adj", score.to_string().as_bytes()) {
            Err(errno @ (Errno::ACCESS | Errno::PERM)) => {
                Ok(Some(format!("oom_score_adj: this host does not grant {score}: {}", describe(errno))))
            }
            result => {
                result.at(Step::OomScoreAdj, &format!("setting {score}"))?;
                Ok(None)
            }
        }
    }

    /// Sets a sysctl of a namespace of the container.
    pub(crate) fn set_sysctl(&self, name: &str, value: &str) -> Result<()> {
        let namespaced =
            NAMESPACED.contains(&name) || name.starts_with("net.") || name.starts_with("fs.mqueue.");
        let clean = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-/".contains(&byte))
            && value.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ' || byte == b'\t');
        if !namespaced || !clean {
            return Err(
                Step::Sysctl.refuse(None, format_args!("{name}: belongs to no namespace of a container"))
            );
        }
        let path = format!("sys/{}", to_path(name));
        self.write(&path, value.as_bytes()).on(Step::Sysctl, Path::new(&format!("/proc/{path}")), "writing")
    }

    /// Has the next execve confined by an AppArmor profile.
    pub(crate) fn set_apparmor(&self, profile: &str) -> Result<()> {
        match self.write("thread-self/attr/apparmor/exec", format!("exec {profile}").as_bytes()) {
            Err(Errno::NOENT) if profile == "unconfined" => Ok(()),
            Err(Errno::NOENT) => Err(Step::SecurityLabel.refuse(
                None,
                format_args!(
                    "AppArmor profile {profile:?} was asked for, but this host's kernel runs no AppArmor"
                ),
            )),
            result => result.at(Step::SecurityLabel, &format!("AppArmor profile {profile:?}")),
        }
    }

    /// Has the next execve run under an SELinux label.
    pub(crate) fn set_selinux(&self, label: &str) -> Result<()> {
        match self.write("thread-self/attr/exec", label.as_bytes()) {
            // Without an LSM that has such labels the file is missing, or its write is refused.
            Err(Errno::NOENT | Errno::INVAL | Errno::OPNOTSUPP) => Err(Step::SecurityLabel
                .refuse(None, format_args!("SELinux label {label:?} was asked for, but this host's kernel does not take it; is SELinux enabled?"))),
            result => result.at(Step::SecurityLabel, &format!("SELinux label {label:?}")),
        }
    }

    fn write(&self, path: &str, bytes: &[u8]) -> std::result::Result<(), Errno> {
        // Links are followed only where they are procfs' own ("self"): nothing is mounted on this instance,
        // and no path leads out of it.
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
        let file = openat2(&self.root, path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty(), resolve)?;
        // One write is one value to the kernel.
        rustix::io::write(&file, bytes).map(drop)
    }
}

/// A sysctl's name with dots for slashes; a name that has slashes keeps its dots (`net/ipv4/conf/eth0.1`).
fn to_path(name: &str) -> String {
    match name.find(['.', '/']) {
        Some(first) if name.as_bytes().get(first) == Some(&b'/') => name.to_owned(),
        _ => name.replace('/', "\0").replace('.', "/").replace('\0', "."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_sysctls_become_paths() {
        assert_eq!(to_path("net.ipv4.ip_forward"), "net/ipv4/ip_forward");
        assert_eq!(to_path("net.ipv4.conf.eth0/1.forwarding"), "net/ipv4/conf/eth0.1/forwarding");
        assert_eq!(to_path("net/ipv4/conf/eth0.1"), "net/ipv4/conf/eth0.1");
    }
}
