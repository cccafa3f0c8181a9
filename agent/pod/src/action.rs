//! The steps a worker takes, and what identifies them.

use std::time::Duration;

use coracle_model::ContainerId;

use crate::backoff::{self, Schedule};
use crate::ports::ImageRef;

/// The place of a container in the pod: init containers first, each list in its order.
pub(crate) type Index = usize;

/// One call of a port, with its arguments.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Action {
    SaveRecord,
    Checkpoint,
    AllocateDevices,
    EnsureSandbox,
    EnsureVolumes,
    /// Its configuration changed under containers that may run.
    RefreshVolumes,
    MeasureVolumes,
    /// For the run with this restart count.
    EnsureImage(Index, u32),
    Create(Index, u32, ImageRef),
    Start(Index, ContainerId),
    PostStart(Index, ContainerId),
    /// For at most so long.
    PreStop(Index, ContainerId, Duration),
    /// With so long between the stop signal and SIGKILL.
    Stop(ContainerId, Duration),
    Remove(ContainerId),
    RemoveSandbox,
    ReleaseDevices,
    ReleaseVolumes,
    ReleaseLogs,
    ForgetRecord,
}

/// What identifies an action: at most one of a step is under way, and its failures are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Step {
    SaveRecord,
    Checkpoint,
    AllocateDevices,
    Sandbox,
    Volumes,
    RefreshVolumes,
    MeasureVolumes,
    Image(Index),
    Create(Index),
    Start(ContainerId),
    PostStart(ContainerId),
    PreStop(ContainerId),
    Stop(ContainerId),
    Remove(ContainerId),
    RemoveSandbox,
    ReleaseDevices,
    ReleaseVolumes,
    ReleaseLogs,
    ForgetRecord,
}

impl Action {
    /// The step it is.
    pub(crate) fn step(&self) -> Step {
        match *self {
            Self::SaveRecord => Step::SaveRecord,
            Self::Checkpoint => Step::Checkpoint,
            Self::AllocateDevices => Step::AllocateDevices,
            Self::EnsureSandbox => Step::Sandbox,
            Self::EnsureVolumes => Step::Volumes,
            Self::RefreshVolumes => Step::RefreshVolumes,
            Self::MeasureVolumes => Step::MeasureVolumes,
            Self::EnsureImage(index, _) => Step::Image(index),
            Self::Create(index, ..) => Step::Create(index),
            Self::Start(_, id) => Step::Start(id),
            Self::PostStart(_, id) => Step::PostStart(id),
            Self::PreStop(_, id, _) => Step::PreStop(id),
            Self::Stop(id, _) => Step::Stop(id),
            Self::Remove(id) => Step::Remove(id),
            Self::RemoveSandbox => Step::RemoveSandbox,
            Self::ReleaseDevices => Step::ReleaseDevices,
            Self::ReleaseVolumes => Step::ReleaseVolumes,
            Self::ReleaseLogs => Step::ReleaseLogs,
            Self::ForgetRecord => Step::ForgetRecord,
        }
    }

    /// The container of the specification it is about.
    pub(crate) fn index(&self) -> Option<Index> {
        match *self {
            Self::EnsureImage(index, _)
            | Self::Create(index, ..)
            | Self::Start(index, _)
            | Self::PostStart(index, _)
            | Self::PreStop(index, ..) => Some(index),
            _ => None,
        }
    }
}

impl Step {
    /// Whether it reads ConfigMaps and Secrets.
    pub(crate) fn reads_config(self) -> bool {
        matches!(self, Self::Volumes | Self::RefreshVolumes | Self::Image(_) | Self::Create(_))
    }

    /// When it is tried again after a failure.
    pub(crate) fn schedule(self) -> Schedule {
        match self {
            Self::Image(_) => backoff::IMAGE,
            _ => backoff::STEP,
        }
    }
}
