//! How far a pull is.

use std::time::Duration;

use coracle_model::Digest;

/// How far a pull is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// What it is at.
    pub stage: Stage,
    /// The image's layers, lowest first; none before the manifest is known.
    pub layers: Vec<LayerProgress>,
    /// How long it waited for its turn.
    pub waited: Duration,
}

/// What a pull is at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stage {
    /// It waits for its turn.
    #[default]
    Waiting,
    /// It asks the registry what the image is.
    Resolving,
    /// Its layers come, and are unpacked as they come.
    Pulling,
    /// It is brought to the disk and becomes visible.
    Committing,
}

/// How far a layer is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerProgress {
    /// The digest of what the registry sends.
    pub digest: Digest,
    /// How many bytes that has.
    pub size: u64,
    /// How many of them have come.
    pub done: u64,
    /// What happens to it.
    pub state: LayerState,
}

/// What happens to a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LayerState {
    /// It waits for its turn.
    Waiting,
    /// It is here: in the store, or from an attempt before.
    Exists,
    /// It comes, and is unpacked as it comes.
    Pulling,
    /// All of it has come, and the last of it is being unpacked.
    Unpacking,
    /// It is here.
    Complete,
}
