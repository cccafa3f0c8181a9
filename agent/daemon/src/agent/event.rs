//! What the node tells of itself, for people: events on the Node, as the kubelet has them.

use std::path::Path;

use coracle_controller::{Problem, Subject};
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

    /// The machine shuts down.
    pub(super) fn shutting_down(&self) {
        self.tell(EventType::Normal, "NodeShutdown", "Shutdown manager detected shutdown event".to_owned());
        self.tell(
            EventType::Normal,
            "NodeNotReady",
            format!("Node {} status is now: NodeNotReady", self.node),
        );
    }

    /// It does not, after all.
    pub(super) fn shutdown_cancelled(&self) {
        let message = "Shutdown manager detected shutdown cancellation".to_owned();
        self.tell(EventType::Normal, "NodeShutdown", message);
        self.ready();
    }

    /// Something is wrong with a manifest, or with where they are. The event is the node's: what cannot be read is
    /// no Pod yet, and a file is no object of Kubernetes.
    pub(super) fn refused(&self, problem: &Problem) {
        let reason = match problem.subject {
            Subject::Manifest => "FailedValidation",
            Subject::Place if problem.source.is_url() => "FailedToRetrieveStaticPods",
            Subject::Place => "InvalidStaticPodPath",
        };
        self.tell(EventType::Warning, reason, problem.message.clone());
    }

    /// An address from which manifests could not be had has answered.
    pub(super) fn retrieved(&self, problem: &Problem) {
        self.tell(
            EventType::Normal,
            "RetrievedStaticPods",
            format!("{}: has answered again", problem.source),
        );
    }

    /// The configuration was read again, and this is different.
    pub(super) fn reloaded(&self, message: String) {
        tracing::info!("{message}");
        self.tell(EventType::Normal, "ConfigurationReloaded", message);
    }

    /// Something is different in the configuration that counts when the agent starts.
    pub(super) fn needs_restart(&self, message: String) {
        tracing::warn!("{message}");
        self.tell(EventType::Warning, "RestartRequired", message);
    }

    /// The configuration that was read again cannot be used.
    pub(super) fn not_reloaded(&self, message: String) {
        tracing::error!("{message}");
        self.tell(EventType::Warning, "InvalidConfiguration", message);
    }

    /// An archive of images could not be imported.
    pub(super) fn archive_not_imported(&self, path: &Path, problem: &str) {
        tracing::error!(archive = %path.display(), problem, "an archive of images is not imported");
        let message = format!("Failed to import images from {}: {problem}", path.display());
        self.tell(EventType::Warning, "FailedImageImport", message);
    }

    /// Images could not be collected.
    pub(super) fn image_gc_failed(&self, problem: &str) {
        self.tell(EventType::Warning, "ImageGCFailed", problem.to_owned());
    }

    /// Less than was wanted could be freed by removing images. The first sentences are the kubelet's.
    pub(super) fn free_disk_space_failed(&self, wanted: u64, freed: u64, holders: &str) {
        let message = format!(
            "Failed to garbage collect required amount of images. Attempted to free {wanted} bytes, but only found {freed} \
             bytes eligible to free. {holders}"
        );
        self.tell(EventType::Warning, "FreeDiskSpaceFailed", message);
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
