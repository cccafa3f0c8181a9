//! The cgroup hierarchies of the host, and what they lack.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use coracle_linux::bpf;

use crate::Error;
use crate::device::{DevicePolicy, program};
use crate::files;
use crate::mountinfo::{self, MountKind};

/// How the host's controllers are mounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Every controller is on the cgroup v2 tree.
    Unified,
    /// Controllers are on cgroup v1 hierarchies, and there is a v2 tree beside them.
    Hybrid,
    /// cgroup v1 only.
    Legacy,
}

/// Something the host lacks, for its administrator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Weakness {
    /// What is not there.
    pub lacks: String,
    /// What is weaker for it.
    pub effect: String,
    /// How to mend it.
    pub remedy: String,
}

/// A cgroup file system as a container is to see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HierarchyMount {
    /// The directory beneath `/sys/fs/cgroup`, as on the host; empty for `/sys/fs/cgroup` itself.
    pub directory: String,
    /// `cgroup2` or `cgroup`.
    pub kind: &'static str,
    /// The controllers of a v1 hierarchy, which are its mount options.
    pub controllers: Vec<String>,
}

/// The cgroup hierarchies found on the host.
#[derive(Debug)]
pub struct Host {
    v2: Option<V2>,
    v1: Vec<V1>,
    device_filter: DeviceFilter,
    /// Loaded device filters: the verifier's work is done once per policy, not once per container.
    programs: Mutex<HashMap<DevicePolicy, Arc<OwnedFd>>>,
}

#[derive(Debug)]
struct V2 {
    mount: PathBuf,
    controllers: Vec<String>,
}

/// A cgroup v1 hierarchy with at least one controller.
#[derive(Debug)]
pub(crate) struct V1 {
    pub(crate) mount: PathBuf,
    options: Vec<String>,
}

/// The controllers that are used, where the host has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Controller {
    Cpu,
    Cpuacct,
    Devices,
    Memory,
    Pids,
}

/// The hierarchy a controller is on.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Place<'a> {
    V2(&'a Path),
    V1(&'a V1),
}

/// What decides on devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DeviceFilter {
    /// A program on the v2 tree, also on a hybrid host: one hierarchy less to attach to.
    Bpf,
    /// The v1 controller.
    V1,
    /// Nothing.
    None,
}

// === impl Host ===

impl Host {
    /// Finds the mounted hierarchies.
    ///
    /// # Errors
    /// When /proc is unreadable or no cgroup file system is mounted.
    pub fn detect() -> Result<Self, Error> {
        let text = std::fs::read_to_string("/proc/self/mountinfo").map_err(Error::MountInfo)?;
        Self::from_mountinfo(&text)
    }

    /// Like [`Host::detect`], with the text of a mountinfo file. Mounts it names that are not cgroup
    /// file systems (any more) are passed over.
    ///
    /// # Errors
    /// When it names no usable cgroup file system.
    pub fn from_mountinfo(text: &str) -> Result<Self, Error> {
        let mut v2 = None;
        let mut v1 = Vec::new();
        for mount in mountinfo::parse(text) {
            // A mount can be hidden under a later one. Writing there would create plain files.
            let magic = rustix::fs::statfs(&mount.point).map(|fs| fs.f_type as u64).unwrap_or(0);
            match mount.kind {
                MountKind::V2 if magic == libc::CGROUP2_SUPER_MAGIC as u64 => {
                    let controllers = files::read(&mount.point.join("cgroup.controllers"))?;
                    let controllers = controllers.split_whitespace().map(str::to_owned).collect();
                    v2 = Some(V2 { mount: mount.point, controllers });
                }
                MountKind::V1(options) if magic == libc::CGROUP_SUPER_MAGIC as u64 => {
                    let hierarchy = V1 { mount: mount.point, options };
                    if Controller::ALL.iter().any(|controller| hierarchy.has(*controller)) {
                        v1.push(hierarchy);
                    }
                }
                _ => {}
            }
        }
        if v2.is_none() && v1.is_empty() {
            return Err(Error::NoHierarchy);
        }
        let mut host =
            Self { v2, v1, device_filter: DeviceFilter::None, programs: Mutex::new(HashMap::new()) };
        // The shortest program there is: a kernel that takes it and refuses a longer one is an error, and
        // not a reason to filter by other means.
        host.device_filter = if host.v2.is_some() && host.device_program(&DevicePolicy::All).is_ok() {
            DeviceFilter::Bpf
        } else if host.v1.iter().any(|hierarchy| hierarchy.has(Controller::Devices)) {
            DeviceFilter::V1
        } else {
            DeviceFilter::None
        };
        Ok(host)
    }

    /// How the controllers are mounted.
    pub fn mode(&self) -> Mode {
        match (&self.v2, self.v1.is_empty()) {
            (Some(_), true) => Mode::Unified,
            (Some(_), false) => Mode::Hybrid,
            (None, _) => Mode::Legacy,
        }
    }

    /// The file systems that make a container's `/sys/fs/cgroup` look as the host's: one on a unified
    /// host, several in a directory of their own otherwise.
    pub fn hierarchy_mounts(&self) -> Vec<HierarchyMount> {
        let v2 = |directory: &str| HierarchyMount {
            directory: directory.to_owned(),
            kind: "cgroup2",
            controllers: Vec::new(),
        };
        if self.mode() == Mode::Unified {
            return vec![v2("")];
        }
        let name = |mount: &Path| mount.file_name().map(|name| name.to_string_lossy().into_owned());
        let hierarchies = self.v1.iter().filter_map(|hierarchy| {
            let directory = name(&hierarchy.mount)?;
            let known = |option: &&String| Controller::ALL.iter().any(|it| it.as_str() == option.as_str());
            let controllers = hierarchy.options.iter().filter(known).cloned().collect();
            Some(HierarchyMount { directory, kind: "cgroup", controllers })
        });
        hierarchies.chain(self.v2.iter().map(|_| v2("unified"))).collect()
    }

    /// What the host lacks. Empty on a host with cgroup v2 and all controllers.
    pub fn missing(&self) -> Vec<Weakness> {
        let mut missing = Vec::new();
        let mut lack = |lacks: &str, effect: &str, remedy: &str| {
            missing.push(Weakness { lacks: lacks.into(), effect: effect.into(), remedy: remedy.into() });
        };
        let enable = "enable the controller in the kernel (cgroup_enable=) or mount it";
        if self.place(Controller::Memory).is_none() {
            lack(
                "no memory cgroup controller",
                "memory limits are not enforced and OOM kills not seen",
                enable,
            );
        }
        if self.place(Controller::Cpu).is_none() {
            lack("no cpu cgroup controller", "CPU requests and limits are not enforced", enable);
        }
        if self.place(Controller::Pids).is_none() {
            lack("no pids cgroup controller", "a pod's number of processes is not limited", enable);
        }
        if self.device_filter == DeviceFilter::None {
            lack(
                "no device filter (BPF on cgroup v2, or the devices controller of v1)",
                "a container with CAP_MKNOD can open any device of the host",
                "use a kernel with CONFIG_CGROUP_BPF and mount cgroup v2",
            );
        }
        if let Some(Place::V1(memory)) = self.place(Controller::Memory) {
            let on_v1 = "the memory controller is on cgroup v1";
            let boot = "boot with systemd.unified_cgroup_hierarchy=1 or cgroup_no_v1=all";
            lack(on_v1, "when memory runs out one process of a container is killed, not all", boot);
            if !memory.mount.join("memory.memsw.limit_in_bytes").exists() {
                lack(
                    "no swap accounting",
                    "a container over its memory limit may swap",
                    "boot with swapaccount=1",
                );
            }
        }
        if self.v2.is_none() {
            lack(
                "no cgroup v2 tree",
                "containers start more slowly and are killed process by process",
                "mount it: mount -t cgroup2 none /sys/fs/cgroup/unified",
            );
        }
        missing
    }

    /// Lets the RCU grace period pass that the next move of a process into a cgroup would wait for.
    ///
    /// Moves that come close together share one (`rcu_sync_enter` of the kernel's
    /// `cgroup_threadgroup_rwsem`), and a process born by `CLONE_INTO_CGROUP` needs none. Where a v1
    /// hierarchy is in use, call this when a container's creation begins, beside the other work: it blocks
    /// for some ten milliseconds, and an attach within about as long after it takes microseconds. It moves
    /// this process to where it is already, which changes nothing.
    ///
    /// # Errors
    /// When the kernel refuses. Nothing depends on it but time.
    pub fn warm_attach(&self) -> Result<(), Error> {
        if self.v1.is_empty() {
            return Ok(());
        }
        let own = files::read(Path::new("/proc/self/cgroup"))?;
        let Some(dir) = own.lines().find_map(|line| self.dir_of_membership(line)) else { return Ok(()) };
        let path = dir.join("cgroup.procs");
        files::write(&path, "0").map_err(|source| Error::Write { path, value: "0".into(), source })
    }

    /// The directory of a line of `/proc/<pid>/cgroup`, `id:controllers:path`, if it can be seen.
    pub(crate) fn dir_of_membership(&self, line: &str) -> Option<PathBuf> {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next()?, parts.next()?);
        let mount = match controllers {
            "" => self.v2_mount()?,
            _ => &self.v1.iter().find(|v1| controllers.split(',').any(|name| v1.has_option(name)))?.mount,
        };
        // One outside of the cgroup namespace is shown as /../..
        let path = path.strip_prefix('/')?;
        (!path.split('/').any(|part| part == "..")).then(|| mount.join(path))
    }

    /// Where the v2 tree is mounted.
    pub(crate) fn v2_mount(&self) -> Option<&Path> {
        self.v2.as_ref().map(|v2| v2.mount.as_path())
    }

    /// Whether a controller is to be handed down the v2 tree.
    pub(crate) fn v2_controllers(&self) -> impl Iterator<Item = &'static str> {
        [Controller::Cpu, Controller::Memory, Controller::Pids]
            .into_iter()
            .filter(|controller| matches!(self.place(*controller), Some(Place::V2(_))))
            .map(Controller::as_str)
    }

    /// The hierarchy a controller is on.
    pub(crate) fn place(&self, controller: Controller) -> Option<Place<'_>> {
        match &self.v2 {
            Some(v2) if v2.controllers.iter().any(|name| name == controller.as_str()) => {
                Some(Place::V2(&v2.mount))
            }
            _ => self.v1.iter().find(|hierarchy| hierarchy.has(controller)).map(Place::V1),
        }
    }

    /// The v1 hierarchies of the given controllers, each once.
    pub(crate) fn v1_of(&self, controllers: &[Controller]) -> Vec<&V1> {
        let mut hierarchies: Vec<&V1> = Vec::new();
        for place in controllers.iter().filter_map(|controller| self.place(*controller)) {
            match place {
                Place::V1(v1) if !hierarchies.iter().any(|known| known.mount == v1.mount) => {
                    hierarchies.push(v1);
                }
                _ => {}
            }
        }
        hierarchies
    }

    /// Every mount a directory of ours may be in, also one that this version does not use.
    pub(crate) fn mounts(&self) -> impl Iterator<Item = &Path> {
        self.v2_mount().into_iter().chain(self.v1.iter().map(|v1| v1.mount.as_path()))
    }

    /// What decides on devices.
    pub(crate) fn device_filter(&self) -> DeviceFilter {
        self.device_filter
    }

    /// The loaded program of a policy.
    pub(crate) fn device_program(&self, policy: &DevicePolicy) -> Result<Arc<OwnedFd>, Error> {
        let mut programs = self.programs.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(program) = programs.get(policy) {
            return Ok(Arc::clone(program));
        }
        let loaded = bpf::load_device_filter(&program::assemble(policy), program::NAME);
        let loaded = Arc::new(loaded.map_err(Error::DeviceLoad)?);
        programs.insert(policy.clone(), Arc::clone(&loaded));
        Ok(loaded)
    }
}

// === impl V1 ===

impl V1 {
    /// Whether the controller is on this hierarchy.
    pub(crate) fn has(&self, controller: Controller) -> bool {
        self.has_option(controller.as_str())
    }

    /// Whether the hierarchy shares its mount with cpuset, whose new groups accept no process before
    /// they were given CPUs and memory nodes.
    pub(crate) fn has_cpuset(&self) -> bool {
        self.has_option("cpuset")
    }

    fn has_option(&self, name: &str) -> bool {
        self.options.iter().any(|option| option == name)
    }
}

// === impl Controller ===

impl Controller {
    const ALL: [Self; 5] = [Self::Cpu, Self::Cpuacct, Self::Devices, Self::Memory, Self::Pids];

    /// The kernel's name.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Cpuacct => "cpuacct",
            Self::Devices => "devices",
            Self::Memory => "memory",
            Self::Pids => "pids",
        }
    }
}
