//! The agent's end of a container-init's control socket.

use std::future::Future;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use coracle_init::protocol::{self, Config, Failure, ProtocolError, Report, Setup};
use coracle_linux::ReadinessFd;
use rustix::fs::{FileType, fstat};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use tokio::io::Interest;

use crate::error::{Error, system};
use crate::init_end::InitEnd;

/// How long preparing a container may take. Everything slow (images, volumes) was done before.
const PREPARE_LIMIT: Duration = Duration::from_secs(60);
/// How long execve may take: the program may lie on a slow disk.
const EXEC_LIMIT: Duration = Duration::from_secs(60);

const UNEXPECTED: ProtocolError = ProtocolError::Broken("a report after Created that is no failure");

const OUT_OF_TURN: ProtocolError = ProtocolError::Broken("a report out of its turn");

/// A started container-init.
pub(crate) struct Control {
    socket: ReadinessFd,
    /// What hooks in the container's namespaces have said that nobody was told yet.
    said: Mutex<Vec<String>>,
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

/// How far a container-init is that an agent before this one has left.
#[derive(Debug)]
pub(crate) enum Progress {
    /// Its end is open: it waits for Start, or has not come to execute the program.
    Waiting,
    /// Its end is closed: the program was executed, or init was killed.
    Executed,
    /// The program could not be executed.
    Failed(Failure),
}

// === impl Control ===

impl Control {
    /// A socket pair: the agent's end, and the one for init.
    pub(crate) fn pair() -> Result<(Self, OwnedFd), Error> {
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .map_err(system("make a socket pair for container-init"))?;
        Ok((Self::new(ours)?, theirs))
    }

    fn new(socket: OwnedFd) -> Result<Self, Error> {
        rustix::io::ioctl_fionbio(&socket, true).map_err(system("make a socket non-blocking"))?;
        let socket =
            ReadinessFd::new(socket, Interest::READABLE).map_err(system("watch container-init's socket"))?;
        Ok(Self { socket, said: Mutex::default() })
    }

    /// The agent's end again, out of what pause held for the container; `None` when it was not given to pause.
    pub(crate) fn from_held(held: &mut Vec<OwnedFd>) -> Result<Option<Self>, Error> {
        // It is the only socket among pipes and a terminal.
        let is_socket = |descriptor: &OwnedFd| {
            fstat(descriptor).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Socket)
        };
        let Some(at) = held.iter().position(is_socket) else { return Ok(None) };
        Self::new(held.remove(at)).map(Some)
    }

    /// For pause to hold: while it does, init outlives the agent.
    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.get_ref().as_fd()
    }

    /// Hands over the configuration and its descriptors.
    pub(crate) fn send_setup(&self, setup: Setup<'_>, config: &Config) -> Result<(), Error> {
        setup.send(self.socket.get_ref(), config).map_err(|error| self.unheard(error))
    }

    /// Waits until init has prepared everything up to execve.
    /// Hooks in the container's namespaces may take `hooks` in all beside what that takes.
    pub(crate) async fn prepared(&self, hooks: Duration) -> Result<Prepared, Error> {
        within("preparing the container", PREPARE_LIMIT.saturating_add(hooks), async {
            let mut console = None;
            loop {
                match self.report().await? {
                    Some((Report::Console, master)) => console = master,
                    Some((Report::Created { pid, warnings }, _)) => {
                        let pid = pid.and_then(|pid| u32::try_from(pid).ok());
                        return Ok(Prepared { pid, console, warnings });
                    }
                    Some((Report::Failed(failure), _)) => return Err(Error::Init(failure)),
                    Some(_) => return Err(OUT_OF_TURN.into()),
                    None => return Err(Error::InitDied(InitEnd::default())),
                }
            }
        })
        .await
    }

    /// Waits until namespaces and mounts are made, where hooks of the runtime have their turn then.
    pub(crate) async fn environment(&self) -> Result<(), Error> {
        within("preparing the container", PREPARE_LIMIT, async {
            match self.report().await? {
                Some((Report::Environment, _)) => Ok(()),
                Some((Report::Failed(failure), _)) => Err(Error::Init(failure)),
                Some(_) => Err(OUT_OF_TURN.into()),
                None => Err(Error::InitDied(InitEnd::default())),
            }
        })
        .await
    }

    /// Tells init that they were executed.
    pub(crate) fn proceed(&self) -> Result<(), Error> {
        protocol::send_proceed(self.socket.get_ref()).map_err(|error| self.unheard(error))
    }

    /// What hooks have said by now, once.
    pub(crate) fn said(&self) -> Vec<String> {
        std::mem::take(&mut self.said.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What an init that was prepared has done since.
    pub(crate) fn progress(&self) -> Result<Progress, Error> {
        match self.receive() {
            Err(ProtocolError::Socket(_, Errno::AGAIN)) => Ok(Progress::Waiting),
            Ok(None) => Ok(Progress::Executed),
            Ok(Some((Report::Failed(failure), _))) => Ok(Progress::Failed(failure)),
            Ok(Some(_)) => Err(UNEXPECTED.into()),
            Err(error) => Err(error.into()),
        }
    }

    /// Lets init execute the program, and waits until it did. The container's own hooks may take `hooks` before.
    pub(crate) async fn start(&self, hooks: Duration) -> Result<(), Error> {
        protocol::send_start(self.socket.get_ref()).map_err(|error| self.unheard(error))?;
        self.executed(hooks).await
    }

    /// The same where an agent before this one may have done it: init executes its program once, however often
    /// it is told to.
    pub(crate) async fn start_again(&self, hooks: Duration) -> Result<(), Error> {
        match protocol::send_start(self.socket.get_ref()) {
            // It has done what it was told and closed its end, or was told more often than its socket holds.
            Err(ProtocolError::Socket(_, Errno::PIPE | Errno::CONNRESET | Errno::AGAIN)) => {}
            sent => sent?,
        }
        self.executed(hooks).await
    }

    /// Why it could not be told something: where it has closed its end, it may have said why before.
    fn unheard(&self, error: ProtocolError) -> Error {
        if !matches!(error, ProtocolError::Socket(_, Errno::PIPE | Errno::CONNRESET)) {
            return error.into();
        }
        loop {
            match self.receive() {
                Ok(Some((Report::Failed(failure), _))) => return Error::Init(failure),
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => return Error::InitDied(InitEnd::default()),
            }
        }
    }

    async fn executed(&self, hooks: Duration) -> Result<(), Error> {
        within("executing the program", EXEC_LIMIT.saturating_add(hooks), async {
            match self.report().await? {
                None => Ok(()),
                Some((Report::Failed(failure), _)) => Err(Error::Init(failure)),
                Some(_) => Err(UNEXPECTED.into()),
            }
        })
        .await
    }

    /// The next report of how far it is.
    fn receive(&self) -> Result<Option<(Report, Option<OwnedFd>)>, ProtocolError> {
        loop {
            match protocol::receive_report(self.socket.get_ref())? {
                Some((Report::Said(words), _)) => {
                    self.said.lock().unwrap_or_else(PoisonError::into_inner).push(words);
                }
                report => return Ok(report),
            }
        }
    }

    async fn report(&self) -> Result<Option<(Report, Option<OwnedFd>)>, Error> {
        loop {
            let mut guard = self.socket.readable().await.map_err(system("wait for container-init"))?;
            match self.receive() {
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

#[cfg(test)]
mod tests {
    use coracle_init::protocol::ExecConfig;

    use super::*;

    #[tokio::test]
    async fn an_init_that_has_closed_its_end_has_done_what_it_was_told() {
        let (control, init) = Control::pair().unwrap();
        assert!(matches!(control.progress(), Ok(Progress::Waiting)));
        drop(init);
        assert!(matches!(control.progress(), Ok(Progress::Executed)));
        control.start_again(Duration::ZERO).await.unwrap();
        // Before it was told, it has only died.
        control.start(Duration::ZERO).await.unwrap_err();
    }

    #[tokio::test]
    async fn what_an_init_said_before_it_closed_its_end_is_why_it_is_not_reached() {
        let failure = || Failure {
            step: "setup".to_owned(),
            path: None,
            errno: Some(12),
            message: "no memory for the descriptors".to_owned(),
        };
        for said in [true, false] {
            for tell in [Control::proceed, |control: &Control| {
                control.send_setup(Setup::new(), &Config::Exec(Box::new(nothing())))
            }] {
                let (control, init) = Control::pair().unwrap();
                protocol::send_report(&init, &Report::Environment, None).unwrap();
                if said {
                    protocol::send_report(&init, &Report::Failed(failure()), None).unwrap();
                }
                drop(init);
                match tell(&control).unwrap_err() {
                    Error::Init(why) if said => assert_eq!(why, failure()),
                    Error::InitDied(_) if !said => {}
                    other => panic!("{other}"),
                }
            }
        }
    }

    #[tokio::test]
    async fn what_hooks_say_is_kept_for_whoever_asks_and_is_no_report_of_how_far_init_is() {
        let (control, init) = Control::pair().unwrap();
        let say = |words: &str| protocol::send_report(&init, &Report::Said(words.to_owned()), None).unwrap();
        say("one");
        say("two");
        protocol::send_report(&init, &Report::Created { pid: None, warnings: Vec::new() }, None).unwrap();
        control.prepared(Duration::ZERO).await.unwrap();
        assert_eq!(control.said(), ["one", "two"]);
        say("three");
        assert!(matches!(control.progress(), Ok(Progress::Waiting)));
        say("four");
        drop(init);
        control.start_again(Duration::ZERO).await.unwrap();
        assert_eq!(control.said(), ["three", "four"]);
        assert!(control.said().is_empty());
    }

    fn nothing() -> ExecConfig {
        let (container, namespaces, cgroup_procs) =
            (Setup::new().pass(std::io::stdin().as_fd()), vec![], vec![]);
        ExecConfig {
            process: oci_spec::runtime::Process::default(),
            container,
            namespaces,
            cgroup_procs,
            seccomp: None,
        }
    }

    #[tokio::test]
    async fn an_init_that_does_not_look_is_told_no_more_than_its_socket_holds() {
        let (control, init) = Control::pair().unwrap();
        while protocol::send_start(control.as_fd()).is_ok() {}
        let ends = async {
            tokio::task::yield_now().await;
            drop(init);
        };
        let (started, ()) = tokio::join!(control.start_again(Duration::ZERO), ends);
        started.unwrap();
    }

    #[tokio::test]
    async fn the_control_socket_is_found_among_what_was_held() {
        let (control, init) = Control::pair().unwrap();
        let (read, write) = std::io::pipe().unwrap();
        let held = control.as_fd().try_clone_to_owned().unwrap();
        let mut held = vec![read.into(), held, write.into()];
        let again = Control::from_held(&mut held).unwrap().unwrap();
        assert_eq!(held.len(), 2);
        protocol::send_start(again.as_fd()).unwrap();
        assert!(protocol::receive_start(&init).unwrap());
        assert!(Control::from_held(&mut held).unwrap().is_none());
    }
}
