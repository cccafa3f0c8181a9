//! What the agent must know of a pod after its own restart.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use coracle_model::{ContainerId, ContainerState, ManifestSource, Pod, PodDevices, PodStatus, ProbeKind};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::admission::NODE_PORTS;
use crate::ports::Findings;

/// What of a pod survives the agent and cannot be learned from the runtime.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PodRecord {
    /// The pod as it was accepted.
    pub pod: Arc<Pod>,
    /// Where its manifest is; `None` when it was given otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<ManifestSource>,
    /// When the node took it up: `status.startTime`.
    pub start_time: Timestamp,
    /// How long the machine had been up by then, in this boot of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_uptime: Option<Duration>,
    /// Nothing is made of it yet: a pod has ports of the host that it asks for, and is being ended.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub waits_for_ports: bool,
    /// The devices its containers were given. Nothing is made of a pod that asks for some before they are on record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub devices: Option<PodDevices>,
    /// Set once its removal was asked for. Never taken back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion: Option<Deletion>,
    /// Set once it comes to its end without being removed. Taken back only where the node's shutdown was why, or
    /// that another pod had its ports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ending: Option<Ending>,
    /// The status it ended with, once its phase is terminal. Its containers may be removed by then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished: Option<PodStatus>,
    /// Per container, the restart count of the last run that was long enough to end a crash loop.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub streak_base: BTreeMap<String, u32>,
    /// All containers are being ended, to begin with the init containers again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub restarting: bool,
    /// Per container, the restart count of the first run after all containers were restarted. What ran before
    /// counts for nothing any more.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub round: BTreeMap<String, u32>,
    /// What was seen of it last, give or take a second: tells the times of its conditions, and what has become
    /// of containers the runtime no longer knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen: Option<Arc<PodStatus>>,
    /// How far the containers are that are there, where it is more than the runtime tells.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub progress: BTreeMap<ContainerId, Progress>,
}

/// The removal of a pod: `metadata.deletionTimestamp` and `metadata.deletionGracePeriodSeconds`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deletion {
    /// When it was asked for.
    pub requested_at: Timestamp,
    /// What its containers have from then on until they are killed. A later request shortens it.
    pub grace: Duration,
}

/// The end of a pod that nobody asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ending {
    /// When it began.
    pub since: Timestamp,
    /// What those containers that still run have from then on until they are killed.
    pub grace: Duration,
    /// Why the node ended it; `None` when its containers came to their end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Verdict>,
    /// Set when the node's shutdown is why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shutdown: Option<Shutdown>,
}

/// What the node's shutdown has done to a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Shutdown {
    /// It was ended.
    Ended,
    /// It came while the node was shutting down, and was not taken up.
    Refused,
}

/// Why the node ends a pod, which has failed with that.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// `status.reason`: `DeadlineExceeded`, `Evicted`, `Terminated`, `NodeShutdown`, `NodePorts`,
    /// `SysctlForbidden`, `UnexpectedAdmissionError`, `TopologyAffinityError`, `OutOf` and a resource.
    pub reason: String,
    /// `status.message`: for people.
    pub message: String,
    /// It is ended for the node's sake: the condition `DisruptionTarget`.
    #[serde(default)]
    pub disruption: bool,
    /// It was never taken up: there is nothing to say of its containers.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub refused: bool,
}

/// What is known of a container beside what the runtime tells.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Its postStart hook has been carried out.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub post_started: bool,
    /// What its probes have found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub findings: Option<Findings>,
    /// Set once it is to be ended while the pod goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop: Option<StopOrder>,
}

/// The end of one container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StopOrder {
    /// When it was decided on.
    pub since: Timestamp,
    /// What the container has from then on until it is killed.
    pub grace: Duration,
    /// Why.
    pub cause: StopCause,
}

/// Why a container is ended while its pod goes on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StopCause {
    /// Its startup or liveness probe has failed.
    Probe(ProbeKind),
    /// Its postStart hook has failed, and said this.
    PostStart(String),
    /// All containers of the pod are ended, to be started again.
    RestartAll,
}

// === impl PodRecord ===

impl PodRecord {
    /// The record of a pod the node takes up now.
    pub fn new(pod: Arc<Pod>, source: Option<ManifestSource>, start_time: Timestamp) -> Self {
        Self {
            pod,
            source,
            start_time,
            start_uptime: None,
            waits_for_ports: false,
            devices: None,
            deletion: None,
            ending: None,
            finished: None,
            streak_base: BTreeMap::new(),
            restarting: false,
            round: BTreeMap::new(),
            seen: None,
            progress: BTreeMap::new(),
        }
    }

    /// Whether the pod begins again once what has ended it, or kept it from being taken up, is over: the node's
    /// shutdown, as a kubelet begins with its static pods again, or another pod with its ports. Only one of a manifest
    /// does. What came from elsewhere has failed for good.
    pub fn begins_again(&self) -> bool {
        let shutdown = self.ending.as_ref().is_some_and(|ending| ending.shutdown.is_some());
        (shutdown || self.lacks_ports()) && self.source.is_some() && self.deletion.is_none()
    }

    /// Whether it was not taken up because another pod had ports of the host that it asks for.
    pub(crate) fn lacks_ports(&self) -> bool {
        let verdict = self.ending.as_ref().and_then(|ending| ending.verdict.as_ref());
        verdict.is_some_and(|verdict| verdict.refused && verdict.reason == NODE_PORTS)
    }

    /// Takes the end of a pod that [begins again](Self::begins_again) back: from now on its containers are such
    /// that ended, and its restart policy decides. That the shutdown ended them was no crash.
    pub(crate) fn begin_again(&mut self, now: Timestamp) {
        let never = self.lacks_ports();
        let Some(ending) = self.ending.take() else { return };
        self.progress.clear();
        self.devices = None;
        let finished = self.finished.take();
        if never || ending.shutdown == Some(Shutdown::Refused) {
            (self.start_time, self.start_uptime, self.seen) = (now, None, None);
            return;
        }
        let Some(finished) = finished else { return };
        for status in finished.init_container_statuses.iter().chain(&finished.container_statuses) {
            let ContainerState::Terminated(ended) = &status.state else { continue };
            if ended.finished_at.is_some_and(|at| at >= ending.since) {
                self.streak_base.insert(status.name.clone(), status.restart_count.saturating_add(1));
            }
        }
        self.seen = Some(Arc::new(finished));
    }
}
