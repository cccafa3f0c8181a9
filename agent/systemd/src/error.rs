//! What can fail.

use std::fmt;
use std::time::Duration;

use crate::name::UnitName;

/// What was asked of systemd.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// To start a unit.
    Start,
    /// To stop one.
    Stop,
    /// To change properties of one.
    SetProperties,
    /// To forget that one failed.
    ResetFailed,
    /// To tell how one is.
    Ask,
}

/// What was asked of systemd, and what became of it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no bus, or no way to it.
    #[error("cannot {action} {unit}: there is no way to the system's D-Bus: {source}")]
    Bus {
        /// What was tried.
        action: Action,
        /// With what.
        unit: String,
        /// Why there is none.
        source: Box<zbus::Error>,
    },
    /// Nobody on the bus is systemd.
    #[error(
        "cannot {action} {unit}: nobody on the system's D-Bus is systemd ({message}): is it PID 1 of this host?"
    )]
    Absent {
        /// What was tried.
        action: Action,
        /// With what.
        unit: String,
        /// What the bus says.
        message: String,
    },
    /// systemd says no.
    #[error("systemd refuses to {action} {unit}: {message} ({name})")]
    Refused {
        /// What was tried.
        action: Action,
        /// With what.
        unit: String,
        /// The D-Bus name of the error.
        name: String,
        /// Why.
        message: String,
    },
    /// systemd tried and did not come to the wanted end.
    #[error(
        "systemd could not {action} {unit}: its job ended as {result:?}; `systemctl status {unit}` and `journalctl -u {unit}` may say why"
    )]
    Job {
        /// What was tried.
        action: Action,
        /// With what.
        unit: String,
        /// The job's result, or the unit's state where that was missed: org.freedesktop.systemd1(5).
        result: String,
    },
    /// systemd does not answer, or does not get it done.
    #[error(
        "systemd did not {action} {unit} within {} s: it may hang; `systemctl list-jobs` may say on what",
        after.as_secs_f32()
    )]
    TimedOut {
        /// What was tried.
        action: Action,
        /// With what.
        unit: String,
        /// How long it had.
        after: Duration,
    },
    /// An answer, or the way it came, is not as described.
    #[error("cannot {action} {unit}: the exchange with systemd failed: {source}")]
    Exchange {
        /// What was tried.
        action: Action,
        /// With what.
        unit: String,
        /// What is wrong.
        source: Box<zbus::Error>,
    },
}

// === impl Action ===

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Start => "start",
            Self::Stop => "stop",
            Self::SetProperties => "change properties of",
            Self::ResetFailed => "reset the failure of",
            Self::Ask => "tell the state of",
        })
    }
}

// === impl Error ===

impl Error {
    /// Whether there is no systemd to speak with, nor could one be expected: no bus, or nobody on it.
    pub fn is_absent(&self) -> bool {
        matches!(self, Self::Bus { .. } | Self::Absent { .. })
    }

    /// Whether a unit of the name is there already, and was not to be.
    pub fn is_unit_exists(&self) -> bool {
        self.is_named("org.freedesktop.systemd1.UnitExists")
    }

    /// Whether there is no such unit.
    pub fn is_no_such_unit(&self) -> bool {
        self.is_named("org.freedesktop.systemd1.NoSuchUnit")
    }

    fn is_named(&self, wanted: &str) -> bool {
        matches!(self, Self::Refused { name, .. } if name == wanted)
    }
}

/// What is done, for errors.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Task<'a> {
    pub(crate) action: Action,
    pub(crate) unit: &'a str,
}

// === impl Task ===

impl<'a> Task<'a> {
    pub(crate) fn new(action: Action, unit: &'a UnitName) -> Self {
        Self { action, unit: unit.as_str() }
    }

    pub(crate) fn timed_out(self, after: Duration) -> Error {
        Error::TimedOut { action: self.action, unit: self.unit.to_owned(), after }
    }

    pub(crate) fn exchange(self, source: zbus::Error) -> Error {
        Error::Exchange { action: self.action, unit: self.unit.to_owned(), source: Box::new(source) }
    }

    pub(crate) fn no_bus(self, source: zbus::Error) -> Error {
        Error::Bus { action: self.action, unit: self.unit.to_owned(), source: Box::new(source) }
    }

    pub(crate) fn job(self, result: impl Into<String>) -> Error {
        Error::Job { action: self.action, unit: self.unit.to_owned(), result: result.into() }
    }
}
