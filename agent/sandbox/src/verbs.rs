//! What the runtime does, one file per verb.

mod adopt;
mod attach;
mod create;
mod ensure;
mod exec;
mod exec_sync;
mod exit;
mod network;
mod observe;
mod pids;
mod reconnect;
mod remove;
mod start;
mod stop;
mod take_over;

pub use adopt::Adoption;
pub use attach::{AttachRequest, Attachment, ContainerEnd};
pub use exec::{ExecHandle, ExecRequest, ProgramExit, Terminal};
pub use exec_sync::{ExecSyncOutput, ExecSyncRequest};
pub use observe::{ContainerSnapshot, ContainerStage, PodSnapshot, SandboxStage};
