//! The node's subtree and its QoS classes.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use coracle_model::{PodUid, QosClass};
use coracle_systemd::{Systemd, UnitName};
use rustix::io::Errno;
use tokio::sync::OnceCell;

use crate::burstable::Requests;
use crate::group::Role;
use crate::layout::{Driver, Layout};
use crate::limits::{MIN_CPU_SHARES, cpu_shares};
use crate::{Cgroup, Error, Host, Limits, Mode, PodCgroup, RemoveError, files};

const CLASSES: [QosClass; 3] = [QosClass::Guaranteed, QosClass::Burstable, QosClass::BestEffort];

/// The subtree of all pods of the node, made by the agent or by systemd: [`Driver`].
///
/// Guaranteed pods lie directly in it, the others in `burstable` and `besteffort`, whose shares bound
/// what such pods get together while the CPUs are contended: [`Kubepods::weigh`].
#[derive(Clone, Debug)]
pub struct Kubepods {
    host: Arc<Host>,
    layout: Layout,
    /// That of the other driver, where pods may run that an agent with another configuration has started.
    other: Option<Layout>,
    systemd: Systemd,
    /// The service this process is, as systemd knows it.
    agent: Arc<OnceCell<Option<UnitName>>>,
    /// In thousandths of a CPU, as the subtree was made with.
    allocatable_cpu: Arc<AtomicU64>,
    requests: Arc<Requests>,
}

impl Kubepods {
    /// The subtree below `parent`, a path from the root of the hierarchies (`/` is the usual one). With
    /// [`Driver::Systemd`] it names a slice.
    ///
    /// # Errors
    /// When `parent` holds `..` or is no slice, or the host's hierarchies are not such that systemd can
    /// make cgroups.
    pub fn new(host: Arc<Host>, parent: &Path, driver: Driver) -> Result<Self, Error> {
        Self::with_systemd(host, parent, driver, Systemd::new())
    }

    /// As [`Kubepods::new`], by this systemd.
    ///
    /// # Errors
    /// Those of [`Kubepods::new`].
    pub fn with_systemd(
        host: Arc<Host>,
        parent: &Path,
        driver: Driver,
        systemd: Systemd,
    ) -> Result<Self, Error> {
        if driver == Driver::Systemd && host.mode() != Mode::Unified {
            return Err(Error::NotUnified);
        }
        let layout = Layout::new(driver, parent)?;
        let other = match driver {
            Driver::Cgroupfs if host.mode() == Mode::Unified => Some(Driver::Systemd),
            Driver::Cgroupfs => None,
            Driver::Systemd => Some(Driver::Cgroupfs),
        };
        // A parent that is no slice has no pods of systemd's in it.
        let other = other.and_then(|driver| Layout::new(driver, parent).ok());
        let (agent, allocatable_cpu, requests) = Default::default();
        Ok(Self { host, layout, other, systemd, agent, allocatable_cpu, requests })
    }

    /// Makes the subtree and sets its shares, but those of burstable pods. `allocatable_cpu` is what pods may use of
    /// the node, in thousandths of a CPU.
    ///
    /// # Errors
    /// On the first step that fails; [`Error::NoSystemd`] when there is none and it is to make cgroups.
    pub async fn ensure(&self, allocatable_cpu: u64) -> Result<(), Error> {
        self.allocatable_cpu.store(allocatable_cpu, Ordering::Relaxed);
        self.ensure_again().await
    }

    /// As [`Kubepods::ensure`], with what it was called with.
    pub(crate) async fn ensure_again(&self) -> Result<(), Error> {
        let allocatable_cpu = self.allocatable_cpu.load(Ordering::Relaxed);
        let shares = |shares| Limits { cpu_shares: Some(shares), ..Limits::default() };
        let (all, least) = (shares(cpu_shares(allocatable_cpu)), shares(MIN_CPU_SHARES));
        if let Layout::Slices(slice) = &self.layout {
            return self.ensure_slices(slice, &all, &least).await;
        }
        let kubepods = self.clone();
        blocking(move || {
            kubepods.make_dirs()?;
            kubepods.group(&kubepods.layout.path()).make(&all)?;
            kubepods.group(&kubepods.layout.class_path(QosClass::BestEffort)).make(&least)
        })
        .await
    }

    /// The cgroup of a pod: where it is, or where it is to be.
    pub fn pod(&self, class: QosClass, uid: &PodUid) -> PodCgroup {
        let pod = self.pod_in(&self.layout, class, uid);
        let other = self.other.iter().map(|layout| self.pod_in(layout, class, uid));
        match other.into_iter().find(|other| !pod.cgroup().exists() && other.cgroup().exists()) {
            Some(other) => other,
            None => pod,
        }
    }

    /// Every cgroup that is there of a pod, whatever its class and whoever made it.
    pub fn pods_of(&self, uid: &PodUid) -> Vec<PodCgroup> {
        let all = self.layouts().flat_map(|layout| CLASSES.map(|class| self.pod_in(layout, class, uid)));
        all.filter(|pod| pod.cgroup().exists()).collect()
    }

    /// The cgroup of a pod that is to be made: by the driver of this node.
    pub fn new_pod(&self, class: QosClass, uid: &PodUid) -> PodCgroup {
        self.pod_in(&self.layout, class, uid)
    }

    /// Every pod that has a directory in any hierarchy. One whose removal was interrupted is among them,
    /// and so is one whose making was.
    ///
    /// # Errors
    /// When a directory cannot be read.
    pub fn list_pods(&self) -> Result<Vec<(QosClass, PodUid)>, Error> {
        let mut pods = BTreeSet::new();
        for layout in self.layouts() {
            for class in CLASSES {
                for mount in self.host.mounts() {
                    let names = subdirs(&mount.join(layout.class_path(class)))?;
                    pods.extend(names.iter().filter_map(|name| Some((class, layout.pod_uid(class, name)?))));
                }
            }
        }
        Ok(pods.into_iter().collect())
    }

    /// Removes the subtree, with whatever is left in it, and then the parent where nothing else is in
    /// it. For a node that ends and has a parent of its own: `coracle run`'s. A kubelet or a second node has its pods
    /// below a parent they share, see [`Kubepods::remove_unused`].
    ///
    /// # Errors
    /// Names every directory that could not be removed. A parent that is in use is not an error.
    pub async fn remove(&self) -> Result<(), Error> {
        for layout in self.layouts().cloned() {
            let kubepods = self.clone();
            match layout {
                Layout::Directories(path) => blocking(move || kubepods.remove_dirs(&path)).await?,
                Layout::Slices(slice) => {
                    self.remove_slices(&slice, self.layout.path() == slice.path()).await?;
                }
            }
        }
        Ok(())
    }

    /// Removes the subtree where no pod is in it any more, whoever's, and then the parent where nothing else is in it; what
    /// stays, since others use it, as `/proc/<pid>/cgroup` shows it. For a node that ends, and whose own pods are removed.
    ///
    /// # Errors
    /// When it cannot be told what is in it, or something that nobody uses cannot be removed.
    pub async fn remove_unused(&self) -> Result<Vec<PathBuf>, Error> {
        let mut used = Vec::new();
        for layout in self.layouts().cloned() {
            let path = Path::new("/").join(layout.path());
            let is_gone = match layout {
                Layout::Slices(slice) => self.remove_slices(&slice, false).await?,
                directories @ Layout::Directories(_) => {
                    let kubepods = self.clone();
                    blocking(move || kubepods.remove_unused_dirs(&directories)).await?
                }
            };
            if !is_gone {
                used.push(path);
            }
        }
        Ok(used)
    }

    pub(crate) fn layout(&self) -> &Layout {
        &self.layout
    }

    pub(crate) fn requests(&self) -> &Requests {
        &self.requests
    }

    /// Whether a pod lies where this driver makes them.
    pub(crate) fn is_own(&self, pod: &PodCgroup) -> bool {
        pod.cgroup().relative().starts_with(self.layout.path())
    }

    /// Relative to the mounts.
    pub(crate) fn path(&self) -> PathBuf {
        self.layout.path()
    }

    /// The host.
    pub fn host(&self) -> &Arc<Host> {
        &self.host
    }

    /// systemd.
    pub(crate) fn systemd(&self) -> &Systemd {
        &self.systemd
    }

    /// The service this process is, where it is one of systemd's.
    pub(crate) async fn agent(&self) -> Result<Option<UnitName>, Error> {
        let own = self.agent.get_or_try_init(|| self.systemd.own_unit()).await?.clone();
        Ok(own.filter(|unit| unit.unit_type() == "service"))
    }

    fn pod_in(&self, layout: &Layout, class: QosClass, uid: &PodUid) -> PodCgroup {
        let path = layout.pod_path(class, uid);
        let slice = match layout {
            Layout::Directories(_) => None,
            Layout::Slices(slice) => Some(slice.of(class)),
        };
        PodCgroup::new(self.clone(), Cgroup::new(Arc::clone(&self.host), path, Role::Inner), slice)
    }

    /// This driver's, then the other's.
    fn layouts(&self) -> impl Iterator<Item = &Layout> {
        [&self.layout].into_iter().chain(&self.other)
    }

    /// Makes the directories from the parent down, in every hierarchy used, and hands the controllers
    /// of the v2 tree down to the pods.
    pub(crate) fn make_dirs(&self) -> Result<(), Error> {
        let kubepods = self.layout.path();
        let classes = [QosClass::Burstable, QosClass::BestEffort].map(|class| self.layout.class_path(class));
        let mut paths: Vec<&Path> =
            kubepods.ancestors().filter(|path| !path.as_os_str().is_empty()).collect();
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

    fn remove_dirs(&self, path: &Path) -> Result<(), Error> {
        let kubepods = self.group(path);
        if !kubepods.exists() {
            return Ok(());
        }
        kubepods.remove()?;
        self.remove_parents(path);
        Ok(())
    }

    /// Removes the directories of the subtree unless others are in them; whether they are gone.
    fn remove_unused_dirs(&self, layout: &Layout) -> Result<bool, Error> {
        let kubepods = layout.path();
        // What is above one that is not there may be a slice of systemd's.
        if !self.group(&kubepods).exists() {
            return Ok(true);
        }
        let classes = [QosClass::Burstable, QosClass::BestEffort].map(|class| layout.class_path(class));
        for mount in self.host.mounts() {
            if holds_pods(mount, &kubepods, &classes)? {
                return Ok(false);
            }
        }
        for mount in self.host.mounts() {
            for dir in classes.iter().chain([&kubepods]).map(|path| mount.join(path)) {
                match rustix::fs::rmdir(&dir) {
                    Ok(()) | Err(Errno::NOENT | Errno::NODEV) => {}
                    // Somebody has come in between, or a process is in it, which none of this node's would be.
                    Err(Errno::BUSY | Errno::NOTEMPTY) => return Ok(false),
                    Err(errno) => return Err(Error::Remove(RemoveError(vec![(dir, errno.into())]))),
                }
            }
        }
        self.remove_parents(&kubepods);
        Ok(true)
    }

    /// Removes the directories above one that is gone, in which nothing else is.
    fn remove_parents(&self, path: &Path) {
        for mount in self.host.mounts() {
            let ancestors = path.ancestors().skip(1).filter(|path| !path.as_os_str().is_empty());
            for path in ancestors {
                // Fails on one that others use, which is then to stay.
                if rustix::fs::rmdir(mount.join(path)).is_err() {
                    break;
                }
            }
        }
    }

    pub(crate) fn group(&self, path: &Path) -> Cgroup {
        Cgroup::new(Arc::clone(&self.host), path.to_owned(), Role::Inner)
    }
}

/// Runs work that blocks where it may.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.map_err(Error::Blocking)?
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

/// Whether any pod, whoever's, is in the subtree of a hierarchy, or something else is among its classes.
pub(crate) fn holds_pods(mount: &Path, kubepods: &Path, classes: &[PathBuf]) -> Result<bool, Error> {
    if holds_more(&mount.join(kubepods), classes)? {
        return Ok(true);
    }
    for class in classes {
        if holds_more(&mount.join(class), &[])? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether there are directories in a directory other than these.
pub(crate) fn holds_more(dir: &Path, known: &[PathBuf]) -> Result<bool, Error> {
    let mut names = subdirs(dir)?;
    names.retain(|name| !known.iter().any(|it| it.file_name().is_some_and(|it| it == name.as_str())));
    Ok(!names.is_empty())
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
