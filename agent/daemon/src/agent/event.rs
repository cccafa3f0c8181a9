//! What the node tells of itself, for people: events on the Node, as the kubelet has them.

use std::path::Path;

use coracle_controller::Problem;
use coracle_events::{EventLog, Occurrence};
use coracle_model::{EventType, ObjectReference};

use crate::config::Config;

/// `source.component` of every event of this node.
pub(super) const COMPONENT: &str = "coracle";

/// The node's events about itself.
pub(super) struct NodeEvents {
    log: EventLog,
    node: String,
}

// === impl NodeEvents ===

impl NodeEvents {
    pub(super) fn new(log: EventLog, config: &Config) -> Self {
        Self { log, node: config.node_name.to_string() }
    }

    /// The agent starts.
    pub(super) fn starting(&self) {
        self.tell(EventType::Normal, "Starting", format!("Starting coracle {}.", env!("CARGO_PKG_VERSION")));
    }

    /// Pods are taken up, and the API answers.
    pub(super) fn ready(&self) {
        self.tell(EventType::Normal, "NodeReady", format!("Node {} status is now: NodeReady", self.node));
    }

    /// Something is wrong with the manifests in a directory, or with the directory itself. The event is the node's:
    /// what cannot be read is no Pod yet, and a file is no object of Kubernetes.
    pub(super) fn refused(&self, directory: &Path, problem: &Problem) {
        let reason = if *problem.path == *directory { "InvalidStaticPodPath" } else { "FailedValidation" };
        self.tell(EventType::Warning, reason, problem.message.clone());
    }

    fn tell(&self, kind: EventType, reason: &str, message: String) {
        self.log.record(Occurrence {
            object: ObjectReference {
                kind: "Node".to_owned(),
                namespace: None,
                name: self.node.clone(),
                // As the kubelet does: it tells its first events before it knows the Node's UID.
                uid: self.node.clone(),
                field_path: None,
            },
            kind,
            reason: reason.to_owned(),
            message,
            component: COMPONENT.to_owned(),
        });
    }
}
