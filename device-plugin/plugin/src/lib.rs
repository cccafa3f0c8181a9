//! The device plugin of Coracle: GPUs of NVIDIA, AMD and Intel, and any device by configuration, for any kubelet.
//!
//! ```text
//! /dev, /proc, /sys, NVML -> discovery -> resources -> one socket each -> the kubelet
//!        ^                      ^
//!        inotify, XIDs ---------'
//! ```
//!
//! **Invariant:** nothing polls: devices that come and go are told by inotify, errors of GPUs by the driver, a kubelet that
//! starts by its socket. **Invariant:** what a kubelet asks cannot make it fail, wait or grow.

mod amd;
mod command_line;
mod config;
mod describe;
mod device;
mod discovery;
mod drm;
mod elf;
mod error;
mod generic;
mod glob;
mod hook;
mod host;
mod intel;
mod ld_cache;
mod memory;
mod name;
mod nvidia;
mod prefer;
mod remains;
mod run;
mod serve;
#[cfg(test)]
mod testing;
mod watch;

pub use command_line::{CommandError, CommandLine, hook_command};
pub use config::Config;
pub use error::PluginError;
pub use hook::{HookError, ldconfig};
pub use ld_cache::CacheError;
pub use remains::remove_remains;
pub use run::{Options, run};
