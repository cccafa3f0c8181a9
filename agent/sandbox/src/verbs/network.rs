//! The way into a pod's network, and how long it leads anywhere.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;

use coracle_linux::ReadinessFd;
use coracle_model::PodUid;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use tokio::io::Interest;

use crate::error::{Error, system};
use crate::pause::PauseClient;
use crate::runtime::Runtime;

impl Runtime {
    /// The pod's network namespace, for `coracle_linux::socket_in_namespace`: the host's where the pod
    /// shares it. Holding the descriptor keeps the namespace, so let it go with the work it is for.
    ///
    /// # Errors
    /// [`Error::NoSandbox`] when the pod has none, or its pause is dead.
    pub fn network_namespace(&self, uid: &PodUid) -> Result<OwnedFd, Error> {
        let state = self.inner.pod(uid).ok_or_else(|| Error::NoSandbox(uid.clone()))?;
        let sandbox = state.sandbox()?;
        match open(&sandbox.client) {
            Err(error) if matches!(Errno::from_io_error(&error), Some(Errno::NOENT | Errno::SRCH)) => {
                Err(Error::NoSandbox(uid.clone()))
            }
            opened => opened.map_err(system("open the pod's network namespace")),
        }
    }

    /// Resolves when the pod's sandbox is gone: what still holds its network namespace is to let go.
    ///
    /// # Errors
    /// [`Error::NoSandbox`] when the pod has none.
    pub fn sandbox_end(&self, uid: &PodUid) -> Result<impl Future<Output = ()> + Send + use<>, Error> {
        let state = self.inner.pod(uid).ok_or_else(|| Error::NoSandbox(uid.clone()))?;
        let sandbox = state.sandbox()?;
        let pidfd = sandbox.client.pidfd().try_clone_to_owned();
        let pidfd = pidfd.and_then(|pidfd| ReadinessFd::new(pidfd, Interest::READABLE));
        let pidfd = pidfd.map_err(system("watch the pod's pause"))?;
        // It fails only where the runtime ends, and with it whoever waits.
        Ok(async move { drop(pidfd.readable().await) })
    }
}

fn open(pause: &PauseClient) -> io::Result<OwnedFd> {
    let opened = File::open(format!("/proc/{}/ns/net", pause.pid().as_raw_nonzero()))?;
    // A pid names another process only after the one it named has ended. pause has not, now: so what was
    // opened is its own.
    let pidfd = pause.pidfd();
    let mut ended = [PollFd::new(&pidfd, PollFlags::IN)];
    match poll(&mut ended, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))? {
        0 => Ok(opened.into()),
        _ => Err(Errno::SRCH.into()),
    }
}
