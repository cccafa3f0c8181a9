//! Entering cgroups.

use coracle_init::protocol::Descriptor;

use crate::descriptors::Descriptors;
use crate::failure::{Context, Result, Step};

/// Moves this process, before it does anything that counts, into each cgroup. On v1 that is one a
/// hierarchy; on v2 a process is born in its cgroup and there is none to enter.
pub(crate) fn enter(procs: &[Descriptor], descriptors: &mut Descriptors) -> Result<()> {
    for name in procs {
        let file = descriptors.take(*name)?;
        // cgroups(7): 0 is the writer.
        rustix::io::write(&file, b"0").at(Step::CgroupAttach, "writing cgroup.procs")?;
    }
    Ok(())
}
