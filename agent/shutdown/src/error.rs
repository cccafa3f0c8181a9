//! Why logind cannot be made to wait.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// Why logind cannot be made to wait, or not for long enough.
#[derive(Debug, thiserror::Error)]
pub enum LogindError {
    /// There is no bus, or it does not answer.
    #[error("cannot connect to the system's D-Bus: {0}")]
    Connect(#[source] zbus::Error),
    /// logind, or the bus, refused something or does not answer.
    #[error("cannot {step}: {error}")]
    Call {
        /// What was tried.
        step: &'static str,
        /// Why it failed.
        #[source]
        error: zbus::Error,
    },
    /// The drop-in cannot be written.
    #[error("cannot write {}, which lets logind wait for long enough: {error}", path.display())]
    DropIn {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The drop-in was written and read, and something else counts.
    #[error(
        "logind delays a shutdown by {given:?} at most (InhibitDelayMaxSec), and the grace periods take {needed:?}, also \
         with {}: another file beside it says otherwise",
        path.display()
    )]
    TooShort {
        /// What logind says.
        given: Duration,
        /// What all periods take.
        needed: Duration,
        /// The drop-in.
        path: PathBuf,
    },
}

/// Makes a constructor of [`LogindError::Call`].
pub(crate) fn call(step: &'static str) -> impl FnOnce(zbus::Error) -> LogindError {
    move |error| LogindError::Call { step, error }
}
