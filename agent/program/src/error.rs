//! Why a program has given no answer.

use std::io;
use std::time::Duration;

/// A program that was not executed, or was ended before it had answered.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    /// What goes to its standard input cannot be put into memory.
    #[error("cannot be given its input: {0}")]
    Input(io::Error),
    /// It cannot be executed.
    #[error("cannot be executed: {0}")]
    Execute(io::Error),
    /// It took too long.
    #[error("has not answered after {:.1} s, and was ended", after.as_secs_f32())]
    TookTooLong {
        /// So long.
        after: Duration,
        /// What it said on standard error.
        stderr: Vec<u8>,
    },
    /// Its answer is too long.
    #[error("answered with more than {most} bytes, and was ended")]
    SaysTooMuch {
        /// The most that is read, in bytes.
        most: usize,
        /// What it said on standard error.
        stderr: Vec<u8>,
    },
    /// It could not be seen how it goes on.
    #[error("was ended, because it cannot be watched: {step}: {source}")]
    Unwatched {
        /// The system call that failed.
        step: &'static str,
        /// Why.
        source: io::Error,
        /// What it said on standard error.
        stderr: Vec<u8>,
    },
    /// It was killed and is still there.
    #[error("was told to end, and does not: {0}")]
    DoesNotEnd(io::Error),
    /// How it ended cannot be learnt.
    #[error("cannot be waited for: {0}")]
    Wait(io::Error),
}

// === impl ProgramError ===

impl ProgramError {
    /// What it said on standard error until then.
    pub fn stderr(&self) -> &[u8] {
        match self {
            Self::TookTooLong { stderr, .. }
            | Self::SaysTooMuch { stderr, .. }
            | Self::Unwatched { stderr, .. } => stderr,
            Self::Input(_) | Self::Execute(_) | Self::DoesNotEnd(_) | Self::Wait(_) => &[],
        }
    }
}
