//! One cgroup: a path that is the same in every hierarchy used.

use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cgroups_rs::fs::devices::{DevicePermissions, DeviceType, DevicesController};
use coracle_linux::bpf;
use rustix::fs::{Mode, OFlags};

use crate::device::program;
use crate::host::{Controller, DeviceFilter, V1};
use crate::write_limits::write_limits;
use crate::{DeviceKind, DevicePolicy, DeviceRule, Error, Host, Limits, files};

/// A cgroup that processes live in, or a pod's, which holds those.
///
/// A name, not a possession: dropping it changes nothing on the host.
#[derive(Clone, Debug)]
pub struct Cgroup {
    host: Arc<Host>,
    /// Relative to the mounts.
    path: PathBuf,
    role: Role,
}

/// What a cgroup is for, which decides on the v1 hierarchies it has a directory in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// A pod's, or one above the pods: limits what is below it.
    Inner,
    /// pause's: on cgroup v2 a leaf beside the containers, since an inner cgroup may hold no process;
    /// on v1, which has no such rule, pause lives in the pod's own.
    Pause,
    /// A container's.
    Container,
    /// That of one program executed in a container, below the container's: in the v2 tree or, without
    /// one, in the hierarchy that tells which processes are in a cgroup.
    Exec,
}

impl Cgroup {
    pub(crate) fn new(host: Arc<Host>, path: PathBuf, role: Role) -> Self {
        Self { host, path, role }
    }

    /// The path from the root of every hierarchy, as `/proc/<pid>/cgroup` shows it when the hierarchies
    /// are mounted from their root.
    pub fn path(&self) -> PathBuf {
        Path::new("/").join(&self.path)
    }

    /// Whether it is there, in any hierarchy.
    pub fn exists(&self) -> bool {
        self.host.mounts().any(|mount| mount.join(&self.path).is_dir())
    }

    /// Makes a container's cgroup, or finishes one whose making was interrupted. Limits that are `None`
    /// are left as they are.
    ///
    /// # Errors
    /// When the pod's cgroup is not there, or on the first step that fails; call it again or remove it.
    pub fn ensure(&self, limits: &Limits, devices: &DevicePolicy) -> Result<(), Error> {
        self.make(limits)?;
        self.filter_devices(devices)
    }

    /// Makes the directories and writes the limits.
    pub(crate) fn make(&self, limits: &Limits) -> Result<(), Error> {
        if let Some(mount) = self.host.v2_mount() {
            make_dir(&mount.join(&self.path))?;
        }
        let mut controllers = self.v1_controllers();
        if limits.pids.is_some() && !controllers.contains(&Controller::Pids) {
            controllers.push(Controller::Pids);
        }
        for hierarchy in self.host.v1_of(&controllers) {
            make_v1_dir(hierarchy, &self.path)?;
        }
        write_limits(&self.host, &self.path, limits, self.role == Role::Container)
    }

    /// The controllers that want a v1 directory of their own for this cgroup.
    pub(crate) fn v1_controllers(&self) -> Vec<Controller> {
        let mut controllers = match self.role {
            Role::Pause | Role::Exec => return Vec::new(),
            Role::Inner => vec![Controller::Cpu, Controller::Memory, Controller::Pids],
            Role::Container => vec![Controller::Cpu, Controller::Memory],
        };
        if self.host.v2_mount().is_none() {
            // Without the v2 tree's files, CPU time is read from cpuacct; and pids, which stops forks
            // while a container is killed, is wanted for each container.
            controllers.push(Controller::Cpuacct);
            if self.role == Role::Container {
                controllers.push(Controller::Pids);
            }
        }
        if self.host.device_filter() == DeviceFilter::V1 {
            controllers.push(Controller::Devices);
        }
        controllers
    }

    /// Puts the device policy in force, in the place of one put there before.
    fn filter_devices(&self, policy: &DevicePolicy) -> Result<(), Error> {
        match (self.host.device_filter(), policy, self.host.v2_mount()) {
            (DeviceFilter::Bpf, _, Some(mount)) => self.attach_filter(&mount.join(&self.path), policy),
            (DeviceFilter::V1, ..) => self
                .host
                .v1_of(&[Controller::Devices])
                .into_iter()
                .try_for_each(|hierarchy| write_device_rules(&hierarchy.mount.join(&self.path), policy)),
            (_, DevicePolicy::All, _) => Ok(()),
            _ => Err(Error::NoController { controller: Controller::Devices.as_str(), path: self.path() }),
        }
    }

    fn attach_filter(&self, dir: &Path, policy: &DevicePolicy) -> Result<(), Error> {
        let failed = |source: io::Error| Error::DeviceAttach { path: dir.to_owned(), source };
        let cgroup = open_dir(dir).map_err(failed)?;
        let mut ours = None;
        for id in bpf::attached_device_filters(cgroup.as_fd()).map_err(failed)? {
            let attached = bpf::program_by_id(id).map_err(failed)?;
            if bpf::program_name(attached.as_fd()).map_err(failed)? == program::NAME {
                ours = Some(attached);
                break;
            }
        }
        if ours.is_none() && *policy == DevicePolicy::All {
            return Ok(());
        }
        let program = self.host.device_program(policy)?;
        bpf::attach_device_filter(cgroup.as_fd(), program.as_fd(), ours.as_ref().map(AsFd::as_fd))
            .map_err(failed)
    }

    pub(crate) fn host(&self) -> &Host {
        &self.host
    }

    pub(crate) fn shared_host(&self) -> &Arc<Host> {
        &self.host
    }

    pub(crate) fn relative(&self) -> &Path {
        &self.path
    }

    pub(crate) fn role(&self) -> Role {
        self.role
    }

    /// The cgroup this one lies in.
    pub(crate) fn parent(&self, role: Role) -> Self {
        let path = self.path.parent().unwrap_or(Path::new("")).to_owned();
        Self::new(Arc::clone(&self.host), path, role)
    }

    /// The directory in the v2 tree.
    pub(crate) fn v2_dir(&self) -> Option<PathBuf> {
        self.host.v2_mount().map(|mount| mount.join(&self.path))
    }
}

/// Makes a directory unless it is there.
pub(crate) fn make_dir(path: &Path) -> Result<(), Error> {
    match rustix::fs::mkdir(path, Mode::from_raw_mode(0o755)) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => Ok(()),
        Err(errno) => Err(Error::Create { path: path.to_owned(), source: errno.into() }),
    }
}

/// Makes a directory of a v1 hierarchy unless it is there.
pub(crate) fn make_v1_dir(hierarchy: &V1, path: &Path) -> Result<(), Error> {
    let dir = hierarchy.mount.join(path);
    make_dir(&dir)?;
    if hierarchy.has_cpuset() {
        // A new group of cpuset has no CPU and no memory node, and takes no process before it has.
        for file in ["cpuset.cpus", "cpuset.mems"] {
            if files::read(&dir.join(file))?.trim().is_empty() {
                let above = dir.parent().unwrap_or(&hierarchy.mount).join(file);
                let value = files::read(&above)?;
                files::write(&dir.join(file), value.trim()).map_err(|source| Error::Write {
                    path: dir.join(file),
                    value: value.trim().to_owned(),
                    source,
                })?;
            }
        }
    }
    Ok(())
}

/// Opens a cgroup's directory.
pub(crate) fn open_dir(path: &Path) -> io::Result<std::os::fd::OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?)
}

/// The rules of cgroup v1: everything is denied, then exceptions are written.
fn write_device_rules(dir: &Path, policy: &DevicePolicy) -> Result<(), Error> {
    let controller = DevicesController::new(dir.to_owned(), PathBuf::new());
    let failed = |rule: String| |source| Error::DeviceRule { path: dir.to_owned(), rule, source };
    let all = DevicePermissions::all();
    match policy {
        DevicePolicy::All => {
            controller.allow_device(DeviceType::All, -1, -1, &all).map_err(failed("allow a".into()))
        }
        DevicePolicy::Only(rules) => {
            controller.deny_device(DeviceType::All, -1, -1, &all).map_err(failed("deny a".into()))?;
            rules.iter().try_for_each(|rule| {
                let (kind, major, minor, access) = v1_rule(rule);
                controller.allow_device(kind, major, minor, &access).map_err(failed(rule.to_string()))
            })
        }
    }
}

fn v1_rule(rule: &DeviceRule) -> (DeviceType, i64, i64, Vec<DevicePermissions>) {
    let kind = match rule.kind {
        DeviceKind::Char => DeviceType::Char,
        DeviceKind::Block => DeviceType::Block,
    };
    let number = |number: Option<u32>| number.map_or(-1, i64::from);
    let access = [
        (rule.access.read, DevicePermissions::Read),
        (rule.access.write, DevicePermissions::Write),
        (rule.access.mknod, DevicePermissions::MkNod),
    ];
    let access = access.into_iter().filter(|(set, _)| *set).map(|(_, permission)| permission);
    (kind, number(rule.major), number(rule.minor), access.collect())
}
