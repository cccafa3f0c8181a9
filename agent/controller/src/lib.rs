//! The thin controller: desired pods from a directory and an address, and their difference to what is known.
//!
//! [`DirectorySource`] watches a directory of manifests, and [`UrlSource`] asks for those that are served at an
//! address. Both put what they find into the node's [`Manifests`], which publish a [`DesiredState`] whenever
//! it changes; [`fixed`] reads files once. [`diff`] says which pods are to be added and which are to go.
//! What is wrong with a manifest is a [`Problem`], shown to users as long as it lasts, and never a reason to
//! touch a pod that runs.

mod catalog;
mod claims;
mod config_store;
mod configs;
mod diff;
mod directory;
mod immutable;
mod kept;
mod manifests;
mod place;
mod unheard;
mod url;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use coracle_model::{ConfigObject, ManifestSource, Pod, PodUid};
use jiff::Timestamp;

/// The most bytes a manifest may have.
pub use coracle_manifest::MAX_BYTES;

pub use config_store::{ConfigStore, Replaced};
pub use configs::Configs;
pub use diff::{Changes, Known, diff};
pub use directory::DirectorySource;
pub use kept::{Accepted, KeptConfigs};
pub use manifests::Manifests;
pub use url::{DecodeAnswer, UrlSource, decode_answer, source_of};

use catalog::Catalog;

/// A pod that is to run, and the manifest that says so.
#[derive(Clone, Debug, PartialEq)]
pub struct Desired {
    /// The pod.
    pub pod: Arc<Pod>,
    /// Where it is.
    pub source: ManifestSource,
}

/// Something that is wrong with a manifest, or with where they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The manifest, or where they are.
    pub source: ManifestSource,
    /// Which of them.
    pub subject: Subject,
    /// What is wrong, where, and what becomes of the pods.
    pub message: String,
    /// Since when.
    pub since: Timestamp,
}

/// What a problem is with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// What a manifest says.
    Manifest,
    /// A directory or an address as a whole: what it holds cannot be learned.
    Place,
}

/// What all sources want together.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DesiredState {
    /// The pods, by UID.
    pub pods: BTreeMap<PodUid, Desired>,
    /// The ConfigMaps and Secrets they may be made of.
    pub configs: Configs,
    /// What is wrong: with places first, then in order of source.
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
    coracle_manifest::decode_file(path).map(Found::from).map_err(|error| error.to_string())
}

impl From<coracle_manifest::Decoded> for Found {
    fn from(decoded: coracle_manifest::Decoded) -> Self {
        Self {
            pods: decoded.pods.into_iter().map(Arc::new).collect(),
            configs: decoded.configs.into_iter().map(Arc::new).collect(),
        }
    }
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
                let (source, message) = (path.as_path().into(), error.to_string());
                vec![Problem { source, subject: Subject::Place, message, since: now }]
            })?,
            false => vec![path.clone()],
        };
        for file in files {
            let found = decode(&file);
            catalog.update_file(&file.as_path().into(), Some(found));
        }
    }
    let state = catalog.resolve(true, now);
    if state.problems.is_empty() { Ok(state) } else { Err(state.problems) }
}
