//! What systemd tells of a unit and of its job.

use zbus::zvariant::OwnedObjectPath;

/// What all units have: org.freedesktop.systemd1(5), "Unit Objects".
#[zbus::proxy(
    interface = "org.freedesktop.systemd1.Unit",
    default_service = "org.freedesktop.systemd1",
    gen_blocking = false
)]
pub(crate) trait Unit {
    #[zbus(property(emits_changed_signal = "false"))]
    fn id(&self) -> zbus::Result<String>;

    #[zbus(property(emits_changed_signal = "false"))]
    fn active_state(&self) -> zbus::Result<String>;

    /// Number and object of the job it has, 0 for none.
    #[zbus(property(emits_changed_signal = "false"))]
    fn job(&self) -> zbus::Result<(u32, OwnedObjectPath)>;
}

/// A job: org.freedesktop.systemd1(5), "Job Objects".
#[zbus::proxy(
    interface = "org.freedesktop.systemd1.Job",
    default_service = "org.freedesktop.systemd1",
    gen_blocking = false
)]
pub(crate) trait Job {
    #[zbus(property(emits_changed_signal = "false"))]
    fn job_type(&self) -> zbus::Result<String>;
}

/// How a unit is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnitState {
    /// Whether it runs.
    pub active: Active,
    /// The job it has.
    pub job: Option<JobType>,
}

/// `ActiveState` of a unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Active {
    /// It runs.
    Active,
    /// It does not.
    Inactive,
    /// It does not, and that is a failure.
    Failed,
    /// It is on its way to one of those, or something newer than this.
    Other(String),
}

/// `JobType`: what is to become of a unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobType {
    /// It is started.
    Start,
    /// It is stopped.
    Stop,
    /// It is stopped and then started.
    Restart,
    /// Something else: `reload`, `verify-active`.
    Other(String),
}

// === impl Active ===

impl From<String> for Active {
    fn from(text: String) -> Self {
        match text.as_str() {
            "active" => Self::Active,
            "inactive" => Self::Inactive,
            "failed" => Self::Failed,
            _ => Self::Other(text),
        }
    }
}

// === impl JobType ===

impl From<String> for JobType {
    fn from(text: String) -> Self {
        match text.as_str() {
            "start" => Self::Start,
            "stop" => Self::Stop,
            // The second is a restart that does nothing for what does not run.
            "restart" | "try-restart" => Self::Restart,
            _ => Self::Other(text),
        }
    }
}
