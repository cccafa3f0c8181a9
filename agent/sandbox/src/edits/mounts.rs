//! Files and directories of the host, as detached mounts.

use std::os::fd::OwnedFd;
use std::path::Path;

use coracle_linux::{MountAttributes, mount_setattr, open_to_mount};
use coracle_model::EditMount;
use rustix::fs::{FileType, ResolveFlags, fstat};
use rustix::mount::{MountPropagationFlags, OpenTreeFlags, open_tree};

use super::{check_path, refuse};
use crate::error::{Error, file};

const EDIT: &str = "mount";

/// What may be mounted on in /proc (as under runc): files that tell of the machine, which lxcfs and the like replace.
const IN_PROC: [&str; 11] = [
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/loadavg",
    "/proc/meminfo",
    "/proc/net/dev",
    "/proc/slabinfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/sys/crypto/fips_enabled",
    "/proc/sys/kernel/ns_last_pid",
    "/proc/uptime",
];

/// A mount that is ready to be passed to init.
#[derive(Debug)]
pub(crate) struct PreparedMount {
    pub(crate) destination: String,
    pub(crate) kind: String,
    /// Of the host; of another file system, what it is made of.
    pub(crate) source: String,
    pub(crate) options: Vec<String>,
    /// The detached mount; none where init makes the file system.
    pub(crate) mount: Option<OwnedFd>,
}

pub(super) fn prepare(mount: &EditMount) -> Result<PreparedMount, Error> {
    check_destination(&mount.container_path)?;
    let is_bind = matches!(mount.fs_type.as_str(), "" | "none" | "bind")
        || mount.options.iter().any(|option| option == "bind" || option == "rbind");
    let (kind, detached) = match is_bind {
        true => ("bind", Some(detach(mount)?)),
        false => (mount.fs_type.as_str(), None),
    };
    Ok(PreparedMount {
        destination: mount.container_path.clone(),
        kind: kind.to_owned(),
        source: mount.host_path.clone(),
        options: mount.options.clone(),
        mount: detached,
    })
}

/// Refuses what would give a container another root or a forged /proc.
fn check_destination(path: &str) -> Result<(), Error> {
    check_path(EDIT, path)?;
    let destination = Path::new(path);
    if destination == Path::new("/") {
        return Err(refuse(EDIT, path, "the root itself cannot be mounted over"));
    }
    let in_proc = destination.starts_with("/proc");
    if in_proc && !IN_PROC.iter().any(|known| destination == Path::new(known)) {
        let why = format!("in /proc only these can be mounted on: {}", IN_PROC.join(", "));
        return Err(refuse(EDIT, path, why));
    }
    Ok(())
}

/// A detached copy of the host's mount. Options are set by init.
fn detach(mount: &EditMount) -> Result<OwnedFd, Error> {
    let path = &mount.host_path;
    check_path(EDIT, path)?;
    let failed = |step: &'static str| move |errno: rustix::io::Errno| file(step, path)(errno.into());
    // A link of the host may lead anywhere on it, but not to what some process has open.
    let source = open_to_mount(Path::new(path), ResolveFlags::NO_MAGICLINKS)
        .map_err(failed("open, to mount it into a container,"))?;
    let stat = fstat(&source).map_err(failed("look at"))?;
    let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
    // `bind` alone leaves out what is mounted beneath; nothing said is what Kubernetes' mounts are.
    let has = |word: &str| mount.options.iter().any(|option| option == word);
    let recursive = is_directory && (has("rbind") || !has("bind"));
    let mut flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    let detached = open_tree(&source, "", flags).map_err(failed("clone the mount of"))?;
    if !mount.options.iter().any(|option| is_propagation(option)) {
        let private = MountAttributes {
            propagation: Some(MountPropagationFlags::PRIVATE),
            recursive,
            ..Default::default()
        };
        mount_setattr(&detached, private).map_err(failed("set the propagation of"))?;
    }
    Ok(detached)
}

fn is_propagation(option: &str) -> bool {
    let word = option.strip_prefix('r').unwrap_or(option);
    matches!(word, "private" | "shared" | "slave" | "unbindable")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(host: &str, container: &str, options: &[&str]) -> EditMount {
        EditMount {
            host_path: host.to_owned(),
            container_path: container.to_owned(),
            fs_type: String::new(),
            options: options.iter().map(|option| (*option).to_owned()).collect(),
        }
    }

    #[test]
    fn nothing_is_mounted_where_a_container_could_be_deceived() {
        for bad in ["/", "//", "/proc", "/proc/", "/proc/self/attr", "/proc/sys", "/usr/../proc", "relative"]
        {
            assert!(prepare(&mount("/etc", bad, &[])).is_err(), "{bad}");
        }
        for fine in ["/proc/cpuinfo", "/usr/lib/x", "/procfs"] {
            check_destination(fine).unwrap();
        }
    }

    #[test]
    fn a_source_that_is_not_there_is_named() {
        let error = prepare(&mount("/there/is/no/such.so", "/lib/x.so", &["ro"])).unwrap_err();
        assert!(error.to_string().contains("/there/is/no/such.so"), "{error}");
    }

    #[test]
    fn another_file_system_is_inits_to_make() {
        let tmpfs = EditMount { fs_type: "tmpfs".to_owned(), ..mount("tmpfs", "/scratch", &["size=1m"]) };
        let prepared = prepare(&tmpfs).unwrap();
        assert_eq!((prepared.kind.as_str(), prepared.mount.is_none()), ("tmpfs", true));
    }

    #[test]
    fn propagation_is_told_from_other_options() {
        for option in ["rslave", "private", "rshared", "unbindable"] {
            assert!(is_propagation(option), "{option}");
        }
        for option in ["ro", "rbind", "rprivateer", "nosuid"] {
            assert!(!is_propagation(option), "{option}");
        }
    }
}
