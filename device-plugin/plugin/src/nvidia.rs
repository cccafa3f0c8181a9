//! GPUs of NVIDIA: found, made ready, described to runtimes, watched.
//!
//! ```text
//! NVML or /proc/driver/nvidia -> gpus -> offer (resources, by MIG strategy and shares)
//!                                   `-> nodes, files -> spec (CDI), or the same in an answer
//! ```

mod files;
mod gpus;
mod kernel_log;
mod nodes;
mod offer;
mod spec;
mod xid;

pub(crate) use gpus::{Found, Source, find};
pub(crate) use kernel_log::KernelLog;
pub(crate) use nodes::prepare;
pub(crate) use offer::offer;
pub(crate) use spec::{Description, KIND, management_libraries};
