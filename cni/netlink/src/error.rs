//! What can go wrong.

use std::borrow::Cow;
use std::{fmt, io};

use rustix::io::Errno;

use crate::Protocol;

/// What was tried, and why it failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A socket could not be made or set up: in the namespace that was asked for.
    #[error("open a {protocol} socket: {source}")]
    Open {
        /// Of what.
        protocol: Protocol,
        /// Why.
        source: io::Error,
    },
    /// Requests could not be sent. None of them was done.
    #[error("{what}: send the request: {source}")]
    Send {
        /// What the first of them was to do.
        what: Cow<'static, str>,
        /// Why.
        source: Errno,
    },
    /// Answers could not be received. What was asked for may have been done.
    #[error("{what}: receive the answer: {source}")]
    Receive {
        /// What was asked for.
        what: Cow<'static, str>,
        /// Why; `ENOBUFS` when there was no room for an answer.
        source: Errno,
    },
    /// The kernel did not answer. What was asked for may have been done.
    #[error("{what}: no answer from the kernel")]
    Unanswered {
        /// What was asked for.
        what: Cow<'static, str>,
    },
    /// An answer is not what it has to be.
    #[error("{what}: the kernel's answer cannot be read: {reason}")]
    Malformed {
        /// What was asked for.
        what: Cow<'static, str>,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A list changed while it was told, again and again.
    #[error("{what}: it changed while it was read, {attempts} times in a row")]
    Changing {
        /// What was asked for.
        what: Cow<'static, str>,
        /// How often it was asked for.
        attempts: u32,
    },
    /// The kernel refused.
    #[error(transparent)]
    Refused(#[from] Failures),
}

/// A request that was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Its place in the batch.
    pub index: usize,
    /// What it was to do.
    pub what: Cow<'static, str>,
    /// Why it was refused.
    pub errno: Errno,
    /// The kernel's own words, if it has any.
    pub text: Option<String>,
}

/// The requests of a batch that were refused: one at least.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Failures {
    /// The first that was refused; the others may follow from it.
    pub first: Failure,
    /// The others.
    pub others: Vec<Failure>,
}

// === impl Error ===

impl Error {
    /// What the kernel has refused the first of the requests with, if that is what went wrong.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Refused(failures) => Some(failures.first.errno),
            _ => None,
        }
    }
}

// === impl Failure ===

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.what)?;
        match &self.text {
            Some(text) => write!(f, "{} ({})", text.trim_end_matches('.'), self.errno),
            None => write!(f, "{}", self.errno),
        }
    }
}

// === impl Failures ===

impl fmt::Display for Failures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.first)?;
        match self.others.len() {
            0 => Ok(()),
            1 => write!(f, "; and one more request failed"),
            more => write!(f, "; and {more} more requests failed"),
        }
    }
}
