//! Programs of plugins whose caller was killed: they go on with what they were asked for, beside the next one who is.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, getpgid, kill_process_group, pidfd_open, pidfd_send_signal};

use crate::exec::STDIN;

/// How long a process may take to end that was killed. One that hangs in the kernel may take longer than anybody waits.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

/// Ends the programs that an earlier process of the caller has executed for these containers in these network namespaces,
/// with all they have started, and waits until they are gone. They are told by what this crate gives them as standard
/// input. The caller must not be executing any itself. Returns how many there were.
///
/// # Errors
/// `/proc` could not be listed, or a process does not end.
pub fn end_abandoned(is_ours: impl Fn(&str, &Path) -> bool) -> io::Result<usize> {
    let deadline = Instant::now() + PATIENCE;
    let mut count = 0;
    // What one of them has started while the others were looked for was killed with its group, or is found next time.
    loop {
        let ended = kill_all(&is_ours)?;
        if ended.is_empty() {
            return Ok(count);
        }
        ended.iter().try_for_each(|process| wait_for_end(process, deadline))?;
        count += ended.len();
    }
}

/// Kills those there are, and tells which that were.
fn kill_all(is_ours: &impl Fn(&str, &Path) -> bool) -> io::Result<Vec<OwnedFd>> {
    let mut ended = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let path = entry?.path();
        let pid = path.file_name().and_then(|name| name.to_str()?.parse().ok()).and_then(Pid::from_raw);
        let executed_by_us = || {
            let (id, netns) = (container_of(&path)?, namespace_of(&path)?);
            is_ours(&id, &netns).then_some(())
        };
        let Some(pid) = pid.filter(|_| executed_by_us().is_some()) else { continue };
        // Whoever has ended meanwhile needs nothing, and nobody else may be met under its number.
        let Ok(process) = pidfd_open(pid, PidfdFlags::empty()) else { continue };
        if executed_by_us().is_none() {
            continue;
        }
        if getpgid(Some(pid)) == Ok(pid) {
            let _ = kill_process_group(pid, Signal::KILL);
        }
        let _ = pidfd_send_signal(&process, Signal::KILL);
        ended.push(process);
    }
    Ok(ended)
}

/// The container that a process is executed for, by its standard input.
fn container_of(process: &Path) -> Option<String> {
    let stdin = fs::read_link(process.join("fd/0")).ok()?;
    let name = stdin.to_str()?.strip_prefix("/memfd:")?.strip_prefix(STDIN)?;
    Some(name.strip_suffix(" (deleted)").unwrap_or(name).to_owned())
}

/// The network namespace it is executed for: containers of one id may be several nodes'.
fn namespace_of(process: &Path) -> Option<PathBuf> {
    let environment = fs::read(process.join("environ")).ok()?;
    let netns = environment.split(|byte| *byte == 0).find_map(|entry| entry.strip_prefix(b"CNI_NETNS="))?;
    Some(OsStr::from_bytes(netns).into())
}

/// Waits for the end of a process that was killed.
pub(crate) fn wait_for_end(process: &OwnedFd, deadline: Instant) -> io::Result<()> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: left.subsec_nanos().into() };
        match poll(&mut [PollFd::new(process, PollFlags::IN)], Some(&left)) {
            Ok(0) => return Err(io::Error::new(io::ErrorKind::TimedOut, "a killed plugin does not end")),
            Ok(_) => return Ok(()),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}
