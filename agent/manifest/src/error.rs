//! Why a manifest cannot be used.

use std::fmt;
use std::io;
use std::path::PathBuf;

use coracle_document::Diagnostic;

/// A manifest that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// The file could not be opened or read.
    #[error("{}: cannot be read: {error}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// A directory, device, socket or pipe stands where a manifest should.
    #[error("{}: not a regular file", path.display())]
    NotRegular {
        /// The file.
        path: PathBuf,
    },
    /// The input is larger than a manifest may be.
    #[error("{name}: the file is larger than {limit} bytes, the most a manifest may have")]
    TooLarge {
        /// The file.
        name: String,
        /// [`crate::MAX_BYTES`].
        limit: u64,
    },
    /// The content is wrong: everything that was found, in the order of the file.
    #[error("{}", Lines(.0))]
    Invalid(Vec<Diagnostic>),
}

struct Lines<'a>(&'a [Diagnostic]);

// === impl ManifestError ===

impl ManifestError {
    /// What is wrong with the content, in the order of the file; empty when it was not read.
    pub fn diagnostics(&self) -> &[Diagnostic] {
        match self {
            Self::Invalid(diagnostics) => diagnostics,
            Self::Read { .. } | Self::NotRegular { .. } | Self::TooLarge { .. } => &[],
        }
    }
}

// === impl Lines ===

impl fmt::Display for Lines<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, diagnostic) in self.0.iter().enumerate() {
            if position > 0 {
                f.write_str("\n")?;
            }
            diagnostic.fmt(f)?;
        }
        Ok(())
    }
}

/// What stands in messages for a value of a Secret, in Kubernetes' words.
pub(crate) const REDACTED: &str = "\"<secret contents redacted>\"";
