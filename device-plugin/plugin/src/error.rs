//! What can go wrong.

use std::io;
use std::path::PathBuf;

use coracle_document::Diagnostic;

/// What keeps the plugin from working.
#[derive(Debug, thiserror::Error)]
pub enum PluginError {
    /// The configuration cannot be read.
    #[error("cannot read the configuration {path}: {error}")]
    ReadConfig {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The configuration says what it may not.
    #[error("the configuration is wrong:\n{}", lines(.0))]
    Config(Vec<Diagnostic>),
    /// Changes of a directory cannot be learned of.
    #[error(
        "cannot watch {path} by inotify: {error}; fs.inotify.max_user_watches and max_user_instances limit it"
    )]
    Watch {
        /// The directory.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The directory of plugins' sockets cannot be made.
    #[error("cannot make the directory of device plugins {path}: {error}")]
    PluginsDir {
        /// The directory.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// What a plugin has left cannot be removed.
    #[error("cannot remove {path}: {error}")]
    Remove {
        /// The file, or the directory it is in.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The description of GPUs cannot be removed.
    #[error(transparent)]
    Describe(#[from] coracle_cdi::CdiError),
    /// A task of the plugin ended as none should.
    #[error("a part of the device plugin failed: {0}")]
    Task(String),
}

fn lines(faults: &[Diagnostic]) -> String {
    let lines: Vec<_> = faults.iter().map(|fault| format!("  {fault}")).collect();
    lines.join("\n")
}
