//! The end of programs that nobody waits for any more. Those whose caller was killed go on with what they were asked for,
//! beside the next one who is.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use coracle_program::{PATIENCE, wait_for_end};
use rustix::process::{Pid, PidfdFlags, Signal, getpgid, kill_process_group, pidfd_open, pidfd_send_signal};

use crate::exec::STDIN;

/// A program that is executed, as its environment tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Running {
    /// `CNI_COMMAND`.
    pub command: String,
    /// `CNI_CONTAINERID`.
    pub container_id: String,
    /// `CNI_NETNS`: containers of one id may be several nodes'.
    pub netns: PathBuf,
}

/// Ends programs of plugins, of this process or one before it, with all they have started, and waits until they are gone.
/// They are told by what this crate gives them as standard input. The caller must not go on to execute any that is meant.
/// Returns how many there were.
///
/// # Errors
/// `/proc` could not be listed, or a process does not end.
pub fn end_executions(is_meant: impl Fn(&Running) -> bool) -> io::Result<usize> {
    let deadline = Instant::now() + PATIENCE;
    let mut count = 0;
    // What one of them has started while the others were looked for was killed with its group, or is found next time.
    loop {
        let ended = kill_all(&is_meant)?;
        if ended.is_empty() {
            return Ok(count);
        }
        ended.iter().try_for_each(|process| wait_for_end(process, deadline))?;
        count += ended.len();
    }
}

/// Kills those there are, and tells which that were.
fn kill_all(is_meant: &impl Fn(&Running) -> bool) -> io::Result<Vec<OwnedFd>> {
    let mut ended = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let path = entry?.path();
        let pid = path.file_name().and_then(|name| name.to_str()?.parse().ok()).and_then(Pid::from_raw);
        let meant = || Running::of(&path).is_some_and(|running| is_meant(&running));
        let Some(pid) = pid.filter(|_| meant()) else { continue };
        // Whoever has ended meanwhile needs nothing, and nobody else may be met under its number.
        let Ok(process) = pidfd_open(pid, PidfdFlags::empty()) else { continue };
        if !meant() {
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

// === impl Running ===

impl Running {
    /// What a process is executed for, if it is a plugin of ours: its standard input says so, and names the container.
    fn of(process: &Path) -> Option<Self> {
        let stdin = fs::read_link(process.join("fd/0")).ok()?;
        let name = stdin.to_str()?.strip_prefix("/memfd:")?.strip_prefix(STDIN)?;
        let container_id = name.strip_suffix(" (deleted)").unwrap_or(name).to_owned();
        let environment = fs::read(process.join("environ")).ok()?;
        let variable = |name: &str| {
            let mut entries = environment.split(|byte| *byte == 0);
            entries.find_map(|entry| entry.strip_prefix(name.as_bytes()))
        };
        let command = String::from_utf8_lossy(variable("CNI_COMMAND=")?).into_owned();
        Some(Self { command, container_id, netns: OsStr::from_bytes(variable("CNI_NETNS=")?).into() })
    }
}
