//! The container runtime: sandboxes and containers of pods, one file per verb.
//!
//! [`Runtime`] starts one [pause](pause) per pod, and has it start everything else by way of
//! container-init. What it knows is a cache of what pause, the run directory and the cgroups say, so
//! another agent can take over at any time ([`Runtime::adopt`]). It decides nothing: when a container is
//! to be started, stopped or replaced is the business of whoever calls.

mod blocking;
mod control;
mod edits;
mod environment;
mod error;
mod hooks;
mod host;
mod init_end;
mod logs;
mod net_devices;
pub mod pause;
mod pod;
pub mod programs;
mod record;
mod request;
mod runtime;
mod seccomp;
mod shm;
mod spec;
mod termination;
mod tty;
mod verbs;
mod warm;

pub use error::Error;
pub use init_end::InitEnd;
pub use logs::{LiveOutput, LogError, LogLimits};
pub use request::{ContainerRequest, ExecUser, RequestMount};
pub use runtime::{Runtime, RuntimeConfig, RuntimeSettings};
pub use verbs::{
    Adoption, AttachRequest, Attachment, ContainerEnd, ContainerSnapshot, ContainerStage, ExecHandle,
    ExecRequest, ExecSyncOutput, ExecSyncRequest, PodSnapshot, ProgramExit, SandboxStage, Terminal,
};
