//! The thin controller: desired pods from a directory, and their difference to what is known.
//!
//! [`DirectorySource`] watches a directory of manifests and publishes a [`DesiredState`] whenever it
//! changes; [`fixed`] reads files once. [`diff`] says which pods are to be added and which are to go.
//! What is wrong with a file is a [`Problem`], shown to users as long as it lasts, and never a reason to
//! touch a pod that runs.

mod catalog;
mod claims;
mod config_store;
mod diff;
mod directory;
mod immutable;
mod place;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use coracle_model::{ConfigObject, Pod, PodUid};
use jiff::Timestamp;

pub use config_store::{ConfigStore, Configs};
pub use diff::{Changes, diff};
pub use directory::DirectorySource;

use catalog::Catalog;

/// A pod that is to run, and the manifest that says so.
#[derive(Clone, Debug, PartialEq)]
pub struct Desired {
    /// The pod.
    pub pod: Arc<Pod>,
    /// The file.
    pub source: Arc<Path>,
}

/// Something that is wrong with a manifest, or with the directory itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file or directory.
    pub path: Arc<Path>,
    /// What is wrong, where, and what becomes of the pods.
    pub message: String,
    /// Since when.
    pub since: Timestamp,
}

/// What a source wants.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DesiredState {
    /// The pods, by UID.
    pub pods: BTreeMap<PodUid, Desired>,
    /// The ConfigMaps and Secrets they may be made of.
    pub configs: Configs,
    /// What is wrong, in order of path.
    pub problems: Vec<Problem>,
}

/// The directory cannot be watched.
#[derive(Debug, thiserror::Error)]
pub enum ControllerError {
    /// inotify has no instance or no watch left, or its events cannot be read.
    #[error(
        "cannot watch {} for manifests: {error} (the limits are fs.inotify.max_user_instances and \
         fs.inotify.max_user_watches)",
        path.display()
    )]
    Watch {
        /// What was to be watched.
        path: PathBuf,
        /// Why it was not.
        error: io::Error,
    },
    /// The table of mounts, which tells when the directory is covered by another, cannot be followed.
    #[error("cannot follow /proc/self/mountinfo: {0}")]
    Mounts(#[source] io::Error),
}

/// What a manifest holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Found {
    /// Its pods.
    pub pods: Vec<Arc<Pod>>,
    /// Its ConfigMaps and Secrets.
    pub configs: Vec<Arc<ConfigObject>>,
}

/// Decodes a manifest; the error is a message for users that names file, line and field.
pub trait Decode: Fn(&Path) -> Result<Found, String> + Send + Sync + 'static {}

impl<F: Fn(&Path) -> Result<Found, String> + Send + Sync + 'static> Decode for F {}

/// Decodes a manifest as Kubernetes does: see [`coracle_manifest::decode_file`].
pub fn decode_manifest(path: &Path) -> Result<Found, String> {
    let decoded = coracle_manifest::decode_file(path).map_err(|error| error.to_string())?;
    Ok(Found {
        pods: decoded.pods.into_iter().map(Arc::new).collect(),
        configs: decoded.configs.into_iter().map(Arc::new).collect(),
    })
}

impl Found {
    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.pods.is_empty() && self.configs.is_empty()
    }
}

/// The pods of these files, read once. A directory stands for the manifests in it.
///
/// # Errors
/// Everything that is wrong with any of them: no pod is run then.
pub fn fixed(paths: &[PathBuf], decode: impl Decode, now: Timestamp) -> Result<DesiredState, Vec<Problem>> {
    let mut catalog = Catalog::default();
    for path in paths {
        let files = match path.is_dir() {
            true => directory::manifests_in(path).map_err(|error| {
                vec![Problem { path: Arc::from(path.as_path()), message: error.to_string(), since: now }]
            })?,
            false => vec![path.clone()],
        };
        for file in files {
            let found = decode(&file);
            catalog.update(&Arc::from(file), Some(found));
        }
    }
    let state = catalog.resolve(now);
    if state.problems.is_empty() { Ok(state) } else { Err(state.problems) }
}
