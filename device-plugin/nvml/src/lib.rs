//! GPUs of NVIDIA as the driver's own library (NVML, `libnvidia-ml.so.1`) tells of them. The library is loaded when it is
//! asked, so a machine without it needs nothing.
//!
//! Everything here blocks; a driver that hangs makes its library hang.

#![allow(unsafe_code, reason = "the library is C, and its wrapper lacks two functions")]

mod events;
mod gpu;

use std::path::Path;
use std::sync::Arc;

pub use events::{Event, watch};
pub use gpu::{Gpu, Mig};

/// The driver's library, loaded and initialised; both are undone when the last of these is dropped.
#[derive(Clone)]
pub struct Nvml {
    library: Arc<nvml_wrapper::Nvml>,
}

/// What failed.
#[derive(Debug, thiserror::Error)]
pub enum NvmlError {
    /// It is not there, is no library, or does not find its driver.
    #[error("cannot load {path}: {error}")]
    Load {
        /// The library.
        path: String,
        /// Why.
        error: nvml_wrapper::error::NvmlError,
    },
    /// A question was not answered.
    #[error("cannot ask NVML for {what}: {error}")]
    Ask {
        /// What was asked for.
        what: String,
        /// Why.
        error: nvml_wrapper::error::NvmlError,
    },
    /// A function that came with partitioned GPUs is not there, or failed.
    #[error("cannot ask NVML for {what}: {code}")]
    Raw {
        /// What was asked for.
        what: &'static str,
        /// NVML's number (`nvmlReturn_t`), or that there is no such function.
        code: String,
    },
}

// === impl Nvml ===

impl Nvml {
    /// Loads the library: a path, or a name that the dynamic linker looks up.
    ///
    /// # Errors
    /// When it is not there, or finds no driver.
    pub fn load(path: &Path) -> Result<Self, NvmlError> {
        let library = nvml_wrapper::Nvml::builder().lib_path(path.as_os_str()).init();
        let library = library.map_err(|error| NvmlError::Load { path: path.display().to_string(), error })?;
        Ok(Self { library: Arc::new(library) })
    }

    /// The driver's version, such as `570.86.15`.
    ///
    /// # Errors
    /// When the library does not say.
    pub fn driver_version(&self) -> Result<String, NvmlError> {
        self.library.sys_driver_version().map_err(ask("the driver's version"))
    }

    /// All GPUs, and what is wrong with those that cannot be asked: one that fell off its bus.
    ///
    /// # Errors
    /// When there is no list.
    pub fn gpus(&self) -> Result<(Vec<Gpu>, Vec<NvmlError>), NvmlError> {
        gpu::list(&self.library)
    }
}

/// An error of a question.
fn ask(what: impl Into<String>) -> impl FnOnce(nvml_wrapper::error::NvmlError) -> NvmlError {
    let what = what.into();
    |error| NvmlError::Ask { what, error }
}
