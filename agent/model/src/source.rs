//! Where manifests come from.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Where a manifest comes from. Cheap to clone.
///
/// Written as a path or as an address: what begins as one of HTTP is one, since paths of manifests are absolute.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "PathBuf", into = "PathBuf")]
pub enum ManifestSource {
    /// A file, or a directory of them.
    File(Arc<Path>),
    /// What is served at an address: without user, password and query, since it is shown and kept.
    Url(Arc<str>),
}

// === impl ManifestSource ===

impl ManifestSource {
    /// Whether it is an address.
    pub fn is_url(&self) -> bool {
        matches!(self, Self::Url(_))
    }

    /// The path of a file.
    pub fn as_file(&self) -> Option<&Arc<Path>> {
        match self {
            Self::File(path) => Some(path),
            Self::Url(_) => None,
        }
    }
}

impl fmt::Display for ManifestSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Url(address) => f.write_str(address),
        }
    }
}

impl From<&Path> for ManifestSource {
    fn from(path: &Path) -> Self {
        Self::File(Arc::from(path))
    }
}

impl From<PathBuf> for ManifestSource {
    fn from(path: PathBuf) -> Self {
        match path.to_str().filter(|text| text.starts_with("http://") || text.starts_with("https://")) {
            Some(address) => Self::Url(Arc::from(address)),
            None => Self::File(Arc::from(path)),
        }
    }
}

impl From<ManifestSource> for PathBuf {
    fn from(source: ManifestSource) -> Self {
        match source {
            ManifestSource::File(path) => path.to_path_buf(),
            ManifestSource::Url(address) => Self::from(&*address),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_written_as_what_users_know_it_by() {
        for (text, is_url) in [
            ("/m/web.yaml", false),
            ("https://example.org/pods", true),
            ("http://[::1]:8080/", true),
            ("/https://a", false),
        ] {
            let source = ManifestSource::from(PathBuf::from(text));
            assert_eq!((source.is_url(), source.to_string().as_str()), (is_url, text));
            assert_eq!(PathBuf::from(source), Path::new(text));
        }
    }
}
