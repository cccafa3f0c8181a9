//! What happened on the node, for people.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// `v1 Event`: something that happened to an object, how often, and when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// `metadata.name`: unique on the node, and kept while the event is counted.
    pub name: String,
    /// What it is about.
    pub involved_object: ObjectReference,
    /// Whether somebody may have to act.
    #[serde(rename = "type")]
    pub kind: EventType,
    /// CamelCase, such as `Started` or `BackOff`.
    pub reason: String,
    /// For people.
    pub message: String,
    /// `source.component`: which program says so.
    pub component: String,
    /// How often it happened.
    pub count: u32,
    /// When it happened first.
    pub first_timestamp: Timestamp,
    /// When it happened last.
    pub last_timestamp: Timestamp,
    /// `metadata.resourceVersion`: another one with every change, greater than all before.
    pub version: u64,
}

/// `v1 ObjectReference`, to an object of the core API.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ObjectReference {
    /// `Pod`, `Node`.
    pub kind: String,
    /// `None` for an object of no namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
    /// Tells it from others that had its name.
    pub uid: String,
    /// The part of it, such as `spec.containers{web}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field_path: Option<String>,
}

/// `type` of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum EventType {
    /// As it should be.
    Normal,
    /// Something went wrong.
    Warning,
}

// === impl EventType ===

impl EventType {
    /// Kubernetes' word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}
