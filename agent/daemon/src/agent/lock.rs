//! One agent per run directory.

use std::fs::File;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use rustix::fs::FlockOperation;
use rustix::io::Errno;

/// The file in the run directory that a running agent holds a lock on.
pub(super) const LOCK: &str = "agent.lock";

/// How long a lock that is held is asked for. An agent that is killed while it starts a pause leaves it to a
/// process that has not come to execute pause, and lets go as it does.
const PATIENCE: Duration = Duration::from_secs(3);
const INTERVAL: Duration = Duration::from_millis(10);

/// Makes sure that no other agent uses the run directory, for as long as the file is open, and that nobody else may.
pub(super) async fn lock(run_dir: &Path) -> anyhow::Result<File> {
    // What others could have put there is not even read.
    coracle_server::private_directory(run_dir)?;
    let path = run_dir.join(LOCK);
    let file = File::create(&path).with_context(|| format!("cannot open {}", path.display()))?;
    let locked = tokio::time::timeout(PATIENCE, async {
        loop {
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Err(Errno::WOULDBLOCK) => tokio::time::sleep(INTERVAL).await,
                locked => return locked,
            }
        }
    });
    match locked.await {
        Ok(locked) => locked.with_context(|| format!("cannot lock {}", path.display()))?,
        Err(_) => bail!(
            "another agent runs with {}; stop it first, or give this one its own --run-dir and --root-dir",
            run_dir.display()
        ),
    }
    Ok(file)
}
