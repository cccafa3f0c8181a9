//! The container's /dev: standard nodes and links, and the devices the specification lists, some of them elsewhere.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, Dev, FileType, Mode, OFlags, Stat, chownat, fstat, major, makedev, minor, mknodat, openat,
    symlinkat, unlinkat,
};
use rustix::io::Errno;

use crate::failure::{Context, Result, Step};
use crate::mounts::{attach_at, copy};
use crate::plan::DevicePlan;
use crate::root::{Kind, Links, Root};

/// Nodes every container has (OCI runtime specification, Linux, default devices).
const NODES: [(&str, u32, u32); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];

/// Links every container has (the same, dev symbolic links), and ptmx of its own devpts.
const LINKS: [(&str, &str); 6] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("core", "/proc/kcore"),
    ("ptmx", "pts/ptmx"),
];

/// As what a node that belongs elsewhere is in /dev for a moment.
const ELSEWHERE: &str = "elsewhere";

/// A device node of the host, to be mounted where this host does not let us make one.
#[derive(Debug)]
pub(crate) struct Substitute {
    path: PathBuf,
    mount: OwnedFd,
}

impl Substitute {
    /// Puts it into the /dev that is attached at `dev`.
    pub(crate) fn attach(&self, root: &Root, dev: &Path) -> Result<()> {
        let path = dev.join(&self.path);
        let target = root.ensure(&path, Kind::File, Links::Refuse).on(
            Step::Device,
            &path,
            "preparing the mount point",
        )?;
        attach_at(&self.mount, &target).on(Step::Device, &path, "attaching the host's node")
    }
}

/// What was put into a /dev.
#[derive(Debug, Default)]
pub(crate) struct Nodes {
    /// Still to be attached, when /dev is.
    pub(crate) substitutes: Vec<Substitute>,
    /// Its null device, certainly that, unless it is a substitute.
    pub(crate) null: Option<OwnedFd>,
    /// Still to be made, when all is attached.
    pub(crate) elsewhere: Vec<DevicePlan>,
}

/// Fills a detached tmpfs. Nobody else can reach it yet, so what is made in it is what was asked for.
pub(crate) fn populate(dev: &OwnedFd, listed: &[DevicePlan]) -> Result<Nodes> {
    let root = Root::new(dev.try_clone().map_err(|_| Errno::MFILE).at(Step::Device, "opening /dev")?)
        .at(Step::Device, "looking at /dev")?;
    for (name, target) in LINKS {
        symlinkat(target, dev, name).on(Step::Device, &Path::new("/dev").join(name), "linking")?;
    }
    let mut substitutes = Vec::new();
    let standard = NODES
        .iter()
        .map(|&(name, major, minor)| standard(name, major, minor))
        .filter(|node| listed.iter().all(|device| device.path != node.path));
    // A listed /dev/ptmx would be the host's; the container has its own.
    let own = |node: &DevicePlan| LINKS.iter().any(|(name, _)| node.path == *Path::new(name));
    let (elsewhere, listed): (Vec<_>, Vec<_>) =
        listed.iter().filter(|node| !own(node)).cloned().partition(|node| node.path.is_absolute());
    for node in standard.chain(listed) {
        substitutes.extend(make(&root, dev, &node)?);
    }
    let null = match root.open(Path::new("null"), OFlags::PATH | OFlags::NOFOLLOW, Links::Refuse) {
        Err(Errno::NOENT) => None,
        result => Some(result.on(Step::Device, Path::new("/dev/null"), "opening")?),
    };
    let null = match null {
        Some(null) if is_null(&null)? => Some(null),
        _ => None,
    };
    Ok(Nodes { substitutes, null, elsewhere })
}

/// Makes nodes that belong elsewhere in the /dev that is attached, which nobody looks into yet, and mounts them where they
/// belong: images and volumes hold no device that outlives the container.
pub(crate) fn attach_elsewhere(root: &Root, dev: &OwnedFd, nodes: &[DevicePlan]) -> Result<()> {
    for node in nodes {
        let path = &node.path;
        let is_made = mknod(dev, Path::new(ELSEWHERE), node, path)?;
        let mount = if is_made {
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let made = openat(dev, ELSEWHERE, flags, Mode::empty()).on(Step::Device, path, "opening")?;
            copy(&made, false).on(Step::Device, path, "copying")?
        } else {
            substitute(node, path)?.mount
        };
        let target = root.ensure(path, Kind::File, Links::Follow).on(
            Step::Device,
            path,
            "preparing the mount point",
        )?;
        attach_at(&mount, &target).on(Step::Device, path, "attaching")?;
        // Not before: what has no name cannot be attached.
        if is_made {
            unlinkat(dev, ELSEWHERE, AtFlags::empty()).on(Step::Device, path, "taking it out of /dev")?;
        }
    }
    Ok(())
}

fn standard(name: &str, major: u32, minor: u32) -> DevicePlan {
    DevicePlan {
        path: PathBuf::from(name),
        kind: FileType::CharacterDevice,
        major,
        minor,
        mode: Mode::from_raw_mode(0o666),
        owner: None,
        group: None,
    }
}

/// Makes a node in /dev. Where that is not permitted, the host's is used.
fn make(root: &Root, dev: &OwnedFd, node: &DevicePlan) -> Result<Option<Substitute>> {
    let shown = Path::new("/dev").join(&node.path);
    if let Some(parent) = node.path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        root.ensure(parent, Kind::Directory, Links::Refuse).on(
            Step::Device,
            &shown,
            "making its directory",
        )?;
    }
    match mknod(dev, &node.path, node, &shown)? {
        true => Ok(None),
        false => substitute(node, &shown).map(Some),
    }
}

/// Makes a node of this name. False, where mknod(2) is not permitted: no CAP_MKNOD, a user namespace, a device cgroup.
fn mknod(dev: &OwnedFd, name: &Path, node: &DevicePlan, shown: &Path) -> Result<bool> {
    match mknodat(dev, name, node.kind, node.mode, makedev(node.major, node.minor)) {
        Err(Errno::PERM) if node.kind != FileType::Fifo => return Ok(false),
        result => result.on(Step::Device, shown, "making the node")?,
    }
    if node.owner.is_some() || node.group.is_some() {
        chownat(dev, name, node.owner, node.group, AtFlags::SYMLINK_NOFOLLOW).on(
            Step::Device,
            shown,
            "setting its owner",
        )?;
    }
    Ok(true)
}

fn substitute(node: &DevicePlan, shown: &Path) -> Result<Substitute> {
    let host = open_host_node(shown).on(Step::Device, shown, "opening the host's node")?;
    let stat = fstat(&host).on(Step::Device, shown, "looking at the host's node")?;
    if !is_device(&stat, node.kind, makedev(node.major, node.minor)) {
        return Err(Step::Device.refuse(
            Some(shown),
            format_args!(
                "no node may be made here, and the host's is device {}:{}, not {}:{}",
                major(stat.st_rdev),
                minor(stat.st_rdev),
                node.major,
                node.minor
            ),
        ));
    }
    let mount = copy(&host, false).on(Step::Device, shown, "copying the host's node")?;
    Ok(Substitute { path: node.path.clone(), mount })
}

/// The null device of the host as a detached mount, for a container that has no /dev of its own.
pub(crate) fn host_null() -> Result<OwnedFd> {
    let path = Path::new("/dev/null");
    let host = open_host_node(path).on(Step::MaskedPath, path, "opening the host's null device")?;
    if !is_null(&host)? {
        return Err(Step::MaskedPath.refuse(Some(path), "the host's is not the null device"));
    }
    copy(&host, false).on(Step::MaskedPath, path, "copying the host's null device")
}

fn open_host_node(path: &Path) -> std::result::Result<OwnedFd, Errno> {
    openat(CWD, path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

/// Whether it is the null device (CVE-2025-31133: a link in its place would be masked with).
fn is_null(node: &OwnedFd) -> Result<bool> {
    let stat = fstat(node).on(Step::Device, Path::new("/dev/null"), "looking at it")?;
    Ok(is_null_device(&stat))
}

pub(crate) fn is_null_device(stat: &Stat) -> bool {
    is_device(stat, FileType::CharacterDevice, makedev(1, 3))
}

fn is_device(stat: &Stat, kind: FileType, device: Dev) -> bool {
    FileType::from_raw_mode(stat.st_mode) == kind && stat.st_rdev == device
}
