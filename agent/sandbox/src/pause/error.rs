//! What can go wrong with pause.

use std::time::Duration;

use coracle_pause_wire::Step;
use rustix::io::Errno;

/// The agent's step that finds out whether a pause listens.
pub(super) const CONNECT: &str = "connect to pause";

/// A step with pause that failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PauseError {
    /// Something on the agent's side.
    #[error("could not {step}: {errno}")]
    Agent {
        /// What was tried.
        step: &'static str,
        /// Why it failed.
        errno: Errno,
    },
    /// pause was started and gave up.
    #[error("pause could not {step}: {errno}")]
    Start {
        /// What pause tried.
        step: Step,
        /// Why it failed.
        errno: Errno,
    },
    /// pause was started and ended without a word.
    #[error("pause ended before it was ready")]
    StartDied,
    /// pause refused the request.
    #[error("{request}: pause could not {step}: {errno}")]
    Refused {
        /// The request.
        request: &'static str,
        /// What pause tried.
        step: Step,
        /// Why it failed.
        errno: Errno,
    },
    /// pause did not answer in time: it, or the whole pod, is frozen or starved.
    #[error("{request}: pause did not answer within {} s", .after.as_secs())]
    Timeout {
        /// What was waited for.
        request: &'static str,
        /// How long.
        after: Duration,
    },
    /// The connection ended: pause died, another agent connected, or too much was left unread.
    #[error("{request}: the connection to pause ended")]
    Disconnected {
        /// The request without an answer.
        request: &'static str,
    },
    /// The peer is not a pause this agent can work with.
    #[error("{request}: pause answered what cannot be: {what}")]
    Protocol {
        /// The request.
        request: &'static str,
        /// What was wrong.
        what: &'static str,
    },
}

impl PauseError {
    /// Whether to connect and ask again is in vain: nobody listens, which a pause does as long as it lives, or
    /// what listens is no pause this agent can work with.
    pub(crate) fn is_final(&self) -> bool {
        match self {
            Self::Agent { step: CONNECT, errno } => {
                matches!(*errno, Errno::CONNREFUSED | Errno::NOENT | Errno::PERM)
            }
            Self::Protocol { .. } | Self::Refused { step: Step::Version, .. } => true,
            _ => false,
        }
    }

    /// Names the agent's step that failed.
    pub(super) fn at(step: &'static str) -> impl Fn(Errno) -> Self {
        move |errno| Self::Agent { step, errno }
    }

    /// The same, of an error the kernel gave through the standard library.
    pub(super) fn at_io(step: &'static str) -> impl Fn(std::io::Error) -> Self {
        move |error| Self::Agent { step, errno: Errno::from_io_error(&error).unwrap_or(Errno::IO) }
    }
}
