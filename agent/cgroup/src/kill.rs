//! Killing everything in a cgroup.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use rustix::process::{Signal, pidfd_send_signal};

use crate::files::{self, is_gone};
use crate::host::{Controller, Place};
use crate::wait::{open_pidfd, poll_until};
use crate::{Cgroup, Error};

/// How long killing one by one may take before it is given up.
const LIMIT: Duration = Duration::from_secs(5);

impl Cgroup {
    /// Sends SIGKILL to every process in it and the cgroups below it, those that are being forked
    /// included. A cgroup that is not there is no error. [`Cgroup::wait_empty`] tells when all are gone.
    ///
    /// On a host without a v2 tree, or a kernel before 5.14, this signals one by one until none is left.
    ///
    /// # Errors
    /// When the kernel refuses, or processes outlive the signal.
    pub fn kill(&self) -> Result<(), Error> {
        let failed = |source: io::Error| Error::Kill { path: self.path(), source };
        if let Some(dir) = self.v2_dir() {
            return match files::write(&dir.join("cgroup.kill"), "1") {
                Ok(()) => Ok(()),
                Err(error) if is_gone(&error) && dir.is_dir() => self.kill_each(),
                Err(error) if is_gone(&error) => Ok(()),
                Err(error) => Err(failed(error)),
            };
        }
        self.kill_each()
    }

    fn kill_each(&self) -> Result<(), Error> {
        let failed = |source: io::Error| Error::Kill { path: self.path(), source };
        self.stop_forks()?;
        let started = Instant::now();
        let deadline = started + LIMIT;
        loop {
            let mut opened: Vec<(u32, OwnedFd)> = Vec::new();
            let pids = self.pids()?;
            if pids.is_empty() {
                return Ok(());
            }
            for pid in &pids {
                opened.extend(open_pidfd(*pid).map_err(failed)?.map(|pidfd| (*pid, pidfd)));
            }
            // A number can be given to another process between the list and the open. One that is still
            // listed now was opened as a member.
            let members = self.pids()?;
            opened.retain(|(pid, _)| members.contains(pid));
            for (_, pidfd) in &opened {
                match pidfd_send_signal(pidfd, Signal::KILL) {
                    Ok(()) | Err(rustix::io::Errno::SRCH) => {}
                    Err(errno) => return Err(failed(errno.into())),
                }
            }
            for (_, pidfd) in &opened {
                if !poll_until(pidfd.as_fd(), PollFlags::IN, deadline).map_err(failed)? {
                    return Err(Error::StillAlive { path: self.path(), pids, waited: started.elapsed() });
                }
            }
            if Instant::now() >= deadline {
                return Err(Error::StillAlive {
                    path: self.path(),
                    pids: self.pids()?,
                    waited: started.elapsed(),
                });
            }
        }
    }

    /// Lets every further fork fail, so that killing one by one comes to an end. What is killed is never
    /// started again in the same cgroup: a container that restarts has another identifier.
    fn stop_forks(&self) -> Result<(), Error> {
        let dir = match self.host().place(Controller::Pids) {
            Some(Place::V2(mount)) => mount.join(self.relative()),
            Some(Place::V1(hierarchy)) => hierarchy.mount.join(self.relative()),
            None => return Ok(()),
        };
        let path: &Path = &dir.join("pids.max");
        match files::write(path, "0") {
            Ok(()) => Ok(()),
            Err(error) if is_gone(&error) => Ok(()),
            Err(source) => Err(Error::Write { path: path.to_owned(), value: "0".into(), source }),
        }
    }
}
