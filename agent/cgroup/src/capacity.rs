//! What the node's pods may use together.

use std::path::{Path, PathBuf};

use crate::files::{if_there, read};
use crate::host::{Controller, Place};
use crate::{Error, Kubepods};

/// What pods may use of the host: its CPUs and its memory, or less where a cgroup above them is limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// Thousandths of a CPU.
    pub cpu: u64,
    /// Bytes.
    pub memory: u64,
}

/// The CPUs that are online. Not `std::thread::available_parallelism`, which tells what this process may use: the quota
/// and the affinity of the agent, as its unit has them (`CPUQuota=`, `CPUAffinity=`), are not the pods'.
pub fn online_cpus() -> u64 {
    let listed = read(Path::new("/sys/devices/system/cpu/online")).ok().and_then(|text| cpus(&text));
    // Without sysfs there is nothing better.
    listed.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, |cpus| cpus.get() as u64))
}

impl Kubepods {
    /// What the node's pods may use together now.
    ///
    /// # Errors
    /// When the kernel's files cannot be read.
    pub fn capacity(&self) -> Result<Capacity, Error> {
        let info = rustix::system::sysinfo();
        let host = Capacity {
            cpu: online_cpus() * 1000,
            memory: u64::from(info.mem_unit).saturating_mul(info.totalram),
        };
        let mut capacity = host;
        for dir in self.above(Controller::Cpu) {
            let limit = if_there(cpu_limit(&dir))?.flatten();
            capacity.cpu = capacity.cpu.min(limit.unwrap_or(u64::MAX));
            let cpuset = if_there(cpuset(&dir))?.flatten();
            capacity.cpu = capacity.cpu.min(cpuset.map_or(u64::MAX, |cpus| cpus * 1000));
        }
        for dir in self.above(Controller::Memory) {
            let limit = if_there(memory_limit(&dir))?.flatten();
            capacity.memory = capacity.memory.min(limit.unwrap_or(u64::MAX));
        }
        Ok(capacity)
    }

    /// The directories of `kubepods` and everything above it on a controller's hierarchy.
    fn above(&self, controller: Controller) -> Vec<Directory> {
        let (mount, v2) = match self.host().place(controller) {
            Some(Place::V2(mount)) => (mount, true),
            Some(Place::V1(v1)) => (v1.mount.as_path(), false),
            None => return Vec::new(),
        };
        let kubepods = self.path();
        kubepods.ancestors().map(|path| Directory { path: mount.join(path), v2 }).collect()
    }
}

struct Directory {
    path: PathBuf,
    v2: bool,
}

/// In thousandths of a CPU; `None` for no limit.
fn cpu_limit(dir: &Directory) -> Result<Option<u64>, Error> {
    if dir.v2 {
        return Ok(cpu_max(&read(&dir.path.join("cpu.max"))?));
    }
    let file = |name: &str| read(&dir.path.join(name));
    Ok(cpu_quota(&file("cpu.cfs_quota_us")?, &file("cpu.cfs_period_us")?))
}

/// How many CPUs what is below may use; `None` where cpuset is not handed down, or on another hierarchy.
fn cpuset(dir: &Directory) -> Result<Option<u64>, Error> {
    match dir.v2 {
        true => Ok(cpus(&read(&dir.path.join("cpuset.cpus.effective"))?)),
        false => Ok(None),
    }
}

/// How many there are in a list of CPUs, `0-3,8`; `None` for none, or what is no such list.
fn cpus(list: &str) -> Option<u64> {
    let mut count: u64 = 0;
    for range in list.trim().split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last) = (first.parse::<u64>().ok()?, last.parse::<u64>().ok()?);
        count = count.checked_add(last.checked_sub(first)?.checked_add(1)?)?;
    }
    Some(count)
}

/// In bytes; `None` for no limit. The root of a v1 hierarchy has a number larger than any memory.
fn memory_limit(dir: &Directory) -> Result<Option<u64>, Error> {
    let name = if dir.v2 { "memory.max" } else { "memory.limit_in_bytes" };
    Ok(read(&dir.path.join(name))?.trim().parse().ok())
}

/// `max 100000` or `150000 100000`.
fn cpu_max(text: &str) -> Option<u64> {
    let (quota, period) = text.trim().split_once(' ')?;
    cpu_quota(quota, period)
}

/// Microseconds in each period; `max` or a negative quota is none.
fn cpu_quota(quota: &str, period: &str) -> Option<u64> {
    let (quota, period) = (quota.trim().parse::<u64>().ok()?, period.trim().parse::<u64>().ok()?);
    (quota.checked_mul(1000)?).checked_div(period)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotas() {
        assert_eq!(cpu_max("max 100000\n"), None);
        assert_eq!(cpu_max("150000 100000\n"), Some(1500));
        assert_eq!(cpu_max(""), None);
        assert_eq!(cpu_quota("-1\n", "100000\n"), None);
        assert_eq!(cpu_quota("50000\n", "100000\n"), Some(500));
        assert_eq!(cpu_quota("50000", "0"), None);
    }

    #[test]
    fn lists_of_cpus() {
        for (list, count) in [("0\n", 1), ("0-3\n", 4), ("0-1,4,6-7\n", 5)] {
            assert_eq!(cpus(list), Some(count), "{list}");
        }
        for list in ["", "\n", "3-0", "a", "0-", "0-18446744073709551615"] {
            assert_eq!(cpus(list), None, "{list}");
        }
    }
}
