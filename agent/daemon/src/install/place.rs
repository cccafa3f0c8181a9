//! Where an installation is.

use std::fs;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, bail};

/// Where the units are that packages and `coracle install` bring: systemd looks in no other.
const UNIT_DIRECTORIES: [&str; 3] =
    ["/usr/lib/systemd/system", "/usr/local/lib/systemd/system", OF_ADMINISTRATOR];

/// Where the administrator's are, which count instead of those of the same name in the others: systemd.unit(5).
const OF_ADMINISTRATOR: &str = "/etc/systemd/system";

/// A prefix, on this host or in another root directory.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    prefix: PathBuf,
    root: PathBuf,
}

// === impl Place ===

impl Place {
    /// The installation with this prefix. With a root directory other than `/` it is that of a file system that is being
    /// made: a package, an image.
    ///
    /// # Errors
    /// When one of them is no absolute path.
    pub(crate) fn new(prefix: PathBuf, root: Option<PathBuf>) -> anyhow::Result<Self> {
        let root = root.unwrap_or_else(|| "/".into());
        for (option, path) in [("--prefix", &prefix), ("--root", &root)] {
            let plain =
                path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
            if !path.is_absolute() || !plain {
                bail!(
                    "{option}: Invalid value: {:?}: must be an absolute path without '..'",
                    path.display().to_string()
                );
            }
        }
        Ok(Self { prefix, root })
    }

    /// The prefix, as seen from within the root directory.
    pub(crate) fn prefix(&self) -> &Path {
        &self.prefix
    }

    /// Whether it is in another root directory than this host's.
    pub(crate) fn is_elsewhere(&self) -> bool {
        self.root != Path::new("/")
    }

    /// Makes the other root directory, if it is not there.
    pub(super) fn make_root(&self) -> anyhow::Result<()> {
        fs::create_dir_all(&self.root)
            .with_context(|| format!("cannot make the directory {}", self.root.display()))
    }

    /// Where a path of the installation is now.
    pub(crate) fn on_disk(&self, path: &Path) -> PathBuf {
        match path.strip_prefix("/") {
            Ok(below) => self.root.join(below),
            Err(_) => self.root.join(path),
        }
    }

    /// The program.
    pub(crate) fn program(&self) -> PathBuf {
        self.prefix.join("bin/coracle")
    }

    /// What was installed.
    pub(crate) fn record(&self) -> PathBuf {
        self.prefix.join("lib/coracle/installed.json")
    }

    /// A directory of systemd's: `systemd/system`, `tmpfiles.d`. systemd looks below two prefixes; for what is elsewhere
    /// there is the administrator's.
    pub(crate) fn of_systemd(&self, name: &str) -> PathBuf {
        match self.prefix.to_str() {
            Some("/usr" | "/usr/local") => self.prefix.join("lib").join(name),
            _ => Path::new("/etc").join(name),
        }
    }

    /// The installation with another prefix in the same root directory.
    pub(super) fn at_prefix(&self, prefix: PathBuf) -> Self {
        Self { prefix, root: self.root.clone() }
    }

    /// Where units of other installations would be, as seen from within the root directory. Where something is installed
    /// at this place, one of the administrator's is none: it is that installation's own, as `systemctl edit --full` has
    /// written it.
    pub(super) fn units_elsewhere(&self, is_installed: bool) -> Vec<PathBuf> {
        let own = self.of_systemd("systemd/system");
        let mut directories: Vec<PathBuf> = UNIT_DIRECTORIES.map(PathBuf::from).into();
        directories.retain(|it| *it != own && !(is_installed && it == Path::new(OF_ADMINISTRATOR)));
        directories.into_iter().map(|directory| directory.join("coracle.service")).collect()
    }

    /// Directories that are there from the beginning, with their modes: where manifests and the configuration belong.
    pub(crate) fn directories(&self) -> [(PathBuf, u32); 2] {
        [("/etc/coracle".into(), 0o755), ("/etc/coracle/manifests".into(), 0o700)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(prefix: &str, root: Option<&str>) -> Place {
        Place::new(prefix.into(), root.map(Into::into)).unwrap()
    }

    #[test]
    fn systemd_finds_the_units_of_every_prefix() {
        let units = |prefix| place(prefix, None).of_systemd("systemd/system");
        assert_eq!(units("/usr"), Path::new("/usr/lib/systemd/system"));
        assert_eq!(units("/usr/local"), Path::new("/usr/local/lib/systemd/system"));
        assert_eq!(units("/opt/coracle"), Path::new("/etc/systemd/system"));
    }

    #[test]
    fn everything_is_beneath_the_root_directory() {
        let place = place("/usr", Some("/tmp/package"));
        assert_eq!(place.on_disk(&place.program()), Path::new("/tmp/package/usr/bin/coracle"));
        assert!(
            place.units_elsewhere(false).iter().all(|unit| place.on_disk(unit).starts_with("/tmp/package"))
        );
        assert!(place.is_elsewhere());
    }

    #[test]
    fn a_unit_of_the_administrators_is_another_installation_only_where_there_is_none() {
        let units = |prefix, is_installed| {
            let units = place(prefix, None).units_elsewhere(is_installed);
            units.iter().map(|unit| unit.display().to_string()).collect::<Vec<_>>()
        };
        let (package, local, own) = (
            "/usr/lib/systemd/system/coracle.service",
            "/usr/local/lib/systemd/system/coracle.service",
            "/etc/systemd/system/coracle.service",
        );
        assert_eq!(units("/usr/local", false), [package, own]);
        assert_eq!(units("/usr/local", true), [package]);
        assert_eq!(units("/opt/coracle", false), [package, local]);
        assert_eq!(units("/opt/coracle", true), [package, local]);
    }

    #[test]
    fn a_prefix_that_could_lead_anywhere_is_refused() {
        for prefix in ["usr", "", "/usr/../etc"] {
            let error = Place::new(prefix.into(), None).unwrap_err().to_string();
            assert!(error.starts_with("--prefix: Invalid value: "), "{error}");
        }
    }
}
