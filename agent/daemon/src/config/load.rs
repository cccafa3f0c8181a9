//! Reading the configuration, and saying what is wrong with it.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use coracle_document::{Diagnostic, MAX_BYTES};

use super::decode::{Decoded, decode};
use super::problems::Problems;
use super::settings::{Origin, Settings};
use super::{Config, Overrides, own_name};

/// Read when it is there and `--config` names no other.
pub(crate) const DEFAULT_CONFIG_FILE: &str = "/etc/coracle/config.yaml";

/// A configuration that can be used, and how it came about.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) config: Config,
    /// The fields that have a value, and who has given it.
    pub(crate) origins: BTreeMap<&'static str, Origin>,
    /// What the file says that is left out of account.
    pub(crate) warnings: Vec<Diagnostic>,
    /// The file, if there is one.
    pub(crate) file: Option<PathBuf>,
}

/// Why there is no usable configuration.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    #[error("cannot read the configuration file {}: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{0}")]
    Invalid(Invalid),
}

/// Everything that is wrong.
#[derive(Debug)]
pub(crate) struct Invalid {
    /// In the file, in its order.
    pub(crate) diagnostics: Vec<Diagnostic>,
    /// Elsewhere: in flags, and on the host.
    pub(crate) others: Vec<String>,
    /// What is nevertheless known: where the agent's socket is.
    socket: Option<PathBuf>,
    /// And where the configuration of the device plugin is, if it has one.
    pub(crate) own_plugin: Option<PathBuf>,
}

/// Where the agent's socket is, for those who only want to speak with it: what else is wrong with the configuration, if
/// anything is, must not keep them from looking at a node that runs on with what it had.
pub(crate) fn socket(overrides: &Overrides) -> Result<(PathBuf, Option<Invalid>), ConfigError> {
    match Loaded::load(overrides) {
        Ok(loaded) => Ok((loaded.config.socket(), None)),
        Err(ConfigError::Invalid(invalid)) => match invalid.socket.clone() {
            Some(socket) => Ok((socket, Some(invalid))),
            None => Err(ConfigError::Invalid(invalid)),
        },
        Err(error) => Err(error),
    }
}

// === impl Loaded ===

impl Loaded {
    /// The configuration that `overrides` and the file they name (or the default one) make.
    pub(crate) fn load(overrides: &Overrides) -> Result<Self, ConfigError> {
        let (path, required) = match &overrides.config {
            Some(path) => (path.as_path(), true),
            None => (Path::new(DEFAULT_CONFIG_FILE), false),
        };
        match read(path) {
            Ok(text) => Self::of(Some(path), &text, overrides),
            Err(error) if error.kind() == io::ErrorKind::NotFound && !required => {
                Self::of(None, b"", overrides)
            }
            Err(source) => Err(ConfigError::Read { path: path.to_owned(), source }),
        }
    }

    /// As [`Loaded::load`], with this as the text of the file.
    pub(super) fn of(file: Option<&Path>, text: &[u8], flags: &Overrides) -> Result<Self, ConfigError> {
        let path = file.unwrap_or(Path::new(DEFAULT_CONFIG_FILE));
        let mut problems = Problems::default();
        let Decoded { file: fields, tree, warnings } = decode(text, &mut problems.faults);
        let (settings, origins) = Settings::of(flags, path, tree.as_ref(), &own_name());
        let config = Config::combine(fields, flags, settings, &mut problems);
        if let Some(tree) = &tree {
            problems.faults.locate(tree);
        }
        let name = path.to_string_lossy();
        match config {
            Some(config) if problems.is_empty() => Ok(Self {
                config,
                origins,
                warnings: warnings.in_file(&name),
                file: file.map(Path::to_owned),
            }),
            _ => {
                let diagnostics = problems.faults.in_file(&name);
                // A fault that is no field's has kept something from being read.
                let is_known = flags.run_dir.is_some()
                    || diagnostics.iter().all(|it| !it.path.is_empty() && it.path != "runDir");
                let own_plugin = config.as_ref().and_then(|config| config.devices.own_plugin.clone());
                let socket = config.filter(|_| is_known).map(|config| config.socket());
                let others = problems.others;
                Err(ConfigError::Invalid(Invalid { diagnostics, others, socket, own_plugin }))
            }
        }
    }
}

/// No more is read than a configuration can have.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let file = File::open(path)?;
    let mut text = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut text)?;
    if text.len() as u64 > MAX_BYTES {
        return Err(io::Error::other(format!("it has more than {MAX_BYTES} bytes")));
    }
    Ok(text)
}

// === impl Invalid ===

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines = self.diagnostics.iter().map(ToString::to_string).chain(self.others.iter().cloned());
        f.write_str(&lines.collect::<Vec<_>>().join("\n"))
    }
}
