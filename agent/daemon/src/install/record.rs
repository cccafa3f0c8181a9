//! What was installed: what the next installation may replace, and an uninstallation removes.

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::{Deserialize, Serialize};

use super::files::{Content, Installed};
use super::place::Place;

/// Paths as seen from within the root directory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    files: BTreeSet<PathBuf>,
    /// Those that were not there before.
    directories: BTreeSet<PathBuf>,
    /// The agent was enabled and started; what becomes of it then is the administrator's. Not yet where the installation
    /// was cut off before, or told not to. Of those on record from before this was, it is taken to be so.
    #[serde(default = "true_of_old")]
    started: bool,
}

fn true_of_old() -> bool {
    true
}

// === impl Record ===

impl Record {
    /// What is on record at the place, if anything is.
    pub(crate) fn load(place: &Place) -> anyhow::Result<Option<Self>> {
        let path = place.on_disk(&place.record());
        match fs::read(&path) {
            Ok(text) => {
                let record = serde_json::from_slice(&text);
                record.map(Some).with_context(|| format!("{} is damaged", path.display()))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    pub(super) fn save(&self, place: &Place) -> anyhow::Result<()> {
        let content = Content::Text(serde_json::to_vec_pretty(self)?);
        super::put(place, &Installed { path: place.record(), content, mode: 0o644 })
    }

    pub(super) fn expect(&mut self, path: &Path) {
        self.files.insert(path.to_owned());
    }

    pub(super) fn has(&self, path: &Path) -> bool {
        self.files.contains(path)
    }

    /// Whether the agent was started once.
    pub(super) fn is_started(&self) -> bool {
        self.started
    }

    pub(super) fn set_started(&mut self) {
        self.started = true;
    }

    /// The files.
    pub(crate) fn files(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().map(PathBuf::as_path)
    }

    /// The directories that were made for them, the innermost first.
    pub(crate) fn directories(&self) -> impl Iterator<Item = &Path> {
        self.directories.iter().rev().map(PathBuf::as_path)
    }

    /// Makes a directory, and those above it, and takes note of those that were not there. Whatever the umask is, the
    /// directory has these permissions, those above it the usual ones.
    pub(super) fn make_directory(&mut self, place: &Place, path: &Path, mode: u32) -> anyhow::Result<()> {
        let mut all: Vec<&Path> = path.ancestors().filter(|path| *path != Path::new("/")).collect();
        all.reverse();
        for directory in all {
            let there = place.on_disk(directory);
            let mode = if directory == path { mode } else { 0o755 };
            let made = fs::create_dir(&there)
                .and_then(|()| fs::set_permissions(&there, Permissions::from_mode(mode)));
            match made {
                Ok(()) => drop(self.directories.insert(directory.to_owned())),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && there.is_dir() => {}
                Err(error) => {
                    return Err(error)
                        .with_context(|| format!("cannot make the directory {}", there.display()));
                }
            }
        }
        Ok(())
    }

    /// Drops every file that is not among these; the dropped ones.
    pub(super) fn forget_all_but(&mut self, files: &[Installed]) -> Vec<PathBuf> {
        let kept: BTreeSet<&Path> = files.iter().map(|file| file.path.as_path()).collect();
        let stale: Vec<PathBuf> =
            self.files().filter(|path| !kept.contains(path)).map(Path::to_owned).collect();
        self.files.retain(|path| kept.contains(path.as_path()));
        stale
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_is_new_until_it_was_started() {
        let mut record = Record::default();
        let again = |record: &Record| -> Record {
            serde_json::from_slice(&serde_json::to_vec(record).unwrap()).unwrap()
        };
        assert!(!again(&record).is_started(), "cut off before");
        record.set_started();
        assert!(again(&record).is_started());
        let old: Record = serde_json::from_str(r#"{"files": [], "directories": []}"#).unwrap();
        assert!(old.is_started(), "of an earlier version");
    }
}
