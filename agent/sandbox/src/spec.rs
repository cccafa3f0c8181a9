//! From a container's specification to an OCI runtime specification. Pure, but for listing the host's
//! devices for a privileged container.

mod capabilities;
mod devices;
mod mounts;
mod oom;

use std::collections::HashMap;
use std::path::Path;

use coracle_cgroup::HierarchyMount;
use coracle_init::hook::Hooks;
use coracle_model::{
    Container, ContainerEdits, ContainerSecurity, MountPropagation, NetDevice, Pod, ProcMount, SeccompProfile,
};
use oci_spec::runtime::{
    Capability, LinuxBuilder, LinuxCapabilities, LinuxCapabilitiesBuilder, LinuxNetDevice,
    LinuxNetDeviceBuilder, Mount, MountBuilder, PosixRlimit, PosixRlimitBuilder, PosixRlimitType, Process,
    RootBuilder, Spec, User, UserBuilder,
};

pub(crate) use capabilities::{CapabilitySet, Granted, granted};

use crate::edits::{Prepared, PreparedMount};
use crate::error::Error;
use crate::request::{ContainerRequest, ExecUser};

/// The runtime specification that is kept to.
const OCI_VERSION: &str = "1.3.0";
/// How many files a process may have open, softly and hard: as systemd has it for services and, since containerd 2,
/// containerd for containers. More than the soft limit a program asks for itself, as far as the hard one (Go and Java do);
/// programs that use select(2), or close whatever number a descriptor may have, cannot live with a soft limit of a million.
/// It is not the agent's, which needs more, and is whatever it was started with.
const OPEN_FILES: (u64, u64) = (1024, 524_288);

/// What of the host a specification depends on.
#[derive(Clone, Debug, Default)]
pub(crate) struct HostFacts {
    /// The capabilities the agent itself may hand on.
    pub(crate) capabilities: CapabilitySet,
    /// The host's memory in bytes.
    pub(crate) memory_capacity: u64,
    /// The most files a process may be allowed to have open, where the agent may not raise that limit.
    pub(crate) most_open_files: Option<u64>,
    /// What /sys/fs/cgroup is made of.
    pub(crate) cgroup_mounts: Vec<HierarchyMount>,
}

/// Where a mount of the specification comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MountSource {
    /// Init makes the file system.
    Own,
    /// /dev/shm of the pod, or of the host.
    Shm,
    /// The request's mount of that position.
    Volume(usize),
    /// The edits' mount of that position.
    Edit(usize),
    /// The file of the termination message.
    Message,
}

/// The specification, and for each of its mounts where it comes from.
pub(crate) struct Built {
    pub(crate) spec: Spec,
    pub(crate) sources: Vec<MountSource>,
    pub(crate) granted: Granted,
}

/// Builds the specification of a container.
pub(crate) fn build(request: &ContainerRequest, edits: &Prepared, host: &HostFacts) -> Result<Built, Error> {
    let (pod, container) = (&*request.pod, &request.container);
    let security = &container.security;
    let granted = granted(security, &host.capabilities);
    let (mounts, sources) = all_mounts(request, edits, host)?;
    // Whoever brings a /dev brings what is in it: nodes are made in one that is the container's own.
    let own_dev = mounts.iter().any(|mount| is_dev(mount) && mount.typ().as_deref() == Some("tmpfs"));
    let unmasked = security.privileged || security.proc_mount == ProcMount::Unmasked;
    let paths = |list: &[&str]| {
        if unmasked { Vec::new() } else { list.iter().map(|path| (*path).to_owned()).collect::<Vec<_>>() }
    };
    let mut linux = LinuxBuilder::default()
        .masked_paths(paths(&mounts::MASKED))
        .readonly_paths(paths(&mounts::READ_ONLY))
        .build()
        .map_err(Error::Spec)?;
    // The namespaces are those init is started in; the builder's defaults ask for more.
    linux.set_namespaces(None).set_resources(None).set_seccomp(None);
    linux.set_sysctl(Some(sysctls(pod)));
    let mut nodes = match security.privileged && own_dev {
        true => devices::of_host().map_err(Error::HostDevices)?,
        false => Vec::new(),
    };
    nodes.retain(|node| edits.devices.iter().all(|edit| edit.path() != node.path()));
    // As under runc none is made then, also of those that belong elsewhere: it is in /dev that nodes are made.
    nodes.extend(edits.devices.iter().filter(|_| own_dev).cloned());
    linux.set_devices(Some(nodes));
    linux.set_net_devices(net_devices(&request.edits)?);
    let mut process = process(ProcessRequest {
        args: request.args.clone(),
        env: &request.env,
        cwd: &request.cwd,
        user: &request.user,
        tty: container.tty,
        security,
        granted: &granted,
        host,
    })?;
    process.set_oom_score_adj(Some(oom_score_adj(pod, container, host)));
    let root = RootBuilder::default()
        .path("rootfs")
        .readonly(security.read_only_root_filesystem)
        .build()
        .map_err(Error::Spec)?;
    let annotations = &request.edits.annotations;
    let annotations = annotations.iter().map(|(key, value)| (key.clone(), value.clone()));
    let mut spec = Spec::default();
    // init looks whether the pod has this name. One with its domain follows from the configuration the
    // sandbox was made with, which may be another now.
    let fixed = !pod.spec.host.network && !pod.spec.dns.hostname_as_fqdn;
    let hostname = fixed.then(|| pod.names("")).transpose()?.map(|names| names.kernel);
    let hooks = (edits.hooks != Hooks::default()).then(|| oci_hooks(&edits.hooks)).transpose()?;
    spec.set_version(OCI_VERSION.to_owned())
        .set_hooks(hooks)
        .set_hostname(hostname)
        .set_process(Some(process))
        .set_root(Some(root))
        .set_mounts(Some(mounts))
        .set_annotations(Some(annotations.collect()))
        .set_linux(Some(linux));
    Ok(Built { spec, sources, granted })
}

/// The interfaces that were moved, which init looks for.
fn net_devices(edits: &ContainerEdits) -> Result<Option<HashMap<String, LinuxNetDevice>>, Error> {
    let one = |device: &NetDevice| {
        let renamed = LinuxNetDeviceBuilder::default().name(&device.name).build().map_err(Error::Spec)?;
        Ok((device.host_name.clone(), renamed))
    };
    let all = edits.net_devices.iter().map(one).collect::<Result<HashMap<_, _>, Error>>()?;
    Ok((!all.is_empty()).then_some(all))
}

/// In the types of the specification; both are the same JSON.
fn oci_hooks(hooks: &Hooks) -> Result<oci_spec::runtime::Hooks, Error> {
    let same = serde_json::to_value(hooks).and_then(serde_json::from_value);
    same.map_err(|error| Error::Spec(error.into()))
}

/// The settings of the pod's namespaces: its own, and what other runtimes set in a network of a pod's own, where
/// nobody is kept from anything by privileged ports.
fn sysctls(pod: &Pod) -> HashMap<String, String> {
    let defaults =
        [("net.ipv4.ip_unprivileged_port_start", "0"), ("net.ipv4.ping_group_range", "0 2147483647")];
    let defaults = defaults.into_iter().filter(|_| !pod.spec.host.network);
    let mut all: HashMap<_, _> = defaults.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    all.extend(pod.spec.security.sysctls.clone());
    all
}

/// How willing the kernel is to kill a process of the container: it would else inherit what protects pause.
pub(crate) fn oom_score_adj(pod: &Pod, container: &Container, host: &HostFacts) -> i32 {
    oom::score_adj(&pod.spec, container, host.memory_capacity)
}

/// What a process is made of.
pub(crate) struct ProcessRequest<'a> {
    pub(crate) args: Vec<String>,
    pub(crate) env: &'a [(String, String)],
    pub(crate) cwd: &'a str,
    pub(crate) user: &'a ExecUser,
    pub(crate) tty: bool,
    pub(crate) security: &'a ContainerSecurity,
    pub(crate) granted: &'a Granted,
    pub(crate) host: &'a HostFacts,
}

/// A process of a container: its first, or an exec'd one.
pub(crate) fn process(request: ProcessRequest<'_>) -> Result<Process, Error> {
    let env = request.env.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let mut process = Process::default();
    process
        .set_terminal(Some(request.tty))
        .set_console_size(None)
        .set_user(user(request.user)?)
        .set_args(Some(request.args))
        .set_env(Some(env))
        .set_cwd(request.cwd.into())
        .set_capabilities(Some(linux_capabilities(&request.granted.set)?))
        .set_rlimits(Some(vec![open_files(request.host)?]))
        .set_no_new_privileges(Some(request.security.allow_privilege_escalation == Some(false)))
        .set_apparmor_profile(None)
        .set_selinux_label(None)
        .set_io_priority(None)
        .set_scheduler(None);
    Ok(process)
}

fn open_files(host: &HostFacts) -> Result<PosixRlimit, Error> {
    let ceiling = host.most_open_files.unwrap_or(u64::MAX);
    let (soft, hard) = (OPEN_FILES.0.min(ceiling), OPEN_FILES.1.min(ceiling));
    let limit = PosixRlimitBuilder::default().typ(PosixRlimitType::RlimitNofile).soft(soft).hard(hard);
    limit.build().map_err(Error::Spec)
}

/// The profile a container is to be filtered by; `None` for none.
pub(crate) fn seccomp_profile<'a>(
    pod: &'a Pod,
    container: &'a Container,
    default: bool,
) -> Option<&'a SeccompProfile> {
    if container.security.privileged {
        return None;
    }
    let fallback = default.then_some(&SeccompProfile::RuntimeDefault);
    let chosen = container.security.seccomp.as_ref().or(pod.spec.security.seccomp.as_ref()).or(fallback);
    chosen.filter(|profile| **profile != SeccompProfile::Unconfined)
}

fn user(user: &ExecUser) -> Result<User, Error> {
    UserBuilder::default()
        .uid(user.uid)
        .gid(user.gid)
        .additional_gids(user.additional_gids.clone())
        .build()
        .map_err(Error::Spec)
}

fn linux_capabilities(names: &CapabilitySet) -> Result<LinuxCapabilities, Error> {
    let set = names
        .iter()
        .map(|name| name.parse::<Capability>().map_err(|_| Error::Capability { name: name.clone() }))
        .collect::<Result<std::collections::HashSet<_>, _>>()?;
    let none = std::collections::HashSet::new();
    LinuxCapabilitiesBuilder::default()
        .bounding(set.clone())
        .effective(set.clone())
        .permitted(set)
        .inheritable(none.clone())
        .ambient(none)
        .build()
        .map_err(Error::Spec)
}

/// The system's mounts, then volumes and what devices bring, parents before what is mounted inside them.
fn all_mounts(
    request: &ContainerRequest,
    edits: &Prepared,
    host: &HostFacts,
) -> Result<(Vec<Mount>, Vec<MountSource>), Error> {
    let privileged = request.container.security.privileged;
    let mut all = Vec::new();
    for system in mounts::SYSTEM {
        // A privileged container may change the kernel's settings and its own cgroups.
        let writable = privileged && system.destination == "/sys";
        let options = system.options.iter().filter(|option| !(writable && **option == "ro"));
        all.push((system_mount(&system, options)?, MountSource::Own));
    }
    for mount in cgroup_mounts(&host.cgroup_mounts, privileged)? {
        all.push((mount, MountSource::Own));
    }
    let shm = (system_mount(&mounts::SHM, mounts::SHM.options.iter())?, MountSource::Shm);

    // What is mounted in a /dev that propagates to the host would cover the host's, which comes with it.
    let gives_dev_back = request.container.volume_mounts.iter().any(|mount| {
        Path::new(&mount.mount_path) == Path::new("/dev")
            && mount.propagation == MountPropagation::Bidirectional
    });
    let mut more = if gives_dev_back { Vec::new() } else { vec![shm] };
    for (position, volume) in request.mounts.iter().enumerate() {
        let mount = attached(&volume.destination)?;
        more.retain(|(other, source)| {
            *source != MountSource::Shm || other.destination() != mount.destination()
        });
        more.push((mount, MountSource::Volume(position)));
    }
    for (position, edit) in edits.mounts.iter().enumerate() {
        let mount = edit_mount(edit)?;
        // As CDI has it, what a device brings is in the place of whatever else was to be there.
        more.retain(|(other, _): &(Mount, MountSource)| other.destination() != mount.destination());
        more.push((mount, MountSource::Edit(position)));
    }
    more.sort_by_key(|(mount, _)| mount.destination().components().count());
    for (mount, source) in more {
        // A volume in the place of a system mount replaces it, as under containerd; a /dev with all that is in it.
        all.retain(|(system, of): &(Mount, MountSource)| {
            let inside =
                is_dev(&mount) && *of == MountSource::Own && system.destination().starts_with("/dev");
            !inside && system.destination() != mount.destination()
        });
        all.push((mount, source));
    }
    // As in the kubelet, over whatever else is there.
    all.push((attached(&request.container.termination_message_path)?, MountSource::Message));
    Ok(all.into_iter().unzip())
}

fn is_dev(mount: &Mount) -> bool {
    mount.destination() == Path::new("/dev")
}

/// What is given to init as a detached mount, whose attributes (read-only, propagation) are set already.
fn attached(destination: &str) -> Result<Mount, Error> {
    MountBuilder::default()
        .destination(destination)
        .typ("bind")
        .options(Vec::<String>::new())
        .build()
        .map_err(Error::Spec)
}

/// What a device brings: a mount that is passed, or one that init makes.
fn edit_mount(edit: &PreparedMount) -> Result<Mount, Error> {
    MountBuilder::default()
        .destination(&edit.destination)
        .typ(&edit.kind)
        .source(&edit.source)
        .options(edit.options.clone())
        .build()
        .map_err(Error::Spec)
}

/// `/sys/fs/cgroup`, rooted by the cgroup namespace in what is the container's.
fn cgroup_mounts(hierarchies: &[HierarchyMount], writable: bool) -> Result<Vec<Mount>, Error> {
    let mut mounts = Vec::new();
    if hierarchies.iter().any(|hierarchy| !hierarchy.directory.is_empty()) {
        let directory = &mounts::CGROUP_DIRECTORY;
        mounts.push(system_mount(directory, directory.options.iter())?);
    }
    for hierarchy in hierarchies {
        let options = mounts::CGROUP_OPTIONS.iter().filter(|option| !(writable && **option == "ro"));
        let options = options.map(|option| (*option).to_owned()).chain(hierarchy.controllers.clone());
        let mount = MountBuilder::default()
            .destination(Path::new("/sys/fs/cgroup").join(&hierarchy.directory))
            .typ(hierarchy.kind)
            .source(hierarchy.kind)
            .options(options.collect::<Vec<_>>())
            .build()
            .map_err(Error::Spec)?;
        mounts.push(mount);
    }
    Ok(mounts)
}

fn system_mount<'a>(
    mount: &mounts::SystemMount,
    options: impl Iterator<Item = &'a &'static str>,
) -> Result<Mount, Error> {
    MountBuilder::default()
        .destination(mount.destination)
        .typ(mount.kind)
        .source(mount.kind)
        .options(options.map(|option| (*option).to_owned()).collect::<Vec<_>>())
        .build()
        .map_err(Error::Spec)
}
