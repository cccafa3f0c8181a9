//! The directory of plugins: whether a kubelet came, and whether somebody removed our sockets.
//!
//! A kubelet empties the directory when it starts and makes its socket anew; plugins are to make theirs again and to register.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use coracle_device_api::deviceplugin::KUBELET_SOCKET;
use tokio::sync::watch;

use crate::PluginError;
use crate::watch::{Happened, Watcher};

/// The directory of plugins, watched.
pub(crate) struct Directory {
    path: PathBuf,
    watcher: Watcher,
    generation: watch::Sender<Generation>,
}

/// How often something happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Generation {
    /// A kubelet's socket came.
    pub(crate) kubelet: u64,
    /// A socket went, or the directory is another one.
    pub(crate) sockets: u64,
}

// === impl Directory ===

impl Directory {
    /// Watches a directory, which is made if it is not there. Whoever looks at `generation` after this misses nothing.
    pub(crate) fn new(path: &Path) -> Result<Self, PluginError> {
        let mut directory = Self {
            path: path.to_owned(),
            watcher: Watcher::new()?,
            generation: watch::Sender::new(Generation::default()),
        };
        directory.establish()?;
        Ok(directory)
    }

    /// What happened.
    pub(crate) fn generation(&self) -> watch::Receiver<Generation> {
        self.generation.subscribe()
    }

    /// Watches until it cannot.
    pub(crate) async fn run(mut self) -> Result<(), PluginError> {
        loop {
            match self.watcher.next().await? {
                Happened::Came(_, name) if name == OsStr::new(KUBELET_SOCKET) => {
                    self.generation.send_modify(|it| it.kubelet += 1)
                }
                Happened::Came(..) => {}
                Happened::Went(..) => self.generation.send_modify(|it| it.sockets += 1),
                Happened::Anything => {
                    self.establish()?;
                    self.generation.send_modify(|it| {
                        it.kubelet += 1;
                        it.sockets += 1;
                    });
                }
            }
        }
    }

    fn establish(&mut self) -> Result<(), PluginError> {
        let failed = |error| PluginError::PluginsDir { path: self.path.clone(), error };
        // It can go between being made and being watched.
        for _ in 0..16 {
            fs::create_dir_all(&self.path).map_err(failed)?;
            self.watcher.watch(&BTreeSet::new())?;
            if self.watcher.watch(&BTreeSet::from([self.path.clone()]))? {
                return Ok(());
            }
        }
        Err(failed(std::io::ErrorKind::NotFound.into()))
    }
}
