//! Why an image was not pulled.

use std::io;
use std::time::Duration;

use coracle_image::ImageError;
use coracle_model::ImageName;
use coracle_registry::{Error as RegistryError, FetchError};

use crate::access::AccessError;

/// Why an image was not pulled. Messages say which host has said what, with which credentials, and never a secret.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// The registry has not given it, or not all of it.
    #[error("{}", Attempts(.0))]
    Registry(Vec<Attempt>),
    /// The store could not take it.
    #[error("{name}: {source}")]
    Store {
        /// The image.
        name: ImageName,
        /// Why.
        source: ImageError,
    },
    /// A layer that has come is of no use.
    #[error("{name}: {source}{}", SentBy(hosts, source))]
    Layer {
        /// The image.
        name: ImageName,
        /// Why not.
        source: ImageError,
        /// Who has sent it.
        hosts: Vec<String>,
    },
    /// Manifest and configuration do not belong together.
    #[error("{name}: its manifest has {layers} layers and its configuration {diff_ids}: it is damaged")]
    Layers {
        /// The image.
        name: ImageName,
        /// How many the manifest names.
        layers: usize,
        /// How many the configuration names.
        diff_ids: usize,
    },
    /// Nothing has moved for so long.
    #[error("{name}: the pull has made no progress for {} s", .wait.as_secs())]
    Stalled {
        /// The image.
        name: ImageName,
        /// For how long.
        wait: Duration,
    },
    /// There is no thread for it.
    #[error("{name}: cannot start a thread to unpack a layer: {source}")]
    Thread {
        /// The image.
        name: ImageName,
        /// Why.
        source: io::Error,
    },
    /// That it begins could not be put on record.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// A part of the program has ended before the pull.
    #[error("the pull has ended unexpectedly: {0}")]
    Ended(String),
}

/// Who has sent a layer that is of no use, and what to do.
struct SentBy<'a>(&'a [String], &'a ImageError);

/// What one set of credentials has come to.
#[derive(Debug)]
pub struct Attempt {
    /// Whose they are, for people.
    pub credentials: String,
    /// What the registry has said.
    pub error: RegistryError,
}

/// Attempts, one after another.
struct Attempts<'a>(&'a [Attempt]);

// === impl PullError ===

impl PullError {
    /// Kubernetes' reason: `RegistryUnavailable` where no registry has answered in earnest, else `ErrImagePull`.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Registry(attempts) if attempts.iter().all(|attempt| is_unavailable(&attempt.error)) => {
                "RegistryUnavailable"
            }
            _ => "ErrImagePull",
        }
    }

    /// Whether the store's disk has no room for it.
    pub fn is_disk_full(&self) -> bool {
        match self {
            Self::Store { source, .. } => match source {
                ImageError::DiskFull { .. } => true,
                ImageError::Store { source, .. } | ImageError::Unpack { source, .. } => {
                    matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
                }
                _ => false,
            },
            _ => false,
        }
    }
}

/// Whether nobody has answered, or only that it cannot now.
fn is_unavailable(error: &RegistryError) -> bool {
    match error {
        // One that is not believed, or by nobody here, is there, and will not be otherwise in a while.
        RegistryError::Fetch(FetchError::Roots(_)) => false,
        RegistryError::Fetch(error) => error.certificate().is_none(),
        RegistryError::Stalled(_) | RegistryError::Trickle { .. } => true,
        RegistryError::Status { status, .. } => status.is_server_error(),
        RegistryError::Token { source, .. } => is_unavailable(source),
        RegistryError::Hosts { failures, .. } => failures.iter().all(|(_, error)| is_unavailable(error)),
        _ => false,
    }
}

// === impl SentBy ===

impl std::fmt::Display for SentBy<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.is_empty() {
            return Ok(());
        }
        write!(f, ", as sent by {}", self.0.join(" and "))?;
        match self.1 {
            // It says itself whose fault it is.
            ImageError::Published(_) => Ok(()),
            _ => f.write_str(
                " (which, or a proxy before it, has a fault: others are asked for this layer first from now on; see to \
                 it, or name another in the registry's hosts.toml)",
            ),
        }
    }
}

// === impl Attempts ===

impl std::fmt::Display for Attempts<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            [only] => only.error.fmt(f),
            several => several.iter().enumerate().try_for_each(|(at, attempt)| {
                let separator = if at == 0 { "" } else { "; " };
                write!(f, "{separator}with {}: {}", attempt.credentials, attempt.error)
            }),
        }
    }
}
