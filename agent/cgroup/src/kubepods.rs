//! The node's subtree, `<parent>/kubepods`, and its QoS classes.

use std::collections::BTreeSet;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use coracle_model::{PodUid, QosClass};

use crate::group::Role;
use crate::limits::{MIN_CPU_SHARES, cpu_shares};
use crate::{Cgroup, Error, Host, Limits, PodCgroup, files};

/// `<parent>/kubepods`: where every pod of the node has its cgroup.
///
/// Guaranteed pods lie directly in it, the others in `burstable` and `besteffort`, whose shares bound
/// what such pods get together while the CPUs are contended.
#[derive(Clone, Debug)]
pub struct Kubepods {
    host: Arc<Host>,
    path: PathBuf,
}

impl Kubepods {
    /// The subtree below `parent`, a path from the root of the hierarchies (`/` is the usual one).
    ///
    /// # Errors
    /// When `parent` holds `..`.
    pub fn new(host: Arc<Host>, parent: &Path) -> Result<Self, Error> {
        // A leading slash would make `join` forget the mount it is joined to.
        let mut path = PathBuf::new();
        for component in parent.components() {
            match component {
                Component::Normal(name) => path.push(name),
                Component::RootDir | Component::CurDir => {}
                Component::ParentDir | Component::Prefix(_) => return Err(Error::Parent(parent.to_owned())),
            }
        }
        path.push("kubepods");
        Ok(Self { host, path })
    }

    /// Makes the subtree and sets its shares. `allocatable_cpu` is what pods may use of the node, in
    /// thousandths of a CPU.
    ///
    /// # Errors
    /// On the first step that fails.
    pub fn ensure(&self, allocatable_cpu: u64) -> Result<(), Error> {
        self.make_dirs()?;
        let shares = |shares| Limits { cpu_shares: Some(shares), ..Limits::default() };
        self.group(&self.path).make(&shares(cpu_shares(allocatable_cpu)))?;
        self.group(&self.class_path(QosClass::BestEffort)).make(&shares(MIN_CPU_SHARES))
    }

    /// Sets the shares of all burstable pods together. `cpu_requests` is the sum of theirs
    /// ([`crate::limits::pod_cpu_request`]), in thousandths of a CPU.
    ///
    /// # Errors
    /// When the subtree is not there or the kernel refuses.
    pub fn set_burstable_cpu(&self, cpu_requests: u64) -> Result<(), Error> {
        let limits = Limits { cpu_shares: Some(cpu_shares(cpu_requests)), ..Limits::default() };
        self.group(&self.class_path(QosClass::Burstable)).make(&limits)
    }

    /// The cgroup of a pod.
    pub fn pod(&self, class: QosClass, uid: &PodUid) -> PodCgroup {
        let path = self.class_path(class).join(format!("pod{uid}"));
        PodCgroup::new(self.clone(), Cgroup::new(Arc::clone(&self.host), path, Role::Inner))
    }

    /// Every pod that has a directory in any hierarchy. One whose removal was interrupted is among them,
    /// and so is one whose making was.
    ///
    /// # Errors
    /// When a directory cannot be read.
    pub fn list_pods(&self) -> Result<Vec<(QosClass, PodUid)>, Error> {
        let mut pods = BTreeSet::new();
        for class in [QosClass::Guaranteed, QosClass::Burstable, QosClass::BestEffort] {
            for mount in self.host.mounts() {
                for name in subdirs(&mount.join(self.class_path(class)))? {
                    if let Some(uid) = name.strip_prefix("pod").and_then(|uid| uid.parse().ok()) {
                        pods.insert((class, uid));
                    }
                }
            }
        }
        Ok(pods.into_iter().collect())
    }

    /// Removes the subtree, with whatever is left in it, and then the parent where nothing else is in
    /// it. For a private node that ends.
    ///
    /// # Errors
    /// Names every directory that could not be removed. A parent that is in use is not an error.
    pub fn remove(&self) -> Result<(), Error> {
        self.group(&self.path).remove()?;
        for mount in self.host.mounts() {
            let ancestors = self.path.ancestors().skip(1).filter(|path| !path.as_os_str().is_empty());
            for path in ancestors {
                // Fails on one that others use, which is then to stay.
                if rustix::fs::rmdir(mount.join(path)).is_err() {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Relative to the mounts.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The host.
    pub fn host(&self) -> &Arc<Host> {
        &self.host
    }

    /// Makes the directories from the parent down, in every hierarchy used, and hands the controllers
    /// of the v2 tree down to the pods.
    pub(crate) fn make_dirs(&self) -> Result<(), Error> {
        let classes = [QosClass::Burstable, QosClass::BestEffort].map(|class| self.class_path(class));
        let mut paths: Vec<&Path> =
            self.path.ancestors().filter(|path| !path.as_os_str().is_empty()).collect();
        paths.reverse();
        paths.extend(classes.iter().map(PathBuf::as_path));
        for path in &paths {
            self.group(path).make(&Limits::default())?;
        }
        if let Some(mount) = self.host.v2_mount() {
            enable_controllers(&self.host, mount)?;
            for path in &paths {
                enable_controllers(&self.host, &mount.join(path))?;
            }
        }
        Ok(())
    }

    fn class_path(&self, class: QosClass) -> PathBuf {
        match class {
            QosClass::Guaranteed => self.path.clone(),
            QosClass::Burstable => self.path.join("burstable"),
            QosClass::BestEffort => self.path.join("besteffort"),
        }
    }

    fn group(&self, path: &Path) -> Cgroup {
        Cgroup::new(Arc::clone(&self.host), path.to_owned(), Role::Inner)
    }
}

/// Lets the children of a v2 cgroup have the controllers that are used.
///
/// Only what is not enabled yet is written: a write is refused where processes live in the cgroup
/// itself, and on an unprepared host they do.
pub(crate) fn enable_controllers(host: &Host, dir: &Path) -> Result<(), Error> {
    let mut wanted = host.v2_controllers().peekable();
    if wanted.peek().is_none() {
        return Ok(());
    }
    let path = dir.join("cgroup.subtree_control");
    let enabled = files::read(&path)?;
    let missing: Vec<String> = wanted
        .filter(|name| !enabled.split_whitespace().any(|enabled| enabled == *name))
        .map(|name| format!("+{name}"))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let controllers = missing.join(" ");
    files::write(&path, &controllers).map_err(|source| match source.raw_os_error() {
        Some(libc::EBUSY) => Error::InternalProcesses { path: dir.to_owned(), controllers },
        _ => Error::EnableControllers { path, controllers, source },
    })
}

/// The names of the directories in a directory; none when it is not there.
pub(crate) fn subdirs(dir: &Path) -> Result<Vec<String>, Error> {
    let failed = |source: io::Error| Error::Read { path: dir.to_owned(), source };
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if files::is_gone(&error) => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(failed)?;
        if entry.file_type().map_err(failed)?.is_dir() {
            // A name that is not UTF-8 is none of ours.
            names.extend(entry.file_name().into_string());
        }
    }
    Ok(names)
}
