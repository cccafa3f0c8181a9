//! What registries tell of images.

use coracle_model::Digest;
use serde::{Deserialize, Serialize};

/// Content by type, digest and size; part of OCI's [descriptor].
///
/// [descriptor]: https://github.com/opencontainers/image-spec/blob/main/descriptor.md
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// Its media type.
    #[serde(default)]
    pub media_type: String,
    /// Its digest.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
}

/// An image's manifest, of one platform, as a registry has given it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// The digest that names the image in the registry (`RepoDigests`, a pod's `imageID`): that of the index where
    /// the name leads to one, else the manifest's own.
    pub digest: Digest,
    /// The manifest's own digest.
    pub manifest_digest: Digest,
    /// The manifest as it came.
    pub bytes: Vec<u8>,
    /// The image's configuration.
    pub config: Descriptor,
    /// Its layers, lowest first.
    pub layers: Vec<Descriptor>,
}
