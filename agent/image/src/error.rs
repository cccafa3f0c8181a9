//! What can go wrong with images.

use std::io;
use std::path::{Path, PathBuf};

use crate::{Digest, ImageName, InvalidDigest, InvalidImageName, Pin};

/// A failed operation on images or the store.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The name does not follow the grammar. Kubernetes' reason: `InvalidImageName`.
    #[error(transparent)]
    Name(#[from] InvalidImageName),
    /// A digest in an image's documents does not follow the grammar.
    #[error(transparent)]
    Digest(#[from] InvalidDigest),
    /// A system call on a file of the store failed.
    #[error("{step} {path}: {source}")]
    Store {
        /// What was tried.
        step: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// A record of the store cannot be read.
    #[error("the store's record {path} is damaged: {problem}; remove the image and import it again")]
    Record {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// The store was written by a later version.
    #[error("the image store {path} has format {found}; this program knows format {known}")]
    Version {
        /// The store.
        path: PathBuf,
        /// Its format.
        found: String,
        /// Ours.
        known: &'static str,
    },
    /// What is to be imported cannot be read.
    #[error("cannot {step} {path}: {source}")]
    Source {
        /// What was tried.
        step: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// What is to be imported is not an image, or uses what is not supported.
    #[error("{path} cannot be imported: {problem}")]
    Invalid {
        /// The file or directory.
        path: PathBuf,
        /// What is wrong, and what to do.
        problem: String,
    },
    /// A blob's content is not what its digest says.
    #[error("{what} has digest {found}, but {expected} was promised: it is damaged or was tampered with")]
    Mismatch {
        /// Which blob.
        what: String,
        /// What the image says.
        expected: Digest,
        /// What was found.
        found: Digest,
    },
    /// A layer's archive is malformed, or hostile.
    #[error("layer {layer}: {problem}")]
    Layer {
        /// Its digest or file name.
        layer: String,
        /// What is wrong, with the entry's name.
        problem: String,
    },
    /// A layer's bytes could not be had: what gave them failed, or they are not as promised.
    #[error("layer {layer} cannot be read: {source}")]
    LayerSource {
        /// Its digest or file name.
        layer: String,
        /// Why: the source's own error, where it is that.
        source: io::Error,
    },
    /// A layer cannot be used, though its digest is what was promised: whoever made the image made it so.
    #[error("{0}; its digest is right, so it was published like that: build the image anew, or use another")]
    Published(Box<ImageError>),
    /// An image's configuration cannot be used.
    #[error("the configuration of image {id} cannot be used: {problem}")]
    Document {
        /// The image.
        id: Digest,
        /// Why not.
        problem: String,
    },
    /// The image is not for this machine.
    #[error("image {id} is for {found}, this machine is linux/{ours}")]
    Platform {
        /// The image.
        id: Digest,
        /// What it is for.
        found: String,
        /// This machine's architecture, in Go's words.
        ours: &'static str,
    },
    /// The image was to be committed before its layers were there.
    #[error("image {id} is not complete: layer {layer} is missing")]
    Incomplete {
        /// The image.
        id: Digest,
        /// The first that is missing.
        layer: Digest,
    },
    /// What a layer waited for is not going to be: another layer of its image failed.
    #[error("given up, because another layer of the image failed")]
    Aborted,
    /// A further name cannot have a digest, which says which image it stands for.
    #[error("{0} cannot be given to an image: its digest says which image it stands for; give a tag")]
    TagWithDigest(ImageName),
    /// Writing an entry of a layer failed.
    #[error("layer {layer}: cannot {step} {entry:?}: {source}")]
    Unpack {
        /// Its digest or file name.
        layer: String,
        /// What was tried.
        step: &'static str,
        /// The entry's name in the archive.
        entry: String,
        /// Why it failed.
        source: io::Error,
    },
    /// Unpacking would fill the file system of the store.
    #[error(
        "{what}: unpacking needs at least {needed} bytes, but of the {available} bytes free on the file \
         system of {path}, {reserve} are kept free; make room and try again"
    )]
    DiskFull {
        /// A layer, with its digest or file name, or several of an image.
        what: String,
        /// Where it was to go.
        path: PathBuf,
        /// Bytes still to write.
        needed: u64,
        /// Bytes free.
        available: u64,
        /// Bytes that stay free.
        reserve: u64,
    },
    /// No image of that name or identifier.
    #[error("image {0:?} is not in the store")]
    NotFound(String),
    /// More than one image begins with these digits.
    #[error("{text:?} is the beginning of {count} image IDs; give more digits")]
    Ambiguous {
        /// What was asked for.
        text: String,
        /// How many begin so.
        count: usize,
    },
    /// The image cannot be removed now.
    #[error("image {image} is in use by {user}; remove that first")]
    InUse {
        /// The image.
        image: String,
        /// Who uses it.
        user: String,
    },
    /// A layer is not what was unpacked.
    #[error("layer {layer} in {path} is damaged: {problem}; remove its images and pull or import them again")]
    Damaged {
        /// Its DiffID.
        layer: Digest,
        /// Its directory.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// What takes an export failed.
    #[error("cannot write the export: {0}")]
    Output(io::Error),
    /// An export would mix with what is there.
    #[error("{path} is not empty; give a directory that is empty or not there yet")]
    OutputExists {
        /// The directory.
        path: PathBuf,
    },
    /// The image is to stay.
    #[error("image {image} is {}: what is pinned is not removed", list_pins(pins))]
    Pinned {
        /// The image.
        image: String,
        /// Why it is to stay.
        pins: Vec<Pin>,
    },
    /// The writable layer's file system cannot serve overlayfs.
    #[error(
        "{path} lies on overlayfs, which cannot hold a container's writable layer; put --root-dir on ext4, xfs, \
         btrfs or tmpfs (inside another container: on a volume)"
    )]
    UpperOnOverlay {
        /// The container's directory.
        path: PathBuf,
    },
    /// The store's file system cannot keep layers: a whiteout is its own mark there, not a node.
    #[error(
        "the image store {path} lies on overlayfs, which cannot keep the whiteouts of layers; put --root-dir on ext4, \
         xfs, btrfs or tmpfs (inside another container: on a volume)"
    )]
    StoreOnOverlay {
        /// The store's directory.
        path: PathBuf,
    },
    /// The kernel refused the root file system's mount.
    #[error("cannot {step} the overlay of {path}: {source}{log}")]
    Overlay {
        /// What was tried.
        step: &'static str,
        /// The container's directory.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
        /// What the kernel said about it, with a separator in front; may be empty.
        log: String,
    },
    /// Neither the image nor the container says what to run. Kubernetes' reason: `CreateContainerError`.
    #[error("no command specified")]
    NoCommand,
    /// A user or group of the image or pod cannot be used.
    #[error("{0}")]
    User(String),
    /// `runAsNonRoot` is broken. Kubernetes' reason: `CreateContainerConfigError`.
    #[error("{0}")]
    NonRoot(String),
}

fn list_pins(pins: &[Pin]) -> String {
    pins.iter().map(ToString::to_string).collect::<Vec<_>>().join(" and ")
}

impl ImageError {
    pub(crate) fn store(step: &'static str, path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> Self {
        let path = path.as_ref().to_owned();
        move |source| Self::Store { step, path, source }
    }

    pub(crate) fn source(step: &'static str, path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> Self {
        let path = path.as_ref().to_owned();
        move |source| Self::Source { step, path, source }
    }

    pub(crate) fn invalid(path: impl AsRef<Path>, problem: impl Into<String>) -> Self {
        Self::Invalid { path: path.as_ref().to_owned(), problem: problem.into() }
    }
}
