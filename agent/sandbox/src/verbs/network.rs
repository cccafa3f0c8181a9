//! The way into a pod's network, and how long it leads anywhere.

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use coracle_linux::ReadinessFd;
use coracle_model::PodUid;
use tokio::io::Interest;

use crate::error::{Error, system};
use crate::runtime::Runtime;

impl Runtime {
    /// A pidfd of the pod's pause, which is in the pod's network namespace: for `coracle_linux::socket_in_namespace`.
    /// Holding it keeps nothing of the pod.
    ///
    /// # Errors
    /// [`Error::NoSandbox`] when the pod has none, or its pause is dead.
    pub fn in_network(&self, uid: &PodUid) -> Result<OwnedFd, Error> {
        let state = self.inner.pod(uid).ok_or_else(|| Error::NoSandbox(uid.clone()))?;
        let pidfd = state.sandbox()?.client.pidfd().try_clone_to_owned();
        pidfd.map_err(system("duplicate the pidfd of pause"))
    }

    /// The pod's network namespace by path, for whoever cannot be given a descriptor. It leads there for as long as
    /// the sandbox is there.
    ///
    /// # Errors
    /// [`Error::NoSandbox`] when the pod has none, or its pause is dead.
    pub fn network_namespace(&self, uid: &PodUid) -> Result<PathBuf, Error> {
        let state = self.inner.pod(uid).ok_or_else(|| Error::NoSandbox(uid.clone()))?;
        let pid = state.sandbox()?.client.pid();
        Ok(PathBuf::from(format!("/proc/{}/ns/net", pid.as_raw_nonzero())))
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
