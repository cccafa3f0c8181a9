//! What a `coracle run` that was killed has left behind.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use coracle_cgroup::Host;
use rustix::fs::FlockOperation;

use crate::config::Config;
use crate::run::Place;
use crate::words::whole;

/// Ends and removes those of the private nodes of this configuration whose `coracle run` is gone. What cannot be
/// removed is said, and left to the next.
///
/// # Errors
/// There are private nodes, and the host's cgroup hierarchies cannot be told.
pub(crate) async fn clear_abandoned(config: &Config) -> anyhow::Result<()> {
    let private_nodes = private_nodes(config);
    if private_nodes.is_empty() {
        return Ok(());
    }
    let host = Arc::new(Host::detect().context("cannot find the cgroup hierarchies")?);
    for pid in private_nodes {
        let place = Place::of(config, pid);
        match is_abandoned(&place, pid) {
            Ok(true) => {}
            Ok(false) => continue,
            Err(error) => {
                tracing::warn!("cannot tell whether `coracle run` {pid} is at work: {}", whole(&error));
                continue;
            }
        }
        tracing::warn!("removing what a killed `coracle run`, process {pid}, has left behind");
        if let Err(error) = remove(config, &place, &host).await {
            tracing::error!("cannot remove what `coracle run` {pid} has left behind: {}", whole(&error));
        }
    }
    Ok(())
}

/// The private nodes whose `coracle run` is at work, by its process number.
pub(super) fn at_work(config: &Config) -> anyhow::Result<Vec<u32>> {
    let mut found = Vec::new();
    for pid in private_nodes(config) {
        if !is_abandoned(&Place::of(config, pid), pid)? {
            found.push(pid);
        }
    }
    Ok(found)
}

/// The process numbers by which private nodes are named, of those that left a directory.
fn private_nodes(config: &Config) -> Vec<u32> {
    let beside = config.run_dir.file_name().and_then(|name| name.to_str()).map(|name| format!("{name}-run-"));
    let parent = config.run_dir.parent().unwrap_or(Path::new("/"));
    let mut pids = numbers(&config.root_dir, "run-");
    pids.extend(beside.into_iter().flat_map(|prefix| numbers(parent, &prefix)));
    pids.sort_unstable();
    pids.dedup();
    pids
}

/// The numbers in the names of a directory's entries `<prefix><number>`.
fn numbers(dir: &Path, prefix: &str) -> Vec<u32> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let number = |entry: fs::DirEntry| entry.file_name().to_str()?.strip_prefix(prefix)?.parse().ok();
    entries.flatten().filter_map(number).collect()
}

/// Whether nobody uses it: its process is gone, and so is its lock, which a process of another pid namespace
/// may hold.
fn is_abandoned(place: &Place, pid: u32) -> anyhow::Result<bool> {
    // This process has made none yet: one of its number is another's.
    if pid != std::process::id() && Path::new("/proc").join(pid.to_string()).exists() {
        return Ok(false);
    }
    let path = place.config().run_dir.join(super::lock::LOCK);
    match File::open(&path) {
        Ok(lock) => match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(true),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(false),
            Err(error) => Err(error).with_context(|| format!("cannot lock {}", path.display())),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(error).with_context(|| format!("cannot open {}", path.display())),
    }
}

/// Its pods as a node removes pods that nobody knows, then its cgroups, then its directories, by which it is
/// found.
async fn remove(config: &Config, place: &Place, host: &Arc<Host>) -> anyhow::Result<()> {
    let private = place.config();
    let kubepods = super::wiring::kubepods(Arc::clone(host), private)?;
    super::wiring::remove_all_pods(private, config.images_dir(), kubepods.clone()).await?;
    kubepods.remove().await?;
    place.remove()
}
