//! `coracle uninstall`: the pods end, and nothing of the node is left but what is to be kept.

mod remains;

use std::fs;
use std::io;

use anyhow::{Context, bail};

use crate::agent;
use crate::config::{Config, ConfigError, DEFAULT_CONFIG_FILE, Overrides};
use crate::install::{Place, Record, Systemd, remove};
use crate::words::whole;

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
        let config = match config() {
            Err(error) if keep.files && !keep.etc => without_configuration(error)?,
            config => config?,
        };
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

/// The default configuration in the place of one that is wrong, by which a package is removed: nobody can be made to mend
/// the configuration of a program that is to go. Only where that one says nothing of the places a node has its things in,
/// and no pod is on record in the default ones: pods that run must not be left behind unseen.
fn without_configuration(error: anyhow::Error) -> anyhow::Result<Config> {
    if !matches!(error.downcast_ref::<ConfigError>(), Some(ConfigError::Invalid(_))) {
        return Err(error);
    }
    let text = match fs::read(DEFAULT_CONFIG_FILE) {
        // Something else is wrong than what it says.
        Err(absent) if absent.kind() == io::ErrorKind::NotFound => Vec::new(),
        read => read.with_context(|| format!("cannot read {DEFAULT_CONFIG_FILE}"))?,
    };
    let text = String::from_utf8_lossy(&text);
    // The host's own name may be what is wrong, and is of no account here.
    let node_name = Some("node".to_owned());
    let defaults = Overrides { config: Some("/dev/null".into()), node_name, ..Overrides::default() };
    let defaults = Config::load(&defaults)?;
    if !named(&text, &OF_PODS).is_empty() || agent::has_pods(&defaults)? {
        return Err(error);
    }
    eprintln!(
        "warning: the configuration is wrong and is left out of account, since no pod is on record: {}",
        whole(&error)
    );
    let others = named(&text, &BESIDE_PODS);
    if !others.is_empty() {
        eprintln!("warning: it says {}: what is there of the node's stays", others.join(", "));
    }
    Ok(defaults)
}

/// The fields that say where a node has what it has of pods.
const OF_PODS: [&str; 2] = ["runDir", "rootDir"];

/// Those that say where it has what else it makes of its host.
const BESIDE_PODS: [&str; 5] = ["bridgeName", "cgroupRoot", "devicePluginDir", "podLogsDir", "cdiSpecDirs"];

/// The fields among these that the text of a configuration, however wrong, may set.
fn named<'a>(text: &str, fields: &[&'a str]) -> Vec<&'a str> {
    let said: Vec<_> = text.lines().filter(|line| !line.trim_start().starts_with('#')).collect();
    fields.iter().copied().filter(|field| said.iter().any(|line| line.contains(field))).collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_configuration_may_still_say_where_a_nodes_things_are() {
        for text in ["runDir: /srv/run\nmaxPods: [", "{\"rootDir\": \"/srv\"", "a: 1\n  rootDir : /srv"] {
            assert_eq!(named(text, &OF_PODS).len(), 1, "{text}");
        }
        for text in ["", "maxPods: many", "# runDir: /run/coracle\n  # rootDir: /srv\nmaxPods: ["] {
            assert!(named(text, &OF_PODS).is_empty(), "{text}");
        }
    }
}
