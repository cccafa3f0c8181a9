//! What the runtime must know of the host.

use std::fs::DirBuilder;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::process::{Resource, getrlimit};
use rustix::thread::{CapabilitySet as Bits, capabilities};

use crate::error::{Error, file, system};
use crate::spec::{CapabilitySet, HostFacts};

/// The facts a container's specification depends on.
pub(crate) fn facts(cgroups: &coracle_cgroup::Host) -> Result<HostFacts, Error> {
    let own = capabilities(None).map_err(system("read the agent's capabilities"))?.permitted;
    let capabilities = own.iter_names().map(|(name, _)| name.to_owned()).collect::<CapabilitySet>();
    let info = rustix::system::sysinfo();
    let memory_capacity = u64::from(info.mem_unit) * info.totalram;
    let may_raise = own.contains(Bits::SYS_RESOURCE);
    let most_open_files = if may_raise { None } else { getrlimit(Resource::Nofile).maximum };
    if !may_raise {
        tracing::warn!(
            most_open_files,
            "this host withholds CAP_SYS_RESOURCE: containers cannot be protected from the OOM killer \
             (negative oom_score_adj is refused) and cannot raise hard resource limits, that of open files among them"
        );
    }
    let cgroup_mounts = cgroups.hierarchy_mounts();
    Ok(HostFacts { capabilities, memory_capacity, most_open_files, cgroup_mounts })
}

/// The host's CPUs in thousandths.
pub(crate) fn milli_cpus() -> u64 {
    coracle_cgroup::online_cpus() * 1000
}

/// A directory to find files in.
pub(crate) fn open_dir(path: &Path) -> Result<OwnedFd, Error> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).map_err(|errno| file("open directory", path)(errno.into()))
}

/// Makes a directory, and those above it, that nobody else may look into.
pub(crate) fn private_dir(path: &Path) -> Result<(), Error> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(file("make directory", path))
}
