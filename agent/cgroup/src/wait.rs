//! Waiting until no process is left in a cgroup.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use coracle_linux::ReadinessFd;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tokio::io::Interest;

use crate::files::{self, if_there, is_gone};
use crate::kubepods::subdirs;
use crate::{Cgroup, Error};

/// What tells that a cgroup may have become empty.
enum Watch {
    /// It is empty or gone.
    Empty,
    /// The v2 tree's `cgroup.events`: the kernel wakes whoever polls it when a line of it changes.
    Events(OwnedFd),
    /// On v1 there is no event for a group: a process that is in it, whose end is awaited before
    /// looking again.
    Process(OwnedFd),
}

/// How often to look without having been told. The kernel holds back what comes within 10 ms of another event
/// (`CGROUP_FILE_NOTIFY_MIN_INTV`), and forgets it when the cgroup is removed meanwhile, as systemd removes a scope's.
const LOOK: Duration = Duration::from_millis(100);

impl Cgroup {
    /// Waits until no process is left in it and the cgroups below it. A cgroup that is not there is
    /// empty.
    ///
    /// # Errors
    /// When the kernel's files cannot be read.
    pub async fn wait_empty(&self) -> Result<(), Error> {
        let failed = |source: io::Error| Error::Wait { path: self.path(), source };
        loop {
            match self.watch()? {
                Watch::Empty => return Ok(()),
                Watch::Events(file) => {
                    let file = ReadinessFd::new(file, Interest::PRIORITY).map_err(failed)?;
                    loop {
                        // Reading arms the next event, so it comes before the wait.
                        if !populated(file.get_ref()).map_err(failed)? {
                            return Ok(());
                        }
                        match tokio::time::timeout(LOOK * 10, file.ready(Interest::PRIORITY)).await {
                            Ok(ready) => ready.map_err(failed)?.clear_ready(),
                            // It may be gone: opened again, that is seen.
                            Err(_) => break,
                        }
                    }
                }
                Watch::Process(pidfd) => {
                    let pidfd = ReadinessFd::new(pidfd, Interest::READABLE).map_err(failed)?;
                    pidfd.readable().await.map_err(failed)?.retain_ready();
                }
            }
        }
    }

    /// [`Cgroup::wait_empty`] for callers that may block: for at most `limit`; whether it is empty.
    ///
    /// # Errors
    /// When the kernel's files cannot be read.
    pub fn wait_empty_for(&self, limit: Duration) -> Result<bool, Error> {
        let deadline = Instant::now() + limit;
        let failed = |source: io::Error| Error::Wait { path: self.path(), source };
        loop {
            let (fd, flags) = match self.watch()? {
                Watch::Empty => return Ok(true),
                Watch::Events(file) => {
                    if !populated(&file).map_err(failed)? {
                        return Ok(true);
                    }
                    (file, PollFlags::PRI)
                }
                Watch::Process(pidfd) => (pidfd, PollFlags::IN),
            };
            let look = deadline.min(Instant::now() + LOOK);
            if !poll_until(fd.as_fd(), flags, look).map_err(failed)? && look == deadline {
                return Ok(false);
            }
        }
    }

    fn watch(&self) -> Result<Watch, Error> {
        if let Some(dir) = self.v2_dir() {
            let path = dir.join("cgroup.events");
            return match File::open(&path) {
                Ok(file) => Ok(Watch::Events(file.into())),
                Err(error) if is_gone(&error) => Ok(Watch::Empty),
                Err(source) => Err(Error::Read { path, source }),
            };
        }
        loop {
            let Some(pid) = self.pids()?.first().copied() else { return Ok(Watch::Empty) };
            // A process still listed after its descriptor was opened is the one that was listed.
            if let Some(pidfd) =
                open_pidfd(pid).map_err(|source| Error::Wait { path: self.path(), source })?
                && self.pids()?.contains(&pid)
            {
                return Ok(Watch::Process(pidfd));
            }
        }
    }

    /// The processes in it and the cgroups below it.
    ///
    /// # Errors
    /// When the kernel's files cannot be read.
    pub fn pids(&self) -> Result<Vec<u32>, Error> {
        let mut pids = Vec::new();
        if let Some(dir) = self.member_dir() {
            collect_pids(&dir, &mut pids)?;
        }
        pids.sort_unstable();
        pids.dedup();
        Ok(pids)
    }

    /// The directory that lists its processes: of the v2 tree, or of the v1 hierarchy all are in.
    pub(crate) fn member_dir(&self) -> Option<std::path::PathBuf> {
        self.v2_dir().or_else(|| Some(self.member_hierarchy()?.mount.join(self.relative())))
    }
}

fn collect_pids(dir: &Path, pids: &mut Vec<u32>) -> Result<(), Error> {
    let Some(text) = if_there(files::read(&dir.join("cgroup.procs")))? else { return Ok(()) };
    // 0 stands for a process of a pid namespace that is not below this one.
    pids.extend(text.lines().filter_map(|line| line.parse::<u32>().ok()).filter(|pid| *pid != 0));
    for name in subdirs(dir)? {
        collect_pids(&dir.join(name), pids)?;
    }
    Ok(())
}

/// A descriptor of a process, unless it is gone.
pub(crate) fn open_pidfd(pid: u32) -> io::Result<Option<OwnedFd>> {
    let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return Ok(None) };
    match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(fd) => Ok(Some(fd)),
        Err(rustix::io::Errno::SRCH) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

/// Polls one descriptor; whether it was ready before the deadline.
pub(crate) fn poll_until(
    fd: std::os::fd::BorrowedFd<'_>,
    flags: PollFlags,
    deadline: Instant,
) -> io::Result<bool> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = Timespec {
            tv_sec: left.as_secs().try_into().unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        };
        match poll(&mut [PollFd::new(&fd, flags)], Some(&left)) {
            Ok(ready) => return Ok(ready > 0),
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

fn populated(events: impl AsFd) -> io::Result<bool> {
    let mut text = [0; 256];
    match rustix::io::pread(events, &mut text, 0).map_err(io::Error::from) {
        Ok(length) => Ok(files::keyed(&String::from_utf8_lossy(&text[..length]), "populated") != Some(0)),
        Err(error) if is_gone(&error) => Ok(false),
        Err(error) => Err(error),
    }
}
