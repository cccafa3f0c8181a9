//! Why it cannot be read or written who may use an image.

use std::io;
use std::path::PathBuf;

/// A step on the records of pulls that failed.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// A directory cannot be made or listed.
    #[error("cannot use the directory of records of image pulls {}: {source}", path.display())]
    Directory {
        /// Its path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file cannot be read.
    #[error("cannot read the record of an image pull {}: {source}", path.display())]
    Read {
        /// Its path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file cannot be written or removed.
    #[error("cannot write the record of an image pull {}: {source}", path.display())]
    Write {
        /// Its path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The program ends.
    #[error("the record of an image pull was given up: {0}")]
    GivenUp(String),
}
