//! `coracle uninstall`: the pods end, and nothing of the node is left but what is to be kept.

mod remains;

use std::fs;
use std::io;

use anyhow::{Context, bail};

use crate::agent;
use crate::config::Config;
use crate::install::{Place, Record, Systemd, remove};

/// What stays.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Keep {
    /// The directory of the default configuration, which is not this node's.
    pub(crate) etc: bool,
    /// Images, configuration and manifests.
    pub(crate) data: bool,
    /// What `coracle install` has put in its places: a package manager removes its own files.
    pub(crate) files: bool,
}

/// Ends the pods of this host's node, with or without an agent, and removes what the node has left on it; then what was
/// installed. Of an installation in another root directory only the latter. Can be repeated after a failure.
///
/// # Errors
/// When nothing was installed at the place, a pod cannot be ended, or something cannot be removed.
pub(crate) fn uninstall(
    place: &Place,
    config: impl FnOnce() -> anyhow::Result<Config>,
    keep: Keep,
) -> anyhow::Result<()> {
    if !place.is_elsewhere() && !rustix::process::geteuid().is_root() {
        bail!("only root can remove a node: try `sudo coracle uninstall`");
    }
    let record = if keep.files { Record::default() } else { installed(place)? };
    let systemd = Systemd::of(place)?;
    if !place.is_elsewhere() {
        // Before anything is done: where pods are, the configuration says.
        let config = config()?;
        if let Some(systemd) = &systemd
            && !keep.files
        {
            systemd.stop()?;
        }
        agent::dismantle(&config)?;
        remains::remove_until_reboot(&config)?;
        if !keep.data {
            remains::remove_data(&config, keep.etc)?;
        }
    }
    for path in record.files() {
        let path = place.on_disk(path);
        // The record last: whatever fails before, the next try knows what is left.
        if path != place.on_disk(&place.record()) {
            remove(&path)?;
        }
    }
    if !keep.files {
        remove(&place.on_disk(&place.record()))?;
    }
    for directory in record.directories() {
        let directory = place.on_disk(directory);
        match fs::remove_dir(&directory) {
            // Others have put something there, or it is data that is kept.
            Err(error)
                if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty) => {}
            removed => removed.with_context(|| format!("cannot remove {}", directory.display()))?,
        }
    }
    if !keep.files {
        println!("removed the files of coracle in {}", place.on_disk(place.prefix()).display());
        if let Some(systemd) = systemd {
            systemd.forget()?;
        }
    }
    Ok(())
}

fn installed(place: &Place) -> anyhow::Result<Record> {
    let found = Record::load(place)?;
    found.with_context(|| {
        format!(
            "`coracle install` has installed nothing in {}: name the directory by --prefix, or remove the package that \
             has brought coracle",
            place.on_disk(place.prefix()).display()
        )
    })
}
