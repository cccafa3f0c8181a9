//! What can go wrong with CDI.

use std::fmt::Write as _;
use std::io;
use std::path::PathBuf;

use coracle_document::Diagnostic;

use crate::name::QualifiedName;

/// Why a device cannot be resolved, or a specification not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum CdiError {
    /// A specification is not valid.
    #[error("CDI specification {}", list(.0))]
    Invalid(Vec<Diagnostic>),
    /// A file or directory cannot be used.
    #[error("cannot {step} {}: {source}", path.display())]
    File {
        /// What was tried.
        step: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// No specification has the device.
    #[error("no CDI specification has the device {name}: looked in {}{}", paths(directories), broken(faults))]
    Unknown {
        /// Which.
        name: QualifiedName,
        /// Where specifications are.
        directories: Vec<PathBuf>,
        /// What is wrong with specifications that could not be read, and might have it.
        faults: Vec<String>,
    },
    /// Several specifications of the same directory have the device, and none goes before the others.
    #[error(
        "the CDI device {name} is in several specifications of one directory: {}; only one may have it",
        paths(files)
    )]
    Ambiguous {
        /// Which.
        name: QualifiedName,
        /// Which.
        files: Vec<PathBuf>,
    },
    /// A device wants what the node does not do.
    #[error("the CDI device {name} ({}) has {field}, which this node does not support", path.display())]
    Unsupported {
        /// Which.
        name: QualifiedName,
        /// Of which specification.
        path: PathBuf,
        /// What it wants.
        field: &'static str,
    },
    /// An annotation that should name devices does not.
    #[error("annotation {key}: {why}")]
    Annotation {
        /// Its key.
        key: String,
        /// What is wrong.
        why: String,
    },
}

/// As many faults are shown as fit into a message people read.
const SHOWN: usize = 5;

fn list(diagnostics: &[Diagnostic]) -> String {
    let mut text = String::new();
    for (index, diagnostic) in diagnostics.iter().take(SHOWN).enumerate() {
        let _ = write!(text, "{}{diagnostic}", if index == 0 { "" } else { "; " });
    }
    if diagnostics.len() > SHOWN {
        let _ = write!(text, "; and {} more", diagnostics.len() - SHOWN);
    }
    text
}

fn paths(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
}

fn broken(faults: &[String]) -> String {
    match faults {
        [] => String::new(),
        faults => {
            format!("; not readable: {}", faults.iter().take(SHOWN).cloned().collect::<Vec<_>>().join("; "))
        }
    }
}

/// Makes a constructor of [`CdiError::File`].
pub(crate) fn file(step: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> CdiError {
    let path = path.into();
    move |source| CdiError::File { step, path, source }
}
