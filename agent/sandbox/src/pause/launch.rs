//! Starting pause.

use std::ffi::{CString, NulError};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use coracle_linux::ReadinessFd;
use coracle_pause_wire::{STARTUP_STATUS_SIZE, StartupStatus, launch, sandbox};
use rustix::fs::{AtFlags, Mode, OFlags, openat, unlinkat};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, socket_with};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, pidfd_open, pidfd_send_signal, waitid,
};
use tokio::io::Interest;

use super::PauseError;

/// How a pod's pause is to be started.
#[derive(Clone, Copy, Debug)]
pub struct Launch<'a> {
    /// The program, as a sealed memfd.
    pub program: BorrowedFd<'a>,
    /// The pod's directory, for the socket and the ledger. No other pause may live there.
    pub directory: BorrowedFd<'a>,
    /// `cgroup.procs` of the cgroups pause attaches itself to, in this order; at most 32.
    pub cgroups: &'a [BorrowedFd<'a>],
    /// A network namespace of its own, with loopback up.
    pub network: bool,
    /// An ipc namespace of its own.
    pub ipc: bool,
    /// A uts namespace of its own, with this host name; the host's without.
    pub host_name: Option<&'a str>,
    /// A pid namespace for containers to share.
    pub shared_pid: bool,
    /// How long it may take until pause serves.
    pub timeout: Duration,
}

/// A pause that serves. Killed and reaped when dropped, until somebody connected to it has taken it over.
#[derive(Debug)]
pub struct Launched {
    /// Its pid. It is the agent's child.
    pub pid: Pid,
    /// A pidfd of it.
    pub pidfd: OwnedFd,
    /// Why it could not protect itself from the OOM killer, if the host refused.
    pub oom_score_adj_refused: Option<Errno>,
    taken_over: bool,
}

/// Starts a pod's pause, and waits until it serves or gives up.
///
/// If it does not come to serve, or this is cancelled, it is killed and reaped.
///
/// # Errors
/// The step that failed, the agent's or pause's.
pub async fn launch(how: &Launch<'_>) -> Result<Launched, PauseError> {
    let socket = bind_socket(how.directory)?;
    let ledger = open_ledger(how.directory)?;
    let (status, status_writer) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)
        .map_err(PauseError::at("make pause's status pipe"))?;
    let started = Started::start(how, &[socket.as_fd(), ledger.as_fd(), status_writer.as_fd()])?;
    drop((socket, ledger, status_writer));

    let status = ReadinessFd::new(status, Interest::READABLE)
        .map_err(PauseError::at_io("watch pause's status pipe"))?;
    let status = tokio::time::timeout(how.timeout, read_status(&status))
        .await
        .map_err(|_| PauseError::Timeout { request: "start", after: how.timeout })?
        .map_err(PauseError::at_io("read pause's status"))?
        .ok_or(PauseError::StartDied)?;
    if let Some((step, errno)) = status.failed {
        return Err(PauseError::Start { step, errno: Errno::from_raw_os_error(errno) });
    }
    let refused = status.oom_score_adj_errno;
    started.served((refused != 0).then(|| Errno::from_raw_os_error(refused)))
}

/// Where a path in the directory is, without a limit on the directory's own path.
pub(super) fn socket_address(directory: BorrowedFd<'_>) -> Result<SocketAddrUnix, Errno> {
    SocketAddrUnix::new(format!("/proc/self/fd/{}/{}", directory.as_raw_fd(), launch::SOCKET_NAME))
}

/// Binds, and leaves it to pause to listen.
fn bind_socket(directory: BorrowedFd<'_>) -> Result<OwnedFd, PauseError> {
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
        .map_err(PauseError::at("make pause's socket"))?;
    // One that is there is of a pause that died.
    match unlinkat(directory, launch::SOCKET_NAME, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(errno) => return Err(PauseError::at("remove the socket of a pause that died")(errno)),
    }
    let bound = socket_address(directory).and_then(|address| bind(&socket, &address));
    bound.map_err(PauseError::at("bind pause's socket"))?;
    Ok(socket)
}

fn open_ledger(directory: BorrowedFd<'_>) -> Result<OwnedFd, PauseError> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::APPEND | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    openat(directory, launch::LEDGER_NAME, flags, Mode::RUSR | Mode::WUSR)
        .map_err(PauseError::at("open the exit ledger"))
}

/// Reads the one record; `None` when pause ended without writing it.
async fn read_status(pipe: &ReadinessFd) -> io::Result<Option<StartupStatus>> {
    let mut bytes = [0; STARTUP_STATUS_SIZE];
    // Written in one piece, far below what a pipe takes atomically.
    let length = pipe.async_io(Interest::READABLE, |pipe| Ok(rustix::io::read(pipe, &mut bytes)?)).await?;
    Ok(bytes.get(..length).and_then(StartupStatus::decode))
}

/// A pause that was started; killed and reaped unless it comes to serve.
struct Started {
    pid: Pid,
    pidfd: Option<OwnedFd>,
}

// === impl Launched ===

impl Launched {
    /// Leaves it to a client that is connected to it, which reaps it when it dies.
    pub fn take_over(mut self) {
        self.taken_over = true;
    }
}

impl Drop for Launched {
    fn drop(&mut self) {
        if !self.taken_over {
            end(self.pid, Some(&self.pidfd));
        }
    }
}

// === impl Started ===

impl Started {
    fn start(how: &Launch<'_>, own: &[BorrowedFd<'_>]) -> Result<Self, PauseError> {
        let mut flags = 0;
        for (wanted, flag) in [
            (how.network, sandbox::NEWNET),
            (how.ipc, sandbox::NEWIPC),
            (how.host_name.is_some(), sandbox::NEWUTS),
            (how.shared_pid, sandbox::SHARED_PID),
        ] {
            if wanted {
                flags |= flag;
            }
        }
        let invalid = |_: NulError| PauseError::at("pass pause its host name")(Errno::INVAL);
        let flags = CString::new(format!("{flags:x}")).map_err(invalid)?;
        let cgroups = CString::new(how.cgroups.len().to_string()).map_err(invalid)?;
        let host_name = CString::new(how.host_name.unwrap_or_default()).map_err(invalid)?;
        let descriptors = [own, how.cgroups].concat();
        let pid = coracle_linux::spawn(&coracle_linux::Spawn {
            program: how.program,
            arguments: &[c"pause", &flags, &cgroups, &host_name],
            first: launch::SOCKET,
            descriptors: &descriptors,
        })
        .map_err(PauseError::at("start pause"))?;
        // Our own child, which nobody else waits for: the pid is its.
        let mut started = Self { pid, pidfd: None };
        started.pidfd =
            Some(pidfd_open(pid, PidfdFlags::empty()).map_err(PauseError::at("open a pidfd of pause"))?);
        Ok(started)
    }

    fn served(mut self, oom_score_adj_refused: Option<Errno>) -> Result<Launched, PauseError> {
        let pidfd = self.pidfd.take().ok_or(PauseError::StartDied)?;
        let launched = Launched { pid: self.pid, pidfd, oom_score_adj_refused, taken_over: false };
        std::mem::forget(self);
        Ok(launched)
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        end(self.pid, self.pidfd.as_ref());
    }
}

/// Kills and reaps a child. One that was reaped before is left alone: its pidfd says so.
pub(super) fn end(pid: Pid, pidfd: Option<&OwnedFd>) {
    let killed = match pidfd {
        Some(pidfd) => pidfd_send_signal(pidfd, Signal::KILL),
        None => rustix::process::kill_process(pid, Signal::KILL),
    };
    if killed.is_ok() {
        // It is single-threaded and dying, so this is short.
        while let Err(Errno::INTR) = waitid(WaitId::Pid(pid), WaitIdOptions::EXITED) {}
    }
}
