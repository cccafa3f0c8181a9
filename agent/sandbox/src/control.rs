//! The agent's end of a container-init's control socket.

use std::future::Future;
use std::os::fd::OwnedFd;
use std::time::Duration;

use coracle_init::protocol::{self, Config, ProtocolError, Report, Setup};
use coracle_linux::ReadinessFd;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use tokio::io::Interest;

use crate::error::{Error, system};

/// How long preparing a container may take. Everything slow (images, volumes) was done before.
const PREPARE_LIMIT: Duration = Duration::from_secs(60);
/// How long execve may take: the program may lie on a slow disk.
const EXEC_LIMIT: Duration = Duration::from_secs(60);

/// A started container-init.
pub(crate) struct Control {
    socket: ReadinessFd,
}

/// What init has prepared.
#[derive(Debug, Default)]
pub(crate) struct Prepared {
    /// The process that waits, where it is another than the one that was started.
    pub(crate) pid: Option<u32>,
    /// The terminal's master.
    pub(crate) console: Option<OwnedFd>,
    /// What the host refused.
    pub(crate) warnings: Vec<String>,
}

// === impl Control ===

impl Control {
    /// A socket pair: the agent's end, and the one for init.
    pub(crate) fn pair() -> Result<(Self, OwnedFd), Error> {
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .map_err(system("make a socket pair for container-init"))?;
        rustix::io::ioctl_fionbio(&ours, true).map_err(system("make a socket non-blocking"))?;
        let socket =
            ReadinessFd::new(ours, Interest::READABLE).map_err(system("watch container-init's socket"))?;
        Ok((Self { socket }, theirs))
    }

    /// Hands over the configuration and its descriptors.
    pub(crate) fn send_setup(&self, setup: Setup<'_>, config: &Config) -> Result<(), Error> {
        Ok(setup.send(self.socket.get_ref(), config)?)
    }

    /// Waits until init has prepared everything up to execve.
    pub(crate) async fn prepared(&self) -> Result<Prepared, Error> {
        within("preparing the container", PREPARE_LIMIT, async {
            let mut console = None;
            loop {
                match self.report().await? {
                    Some((Report::Console, master)) => console = master,
                    Some((Report::Created { pid, warnings }, _)) => {
                        let pid = pid.and_then(|pid| u32::try_from(pid).ok());
                        return Ok(Prepared { pid, console, warnings });
                    }
                    Some((Report::Failed(failure), _)) => return Err(Error::Init(failure)),
                    None => return Err(Error::InitDied),
                }
            }
        })
        .await
    }

    /// Lets init execute the program, and waits until it did.
    pub(crate) async fn start(&self) -> Result<(), Error> {
        protocol::send_start(self.socket.get_ref())?;
        within("executing the program", EXEC_LIMIT, async {
            match self.report().await? {
                None => Ok(()),
                Some((Report::Failed(failure), _)) => Err(Error::Init(failure)),
                Some(_) => Err(ProtocolError::Broken("a report after Start that is no failure").into()),
            }
        })
        .await
    }

    async fn report(&self) -> Result<Option<(Report, Option<OwnedFd>)>, Error> {
        loop {
            let mut guard = self.socket.readable().await.map_err(system("wait for container-init"))?;
            match protocol::receive_report(self.socket.get_ref()) {
                // EAGAIN and EWOULDBLOCK are one number on Linux.
                Err(ProtocolError::Socket(_, Errno::AGAIN)) => guard.clear_ready(),
                result => return Ok(result?),
            }
        }
    }
}

async fn within<T>(
    step: &'static str,
    limit: Duration,
    work: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    tokio::time::timeout(limit, work).await.unwrap_or(Err(Error::Timeout { step, limit }))
}
