//! What can go wrong in the runtime.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use coracle_init::protocol::{Failure, ProtocolError};
use coracle_model::{ContainerId, FqdnTooLong, PodUid};
use oci_spec::OciSpecError;

use crate::init_end::InitEnd;
use crate::logs::PumpError;
use crate::pause::PauseError;
use crate::pod::MOST_EXECS;
use crate::programs::ProgramsError;

/// A verb that failed, by the step that did.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The runtime specification could not be put together.
    #[error("cannot build the OCI runtime specification: {0}")]
    Spec(#[source] OciSpecError),
    /// The pod cannot be named as it asks to be.
    #[error(transparent)]
    HostName(#[from] FqdnTooLong),
    /// /dev of the host could not be listed for a privileged container.
    #[error("cannot list the host's devices in /dev: {0}")]
    HostDevices(#[source] io::Error),
    /// What a device brings into a container cannot be had, or is nothing a container is given.
    #[error("{edit} {path} of a device: {why}")]
    Edit {
        /// What kind of edit.
        edit: &'static str,
        /// Its path or name.
        path: String,
        /// Why not.
        why: String,
    },
    /// A hook failed that must not.
    #[error("{0}")]
    Hook(String),
    /// A name in `securityContext.capabilities` is no capability.
    #[error("unknown capability {name:?} in securityContext.capabilities")]
    Capability {
        /// As it was given.
        name: String,
    },
    /// The seccomp profile could not be read or compiled.
    #[error("seccomp profile {profile}: {message}")]
    Seccomp {
        /// Which.
        profile: String,
        /// Why.
        message: String,
    },
    /// The embedded programs could not be put into memory.
    #[error(transparent)]
    Programs(#[from] ProgramsError),
    /// A cgroup could not be made, changed or removed.
    #[error(transparent)]
    Cgroup(#[from] coracle_cgroup::Error),
    /// pause could not be started, or did not do what it was asked.
    #[error(transparent)]
    Pause(#[from] PauseError),
    /// container-init named a step that failed.
    #[error(transparent)]
    Init(Failure),
    /// The exchange with container-init broke.
    #[error("the exchange with container-init failed: {0}")]
    Control(#[from] ProtocolError),
    /// container-init ended without a word.
    #[error("container-init ended before it reported: {0}")]
    InitDied(InitEnd),
    /// The sandbox of a program went away, and with it whoever would have told how it ended.
    #[error("how the program ended is not known: its pod's sandbox went away")]
    ExitUnknown,
    /// A step took longer than it may.
    #[error("{step} took longer than {} s", limit.as_secs())]
    Timeout {
        /// Which.
        step: &'static str,
        /// How long it had.
        limit: Duration,
    },
    /// A file or directory of the runtime could not be used.
    #[error("cannot {step} {}: {source}", path.display())]
    File {
        /// What was tried.
        step: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// A system call that is about no file.
    #[error("cannot {step}: {source}")]
    System {
        /// What was tried.
        step: &'static str,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The pod has no sandbox that could hold a container.
    #[error("pod {0} has no running sandbox")]
    NoSandbox(PodUid),
    /// The pod's pause lives, as far as is known, and has told this agent nothing yet.
    #[error(
        "the pause of pod {0} has not answered this agent yet: the host may be busy, or the pod frozen; it is asked \
         until it does"
    )]
    Unanswered(PodUid),
    /// The container is not known.
    #[error("no container {0}")]
    NoContainer(ContainerId),
    /// The container does not run.
    #[error("container {0} is not running")]
    NotRunning(ContainerId),
    /// The container whose pid namespace another is to join does not run.
    #[error("container {0}, the target, does not run")]
    TargetNotRunning(String),
    /// The container was not created by this agent, or was already started.
    #[error("container {0} is not waiting to be started")]
    NotCreated(ContainerId),
    /// Programs that were executed in the container hang in the kernel.
    #[error(
        "container {0} has {MOST_EXECS} executed programs that do not end after SIGKILL; they may hang in the kernel (state D)"
    )]
    TooManyExecs(ContainerId),
    /// The container's output cannot be followed.
    #[error("{0}")]
    Output(String),
    /// A client of a container's output was cut off.
    #[error(
        "the output of container {0} was not read as fast as it came, and more than {most} MiB of it are not kept: attach again",
        most = crate::logs::MOST_BEHIND >> 20
    )]
    ClientBehind(ContainerId),
    /// Processes outlive SIGKILL.
    #[error("processes of {what} do not end after SIGKILL; one may hang in the kernel (state D)")]
    Unkillable {
        /// Of which pod or container.
        what: String,
    },
}

/// Makes a constructor of [`Error::File`].
pub(crate) fn file(step: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Error {
    let path = path.into();
    move |source| Error::File { step, path, source }
}

/// Makes a constructor of [`Error::System`].
pub(crate) fn system<E: Into<io::Error>>(step: &'static str) -> impl FnOnce(E) -> Error {
    move |source| Error::System { step, source: source.into() }
}

impl From<PumpError> for Error {
    fn from(error: PumpError) -> Self {
        Self::Output(error.to_string())
    }
}
