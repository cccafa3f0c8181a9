//! What the agent must know of a pod after its own restart.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use coracle_model::{Pod, PodStatus};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// What of a pod survives the agent and cannot be learned from the runtime.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PodRecord {
    /// The pod as it was accepted.
    pub pod: Arc<Pod>,
    /// The manifest it came from; `None` when it came from no file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Arc<Path>>,
    /// When the node took it up: `status.startTime`.
    pub start_time: Timestamp,
    /// Set once its removal was asked for. Never taken back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion: Option<Deletion>,
    /// The status it ended with, once its phase is terminal. Its containers may be removed by then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished: Option<PodStatus>,
    /// Per container, the restart count of the last run that was long enough to end a crash loop.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub streak_base: BTreeMap<String, u32>,
}

/// The removal of a pod: `metadata.deletionTimestamp` and `metadata.deletionGracePeriodSeconds`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deletion {
    /// When it was asked for.
    pub requested_at: Timestamp,
    /// What its containers have from then on until they are killed. A later request shortens it.
    pub grace: Duration,
}

// === impl PodRecord ===

impl PodRecord {
    /// The record of a pod the node takes up now.
    pub fn new(pod: Arc<Pod>, source: Option<Arc<Path>>, start_time: Timestamp) -> Self {
        Self { pod, source, start_time, deletion: None, finished: None, streak_base: BTreeMap::new() }
    }
}
