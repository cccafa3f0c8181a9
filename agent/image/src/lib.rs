//! Content store, import, unpack and snapshots of OCI images.
//!
//! Everything here may block on the disk: an asynchronous caller uses `spawn_blocking`.

mod archive;
mod config;
mod error;
mod exact;
mod export;
mod import;
mod incoming;
mod snapshot;
mod store;
mod unpack;
mod user;

pub use coracle_model::{Digest, ImageName, InvalidDigest, InvalidImageName};

pub use archive::{Archive, ArchiveEntry, ArchiveKind};
pub use config::{EffectiveProcess, EnvEntry, ImageConfig, ImageDocument, RootFs, effective_process};
pub use error::ImageError;
pub use export::{Compression, Exported};
pub use import::{ImportOptions, Imported, RootfsConfig};
pub use incoming::{Incoming, IncomingLayer};
pub use snapshot::Access;
pub use store::{
    CollectPolicy, Collected, CollectedImage, HeldImage, Hold, Image, ImageUsage, Layer, Pin, Removed, Store,
    Usage,
};
pub use unpack::Limits;
pub use user::{ResolvedUser, resolve_user, verify_non_root};
