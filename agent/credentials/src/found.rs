//! What a search for credentials has found.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use coracle_model::Name;
use coracle_registry::Credential;

use crate::CredentialError;

/// What there is for an image.
#[derive(Debug)]
pub struct Lookup {
    /// What to try, in order, each until the registry does not refuse it. The last is anonymous, so there is always one.
    pub found: Vec<Found>,
    /// What could not be used. A pull that fails should say so.
    pub problems: Vec<Arc<CredentialError>>,
}

/// A credential, and whose it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Found {
    /// What the registry is shown.
    pub credential: Credential,
    /// Where it comes from.
    pub source: Source,
}

/// Where a credential comes from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// A Secret that a pod names in `imagePullSecrets`: of all pods, only those that show it may use what it opens.
    Secret {
        /// Its namespace.
        namespace: Name,
        /// Its name.
        name: Name,
    },
    /// A credential provider plugin, by its name; the node's.
    Provider(String),
    /// A docker configuration, or the helper it names; the node's.
    File(PathBuf),
    /// Nowhere: it is anonymous.
    Nobody,
}

// === impl Source ===

impl Source {
    /// Whether every pod of the node may use what was pulled with it (KEP-2535's `nodePodsAccessible`).
    pub fn is_node_wide(&self) -> bool {
        !matches!(self, Self::Secret { .. })
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Secret { namespace, name } => write!(f, "Secret {namespace}/{name}"),
            Self::Provider(name) => write!(f, "credential provider {name}"),
            Self::File(path) => path.display().fmt(f),
            Self::Nobody => f.write_str("no credentials"),
        }
    }
}
