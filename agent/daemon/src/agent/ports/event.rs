//! What happens to pods, told to the node's events.

use coracle_events::{EventLog, Occurrence};
use coracle_model::{ObjectReference, Pod};
use coracle_pod::ports::{Events, PodEvent};

use crate::agent::event::COMPONENT;

/// The node's events, as pods tell them.
#[derive(Clone)]
pub(crate) struct EventPort {
    log: EventLog,
}

// === impl EventPort ===

impl EventPort {
    pub(crate) fn new(log: EventLog) -> Self {
        Self { log }
    }
}

impl Events for EventPort {
    fn record(&self, pod: &Pod, event: PodEvent<'_>) {
        let PodEvent { kind, reason, message, container } = event;
        let field_path = container.map(|container| {
            let spec = &pod.spec;
            let list = if spec.init_containers.iter().any(|one| one.name == *container) {
                "initContainers"
            } else if spec.containers.iter().any(|one| one.name == *container) {
                "containers"
            } else {
                "ephemeralContainers"
            };
            format!("spec.{list}{{{container}}}")
        });
        self.log.record(Occurrence {
            object: ObjectReference {
                kind: "Pod".to_owned(),
                namespace: Some(pod.key.namespace.to_string()),
                name: pod.key.name.to_string(),
                uid: pod.uid.to_string(),
                field_path,
            },
            kind,
            reason: reason.to_owned(),
            message,
            component: COMPONENT.to_owned(),
        });
    }
}
