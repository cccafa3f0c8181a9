//! The configuration, parsed and checked before anything is touched.
//!
//! A field init does not act on is refused by name: who asked for it must not believe to have it.

use std::ffi::CString;
use std::path::{Component, PathBuf};

use coracle_init::hook::{Hooks, State};
use coracle_init::protocol::{CreateConfig, Descriptor, PidNamespace, Seccomp};
use rustix::fs::{FileType, Gid, Mode, Uid};
use rustix::mount::MountPropagationFlags;
use rustix::process::{Resource, Rlimit};
use rustix::termios::Winsize;
use rustix::thread::CapabilitySet;

use crate::capability::{self, CapabilityPlan};
use crate::failure::{Result, Step};
use crate::limits;
use crate::options::{MountOptions, propagation};
use crate::spec::{self, Device, Linux, Mount, Process, Spec};

/// A container to be made.
#[derive(Debug)]
pub(crate) struct ContainerPlan {
    pub(crate) rootfs: Rootfs,
    pub(crate) readonly: bool,
    pub(crate) propagation: Option<MountPropagationFlags>,
    pub(crate) mounts: Vec<MountPlan>,
    pub(crate) devices: Vec<DevicePlan>,
    pub(crate) masked_paths: Vec<PathBuf>,
    pub(crate) readonly_paths: Vec<PathBuf>,
    /// Names of interfaces that are there.
    pub(crate) interfaces: Vec<String>,
    pub(crate) sysctls: Vec<(String, String)>,
    pub(crate) hostname: Option<String>,
    pub(crate) process: ProcessPlan,
    pub(crate) cgroup_procs: Vec<Descriptor>,
    pub(crate) new_cgroup_namespace: bool,
    pub(crate) pid_namespace: Option<PidNamespace>,
    pub(crate) hooks: Option<HookPlan>,
}

/// Hooks of a container, if there are any.
#[derive(Debug)]
pub(crate) struct HookPlan {
    pub(crate) hooks: Hooks,
    pub(crate) state: State,
    /// Where the root is mounted before it is entered.
    pub(crate) mount_point: PathBuf,
}

/// Where the root file system comes from.
#[derive(Debug)]
pub(crate) enum Rootfs {
    Detached(Descriptor),
    Path(PathBuf),
}

/// One of `mounts`.
#[derive(Debug)]
pub(crate) struct MountPlan {
    pub(crate) destination: PathBuf,
    pub(crate) source: MountSource,
    pub(crate) options: MountOptions,
}

/// What is mounted.
#[derive(Debug)]
pub(crate) enum MountSource {
    /// A mount somebody else made.
    Detached(Descriptor),
    /// A new instance of a file system, and its `source`.
    Filesystem(String, Option<PathBuf>),
}

/// A device node.
#[derive(Clone, Debug)]
pub(crate) struct DevicePlan {
    /// Beneath /dev; absolute where it is elsewhere.
    pub(crate) path: PathBuf,
    pub(crate) kind: FileType,
    pub(crate) major: u32,
    pub(crate) minor: u32,
    pub(crate) mode: Mode,
    pub(crate) owner: Option<Uid>,
    pub(crate) group: Option<Gid>,
}

/// A process to be executed.
#[derive(Debug)]
pub(crate) struct ProcessPlan {
    pub(crate) arguments: Vec<CString>,
    pub(crate) environment: Vec<CString>,
    pub(crate) cwd: PathBuf,
    pub(crate) uid: Uid,
    pub(crate) gid: Gid,
    pub(crate) groups: Vec<Gid>,
    pub(crate) umask: Mode,
    pub(crate) capabilities: CapabilityPlan,
    pub(crate) limits: Vec<(Resource, Rlimit)>,
    pub(crate) no_new_privileges: bool,
    pub(crate) oom_score_adj: Option<i32>,
    pub(crate) apparmor: Option<String>,
    pub(crate) selinux: Option<String>,
    /// A terminal, and the size it starts with.
    pub(crate) terminal: Option<Winsize>,
    pub(crate) seccomp: Option<Seccomp>,
}

// === impl ContainerPlan ===

impl ContainerPlan {
    pub(crate) fn new(config: CreateConfig<Spec>) -> Result<Self> {
        let CreateConfig {
            spec,
            rootfs,
            mounts,
            cgroup_procs,
            new_cgroup_namespace,
            seccomp,
            pid_namespace,
            state,
        } = config;
        check_spec(&spec)?;
        let process = spec.process.ok_or_else(|| refuse("process", "is missing"))?;
        let process = ProcessPlan::new(process, seccomp)?;
        let linux = spec.linux.ok_or_else(|| refuse("linux", "is missing"))?;
        check_linux(&linux, seccomp.is_some())?;

        let root = spec.root;
        let hooks = HookPlan::new(spec.hooks, state, root.as_ref())?;
        let rootfs = match (rootfs, &root) {
            (Some(descriptor), _) => Rootfs::Detached(descriptor),
            (None, Some(root)) if root.path.is_absolute() => Rootfs::Path(root.path.clone()),
            (None, _) => {
                return Err(refuse("root.path", "must be absolute where no root file system is passed"));
            }
        };
        let propagation = match linux.rootfs_propagation.as_deref() {
            None | Some("") => None,
            Some(word) => Some(propagation(word.strip_prefix('r').unwrap_or(word)).ok_or_else(|| {
                refuse("linux.rootfsPropagation", &format!("{word:?} is no kind of propagation"))
            })?),
        };
        let specified = &spec.mounts;
        if mounts.len() > specified.len() {
            return Err(refuse("mounts", "more mounts were passed than are specified"));
        }
        let passed = mounts.into_iter().chain(std::iter::repeat(None));
        let mounts: Vec<MountPlan> = specified
            .iter()
            .zip(passed)
            .map(|(mount, passed)| MountPlan::new(mount, passed))
            .collect::<Result<_>>()?;
        let devices = linux.devices.iter().map(DevicePlan::new).collect::<Result<Vec<_>>>()?;
        if !devices.is_empty() && !mounts.iter().any(MountPlan::is_dev) {
            return Err(refuse("linux.devices", "needs a tmpfs mounted on /dev to make the nodes in"));
        }
        Ok(Self {
            rootfs,
            readonly: root.is_some_and(|root| root.readonly),
            propagation,
            mounts,
            devices,
            masked_paths: absolute(linux.masked_paths, "linux.maskedPaths")?,
            readonly_paths: absolute(linux.readonly_paths, "linux.readonlyPaths")?,
            interfaces: linux
                .net_devices
                .into_iter()
                .map(|(host, device)| given(device.name).unwrap_or(host))
                .collect(),
            sysctls: linux.sysctl.into_iter().collect(),
            hostname: spec.hostname,
            process,
            cgroup_procs,
            new_cgroup_namespace,
            pid_namespace,
            hooks,
        })
    }
}

fn check_spec(spec: &Spec) -> Result<()> {
    refuse_if(spec.domainname.is_some(), "domainname")?;
    refuse_if(spec.solaris.is_some(), "solaris")?;
    refuse_if(spec.windows.is_some(), "windows")?;
    refuse_if(spec.vm.is_some(), "vm")?;
    refuse_if(spec.zos.is_some(), "zos")?;
    refuse_if(spec.uid_mappings.is_some(), "uidMappings")?;
    refuse_if(spec.gid_mappings.is_some(), "gidMappings")
}

fn check_linux(linux: &Linux, has_seccomp: bool) -> Result<()> {
    refuse_if(!linux.uid_mappings.is_empty(), "linux.uidMappings")?;
    refuse_if(!linux.gid_mappings.is_empty(), "linux.gidMappings")?;
    refuse_if(linux.intel_rdt.is_some(), "linux.intelRdt")?;
    refuse_if(linux.memory_policy.is_some(), "linux.memoryPolicy")?;
    refuse_if(linux.personality.is_some(), "linux.personality")?;
    refuse_if(linux.time_offsets.is_some(), "linux.timeOffsets")?;
    refuse_if(linux.mount_label.as_ref().is_some_and(|label| !label.is_empty()), "linux.mountLabel")?;
    let listens = |seccomp: &spec::Seccomp| seccomp.listener_path.is_some();
    refuse_if(linux.seccomp.as_ref().is_some_and(listens), "linux.seccomp.listenerPath")?;
    if linux.seccomp.is_some() && !has_seccomp {
        return Err(refuse("linux.seccomp", "was specified, but no compiled program was passed"));
    }
    Ok(())
}

// === impl HookPlan ===

impl HookPlan {
    fn new(hooks: Option<Hooks>, state: Option<State>, root: Option<&spec::Root>) -> Result<Option<Self>> {
        let Some(hooks) = hooks.filter(|hooks| *hooks != Hooks::default()) else { return Ok(None) };
        let Hooks { prestart, create_runtime, create_container, start_container, poststart, poststop } =
            &hooks;
        let all = [prestart, create_runtime, create_container, start_container, poststart, poststop];
        if let Some(hook) = all.into_iter().flatten().find(|hook| !hook.path.is_absolute()) {
            return Err(refuse("hooks", &format!("{} is not absolute", hook.path.display())));
        }
        let state = state.ok_or_else(|| refuse("hooks", "the state they get was not passed"))?;
        let mount_point = state.bundle.join(root.map_or("rootfs".as_ref(), |root| root.path.as_path()));
        if !mount_point.is_absolute() {
            return Err(refuse("hooks", "the path of the bundle is not absolute"));
        }
        Ok(Some(Self { hooks, state, mount_point }))
    }

    /// Whether any has its turn before the root is entered.
    pub(crate) fn before_root(&self) -> bool {
        self.of_runtime() || !self.hooks.create_container.is_empty()
    }

    /// Whether the agent has hooks to execute before the root is entered.
    pub(crate) fn of_runtime(&self) -> bool {
        !self.hooks.prestart.is_empty() || !self.hooks.create_runtime.is_empty()
    }
}

// === impl MountPlan ===

impl MountPlan {
    fn new(mount: &Mount, passed: Option<Descriptor>) -> Result<Self> {
        let destination = &mount.destination;
        let field = format!("mounts[{}]", destination.display());
        if !destination.is_absolute() {
            return Err(refuse(&field, "the destination is not absolute"));
        }
        if mount.uid_mappings.is_some() || mount.gid_mappings.is_some() {
            return Err(refuse(&field, "identity mappings are not supported"));
        }
        let options = MountOptions::parse(&mount.options)
            .map_err(|option| refuse(&field, &format!("option {option:?} is not supported")))?;
        let kind = mount.kind.as_str();
        let bind = options.bind || kind == "bind";
        let source = match passed {
            Some(descriptor) if options.data.is_empty() => MountSource::Detached(descriptor),
            Some(_) => {
                let unknown: Vec<&str> = options.data.iter().map(|(key, _)| key.as_str()).collect();
                return Err(refuse(&field, &format!("a mount that is passed takes no options {unknown:?}")));
            }
            None if bind => return Err(refuse(&field, "a bind mount must be passed by descriptor")),
            None if kind.is_empty() => return Err(refuse(&field, "the type is missing")),
            None => MountSource::Filesystem(kind.to_owned(), mount.source.clone()),
        };
        Ok(Self { destination: destination.clone(), source, options })
    }

    /// Whether this is the tmpfs the device nodes are made in.
    pub(crate) fn is_dev(&self) -> bool {
        self.destination == *"/dev" && self.is_filesystem("tmpfs")
    }

    pub(crate) fn is_filesystem(&self, wanted: &str) -> bool {
        matches!(&self.source, MountSource::Filesystem(kind, _) if kind == wanted)
    }
}

// === impl DevicePlan ===

impl DevicePlan {
    fn new(device: &Device) -> Result<Self> {
        let field = format!("linux.devices[{}]", device.path.display());
        let kind = match device.kind.as_str() {
            "c" | "u" => FileType::CharacterDevice,
            "b" => FileType::BlockDevice,
            "p" => FileType::Fifo,
            other => return Err(refuse(&field, &format!("no node is of type {other:?}"))),
        };
        let number = |value: i64| {
            u32::try_from(value).map_err(|_| refuse(&field, &format!("{value} is no device number")))
        };
        let plain = |part: Component<'_>| matches!(part, Component::RootDir | Component::Normal(_));
        if !device.path.is_absolute() || !device.path.components().all(plain) {
            return Err(refuse(&field, "the path must be absolute, without \"..\""));
        }
        let path = device.path.strip_prefix("/dev").unwrap_or(&device.path);
        if path.file_name().is_none() || ["/proc", "/sys"].iter().any(|kernels| path.starts_with(kernels)) {
            return Err(refuse(&field, "no node can be made there"));
        }
        Ok(Self {
            path: path.to_owned(),
            kind,
            major: number(device.major)?,
            minor: number(device.minor)?,
            mode: Mode::from_raw_mode(device.file_mode.unwrap_or(0o666) & 0o777),
            owner: device.uid.map(Uid::from_raw),
            group: device.gid.map(Gid::from_raw),
        })
    }
}

// === impl ProcessPlan ===

impl ProcessPlan {
    pub(crate) fn new(process: Process, seccomp: Option<Seccomp>) -> Result<Self> {
        refuse_if(process.io_priority.is_some(), "process.ioPriority")?;
        refuse_if(process.scheduler.is_some(), "process.scheduler")?;
        refuse_if(process.exec_cpu_affinity.is_some(), "process.execCPUAffinity")?;
        refuse_if(process.command_line.is_some(), "process.commandLine")?;
        refuse_if(process.user.username.is_some(), "process.user.username")?;
        if !process.cwd.is_absolute() {
            return Err(refuse("process.cwd", "is not absolute"));
        }
        let arguments = strings(&process.args, "process.args")?;
        if arguments.first().is_none_or(|program| program.is_empty()) {
            return Err(refuse("process.args", "names no program"));
        }
        let user = &process.user;
        // -1 means "leave as it is" to the kernel: the user would stay root.
        for (field, id) in [("process.user.uid", user.uid), ("process.user.gid", user.gid)] {
            if id == u32::MAX {
                return Err(refuse(field, "is not a valid identifier"));
            }
        }
        if user.additional_gids.contains(&u32::MAX) {
            return Err(refuse("process.user.additionalGids", "holds an invalid identifier"));
        }
        let sets = process.capabilities.unwrap_or_default();
        if !sets.ambient.is_empty() {
            let why = "would need inheritable capabilities, which are always dropped";
            return Err(refuse("process.capabilities.ambient", why));
        }
        let unknown = |name: &str| refuse("process", &format!("{name:?} is unknown"));
        let limit = |limit| limits::parse(limit).ok_or_else(|| unknown(&limit.kind));
        Ok(Self {
            arguments,
            environment: strings(&process.env, "process.env")?,
            cwd: process.cwd.clone(),
            uid: Uid::from_raw(user.uid),
            gid: Gid::from_raw(user.gid),
            groups: user.additional_gids.iter().copied().map(Gid::from_raw).collect(),
            umask: Mode::from_raw_mode(user.umask.unwrap_or(0o022) & 0o777),
            capabilities: capability::plan(&sets).map_err(|name| unknown(&name))?,
            limits: process.rlimits.iter().map(limit).collect::<Result<_>>()?,
            no_new_privileges: process.no_new_privileges,
            oom_score_adj: process.oom_score_adj,
            apparmor: given(process.apparmor_profile),
            selinux: given(process.selinux_label),
            terminal: process.terminal.then(|| size(process.console_size)).transpose()?,
            seccomp,
        })
    }

    /// Whether something must be written to procfs for it.
    pub(crate) fn needs_proc(&self) -> bool {
        self.oom_score_adj.is_some() || self.apparmor.is_some() || self.selinux.is_some()
    }

    /// Whether the seccomp filter can be installed as the very last step, when nothing is left for it to
    /// forbid: seccomp(2) wants no_new_privs or CAP_SYS_ADMIN for it.
    pub(crate) fn seccomp_can_wait(&self) -> bool {
        self.no_new_privileges
            || (self.uid.is_root() && self.capabilities.effective.contains(CapabilitySet::SYS_ADMIN))
    }
}

fn size(specified: Option<spec::ConsoleSize>) -> Result<Winsize> {
    let number = |value: u64| {
        u16::try_from(value).map_err(|_| refuse("process.consoleSize", "is too large for a terminal"))
    };
    let size = specified.unwrap_or_default();
    Ok(Winsize { ws_row: number(size.height)?, ws_col: number(size.width)?, ws_xpixel: 0, ws_ypixel: 0 })
}

fn given(word: Option<String>) -> Option<String> {
    word.filter(|word| !word.is_empty())
}

fn strings(list: &[String], field: &str) -> Result<Vec<CString>> {
    list.iter()
        .map(|text| CString::new(text.as_str()).map_err(|_| refuse(field, "holds a zero byte")))
        .collect()
}

fn absolute(paths: Vec<PathBuf>, field: &str) -> Result<Vec<PathBuf>> {
    match paths.iter().find(|path| !path.is_absolute()) {
        Some(path) => Err(refuse(field, &format!("{path:?} is not absolute"))),
        None => Ok(paths),
    }
}

fn refuse_if(present: bool, field: &str) -> Result<()> {
    if present { Err(refuse(field, "is not supported")) } else { Ok(()) }
}

fn refuse(field: &str, why: &str) -> coracle_init::protocol::Failure {
    Step::Specification.refuse(None, format_args!("{field}: {why}"))
}
