//! A directory that goes with the test that made it, also where the test is killed.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// What a VM keeps in files. A process of its own removes it once this, or the whole test, has ended.
pub(super) struct Directory {
    path: PathBuf,
    sweeper: Child,
}

impl Directory {
    /// An empty one. Its path is short enough for the names of sockets.
    pub(super) fn new() -> Self {
        let directory = tempfile::Builder::new().prefix("cv-").tempdir().expect("a temporary directory");
        let path = directory.keep();
        // Its standard input ends with the last who holds the other end: with the test, however that ends.
        let sweeper = Command::new("sh")
            .args(["-c", "trap '' HUP INT TERM; read -r never; exec rm -rf -- \"$1\"", "sh"])
            .arg(&path)
            .stdin(Stdio::piped())
            .spawn()
            .expect("there is a shell");
        Self { path, sweeper }
    }

    /// A path in it.
    pub(super) fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

impl Default for Directory {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        drop(self.sweeper.stdin.take());
        let _ = self.sweeper.wait();
    }
}
