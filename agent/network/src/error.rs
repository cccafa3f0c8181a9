//! What can go wrong.

use std::io;
use std::path::{Path, PathBuf};

use coracle_cni::{CniError, ConfigDirectoryError};

/// A step that failed.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// A file or directory could not be used.
    #[error("cannot {step} {}: {source}", path.display())]
    Io {
        /// What was tried.
        step: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The configuration of the network cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigDirectoryError),
    /// The default network cannot be made of what is configured.
    #[error("the default network cannot be made as configured: {source}")]
    Default {
        /// Why.
        source: CniError,
    },
    /// A plugin of a network failed.
    #[error("{}plugin {kind} of network {network} failed ({verb}): {source} (code {})", of(pod), source.code)]
    Plugin {
        /// What it was asked to do.
        verb: &'static str,
        /// Its `type`.
        kind: String,
        /// The network's name.
        network: String,
        /// Namespace and name, or the container id where they are not known; nothing where it is about no pod.
        pod: Option<String>,
        /// What the plugin said.
        source: Box<CniError>,
    },
    /// Several steps failed.
    #[error("{}", errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Several {
        /// Each of them.
        errors: Vec<NetworkError>,
    },
    /// It has no address in a network.
    #[error("sandbox {id} is not attached to a network")]
    NotAttached {
        /// CNI's container id.
        id: String,
    },
    /// The pod was to go before its network was there.
    #[error("sandbox {id} was not attached to its network: it is to go")]
    Unwanted {
        /// CNI's container id.
        id: String,
    },
    /// What others have left takes its time.
    #[error("sandbox {id} is still attached to its network: there was no time left to take that back")]
    Postponed {
        /// CNI's container id.
        id: String,
    },
    /// The plugins succeeded without a result.
    #[error("the network's plugins have answered nothing")]
    NoResult,
    /// The plugins gave an address that is none.
    #[error("network {network}: its plugins have given the unspecified address")]
    Unspecified {
        /// The network's name.
        network: String,
    },
    /// A pod's namespace is the agent's own, whose interfaces are not to be touched.
    #[error("{} is the network namespace of the agent itself, not a pod's", path.display())]
    OwnNamespace {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// The interfaces of a pod could not be looked at.
    #[error("cannot look at the addresses in {}: {source}", path.display())]
    Namespace {
        /// The namespace.
        path: PathBuf,
        /// Why it failed.
        source: coracle_netlink::Error,
    },
    /// An annotation says how much a pod may send or receive, and cannot be used.
    #[error("metadata.annotations[{annotation}]: Invalid value: {value:?}: {why}")]
    Annotation {
        /// Its key.
        annotation: &'static str,
        /// Its value.
        value: String,
        /// What is wrong with it.
        why: String,
    },
}

/// The beginning of a message about a pod.
fn of(pod: &Option<String>) -> String {
    pod.as_ref().map(|pod| format!("pod {pod}: ")).unwrap_or_default()
}

impl NetworkError {
    pub(crate) fn io<E: Into<io::Error>>(step: &'static str, path: &Path) -> impl FnOnce(E) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { step, path, source: source.into() }
    }
}
