//! Puts on record who has what.

use std::io;
use std::path::{Path, PathBuf};

use tokio::sync::Mutex;
use tokio::task;

use crate::checkpoint::Checkpoint;
use crate::state::Shared;

/// Writes checkpoints, one at a time.
#[derive(Debug)]
pub(crate) struct Store {
    path: PathBuf,
    /// Up to which change of the state it is written.
    written: Mutex<u64>,
}

// === impl Store ===

impl Store {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path, written: Mutex::new(0) }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns when the state as it was at `version`, or later, is on disk. Of those that wait meanwhile one writes for all.
    pub(crate) async fn record(&self, shared: &Shared, version: u64) -> io::Result<()> {
        let mut written = self.written.lock().await;
        if *written >= version {
            return Ok(());
        }
        let (now, checkpoint) = {
            let state = shared.lock();
            (state.version, Checkpoint { pods: state.claims.settled() })
        };
        let path = self.path.clone();
        task::spawn_blocking(move || checkpoint.write(&path)).await.map_err(io::Error::other)??;
        *written = now;
        Ok(())
    }
}
