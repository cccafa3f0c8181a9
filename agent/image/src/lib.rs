//! Content store, import, unpack and snapshots of OCI images.

mod config;
mod digest;
mod error;
mod name;
mod user;

pub use config::{EffectiveProcess, ImageConfig, ImageDocument, RootFs, effective_process};
pub use digest::{Digest, InvalidDigest};
pub use error::ImageError;
pub use name::{ImageName, InvalidImageName};
pub use user::{ResolvedUser, resolve_user, verify_non_root};
