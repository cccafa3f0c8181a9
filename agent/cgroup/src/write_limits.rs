//! Writing limits, through the controllers of cgroups-rs.

use std::path::{Path, PathBuf};

use cgroups_rs::fs::MaxValue;
use cgroups_rs::fs::cpu::CpuController;
use cgroups_rs::fs::memory::MemController;
use cgroups_rs::fs::pid::PidController;

use crate::host::{Controller, Place};
use crate::limits::cpu_weight;
use crate::{Error, Host, Limits, files};

/// The largest page size of the architectures: memory limits are rounded down to whole pages.
const LARGEST_PAGE: u64 = 64 * 1024;

type Result<T> = std::result::Result<T, Error>;

/// Puts the limits in force that are set and that the host has a controller for; what it lacks,
/// [`Host::missing`] says once, at start.
pub(crate) fn write_limits(host: &Host, path: &Path, limits: &Limits, container: bool) -> Result<()> {
    if let Some((dir, v2)) = dir_of(host, Controller::Cpu, path) {
        write_cpu(dir, v2, limits)?;
    }
    if let Some((dir, v2)) = dir_of(host, Controller::Memory, path) {
        write_memory(dir, v2, limits, container)?;
    }
    if let (Some(pids), Some((dir, v2))) = (limits.pids, dir_of(host, Controller::Pids, path)) {
        write_pids(dir, v2, pids)?;
    }
    Ok(())
}

fn dir_of(host: &Host, controller: Controller, path: &Path) -> Option<(PathBuf, bool)> {
    Some(match host.place(controller)? {
        Place::V2(mount) => (mount.join(path), true),
        Place::V1(hierarchy) => (hierarchy.mount.join(path), false),
    })
}

fn write_cpu(dir: PathBuf, v2: bool, limits: &Limits) -> Result<()> {
    let cpu = CpuController::new(dir.clone(), PathBuf::new(), v2);
    if let Some(shares) = limits.cpu_shares {
        let value = if v2 { cpu_weight(shares) } else { shares };
        let limit = if v2 { "cpu.weight" } else { "cpu.shares" };
        cpu.set_shares(value).map_err(|source| Error::Limit { path: dir.clone(), limit, value, source })?;
    }
    if let Some(quota) = limits.cpu_quota_us {
        // The period is the kernel's default, so it is not written.
        let limit = if v2 { "cpu.max" } else { "cpu.cfs_quota_us" };
        cpu.set_cfs_quota(clamp(quota)).map_err(|source| Error::Limit {
            path: dir,
            limit,
            value: quota,
            source,
        })?;
    }
    Ok(())
}

fn write_memory(dir: PathBuf, v2: bool, limits: &Limits, container: bool) -> Result<()> {
    let memory = MemController::new(dir.clone(), PathBuf::new(), v2);
    if let Some(bytes) = limits.memory {
        if v2 {
            memory.set_limit(clamp(bytes)).map_err(|source| Error::Limit {
                path: dir.clone(),
                limit: "memory.max",
                value: bytes,
                source,
            })?;
            check_memory(&dir, "memory.max", bytes)?;
        } else {
            write_memory_v1(&memory, &dir, bytes)?;
        }
    }
    if v2 && container {
        // One process of a container killed leaves the rest in a state nobody designed for.
        write(&dir.join("memory.oom.group"), "1")?;
        // Swap would be a way around the limit. A kernel without swap has no such file.
        let swap = dir.join("memory.swap.max");
        if swap.exists() {
            write(&swap, "0")?;
        }
    }
    Ok(())
}

/// The limit, and the same for memory and swap together, which keeps swap from being a way around it.
/// The kernel wants the second to be no smaller than the first at any time.
fn write_memory_v1(memory: &MemController, dir: &Path, bytes: u64) -> Result<()> {
    const MEMORY: &str = "memory.limit_in_bytes";
    const WITH_SWAP: &str = "memory.memsw.limit_in_bytes";
    let failed = |limit| move |source| Error::Limit { path: dir.to_owned(), limit, value: bytes, source };
    let set_memory = || memory.set_limit(clamp(bytes)).map_err(failed(MEMORY));
    let set_both = || memory.set_memswap_limit(clamp(bytes)).map_err(failed(WITH_SWAP));
    if !dir.join(WITH_SWAP).exists() {
        set_memory()?;
    } else if files::read_number(&dir.join(WITH_SWAP))? >= bytes {
        set_memory()?;
        set_both()?;
    } else {
        set_both()?;
        set_memory()?;
    }
    check_memory(dir, MEMORY, bytes)
}

/// Reads a memory limit back: a limit that is believed and not in force would surface only when the
/// host runs out of memory.
fn check_memory(dir: &Path, limit: &'static str, wanted: u64) -> Result<()> {
    let text = files::read(&dir.join(limit))?;
    let found = text.trim();
    // The kernel's largest, in pages; above it there is no limit to speak of.
    let taken = match found.parse::<u64>() {
        Ok(bytes) => {
            bytes <= wanted && (wanted - bytes < LARGEST_PAGE || wanted > i64::MAX as u64 - LARGEST_PAGE)
        }
        Err(_) => found == "max" && wanted > i64::MAX as u64 - LARGEST_PAGE,
    };
    if taken {
        return Ok(());
    }
    Err(Error::LimitNotTaken { path: dir.to_owned(), limit, wanted, found: found.to_owned() })
}

fn write_pids(dir: PathBuf, v2: bool, value: u64) -> Result<()> {
    const LIMIT: &str = "pids.max";
    let pids = PidController::new(dir.clone(), PathBuf::new(), v2);
    pids.set_pid_max(MaxValue::Value(clamp(value))).map_err(|source| Error::Limit {
        path: dir,
        limit: LIMIT,
        value,
        source,
    })
}

fn write(path: &Path, value: &str) -> Result<()> {
    files::write(path, value).map_err(|source| Error::Write {
        path: path.to_owned(),
        value: value.to_owned(),
        source,
    })
}

/// The kernel's files and cgroups-rs count in signed numbers.
fn clamp(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
