//! What a pod is seen to be, in the kubelet's words: a function of the pod and of what is there.

mod conditions;
mod container;
mod mounts;
mod phase;

pub(crate) use self::container::RESTARTING_ALL;

use std::collections::BTreeMap;
use std::net::IpAddr;

use coracle_model::{
    ContainerState, ContainerStatus, DeviceHealth, ExtendedResource, PodConditionType, PodDevices, PodPhase,
    PodStatus, qos_class,
};
use jiff::Timestamp;

use crate::action::Index;
use crate::backoff::CrashLoop;
use crate::ports::Failure;
use crate::record::Verdict;
use crate::scene::Scene;

/// What the status rests on beside the pod and what is known of its containers.
pub(crate) struct Notes<'a> {
    /// When the node took the pod up.
    pub(crate) start_time: Timestamp,
    /// Containers that wait before they are started again.
    pub(crate) back_off: &'a BTreeMap<Index, CrashLoop>,
    /// Why a container cannot be started, by container.
    pub(crate) failures: &'a BTreeMap<Index, Failure>,
    /// Why nothing of the pod can be started.
    pub(crate) pod_failure: Option<&'a Failure>,
    /// What the pod waits for before anything is made of it.
    pub(crate) awaited_devices: Option<&'a str>,
    /// The devices its containers were given.
    pub(crate) devices: Option<&'a PodDevices>,
    /// How a device is.
    pub(crate) health: &'a dyn Fn(&ExtendedResource, &str) -> DeviceHealth,
    /// Whether containers may still be started.
    pub(crate) course: Course,
    /// The node's addresses, the primary family first.
    pub(crate) host_ips: &'a [IpAddr],
    /// Why the node ends the pod.
    pub(crate) verdict: Option<&'a Verdict>,
    /// The status before this one.
    pub(crate) previous: Option<&'a PodStatus>,
    pub(crate) now: Timestamp,
}

/// Where a pod is going.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Course {
    /// Containers are started.
    Running,
    /// None is any more, and some may still run.
    Stopping,
    /// None runs any more, and this is the last word.
    Ended,
}

/// The pod's status.
pub(crate) fn status(scene: &Scene<'_>, notes: &Notes<'_>) -> PodStatus {
    let pod = scene.pod;
    let inits = pod.spec.init_containers.len();
    let views = scene.views();
    let parts = scene.parts().zip(&views);
    let mut statuses: Vec<ContainerStatus> =
        parts.map(|(part, view)| container::status(scene, part, view, notes)).collect();
    let ephemeral_container_statuses = statuses.split_off(inits + pod.spec.containers.len());
    let refused = notes.verdict.is_some_and(|verdict| verdict.refused);
    if notes.course == Course::Ended && !refused {
        close(&mut statuses, inits);
    }
    let container_statuses = statuses.split_off(inits);
    let init_container_statuses = statuses;

    let mut phase = phase::phase(scene, &init_container_statuses, &container_statuses, notes.course);
    // As the API server is told: the phase is terminal once nothing of the pod can run any more.
    let verdict = notes.verdict.filter(|_| notes.course == Course::Ended);
    if notes.course == Course::Ended && (verdict.is_some() || !phase.is_terminal()) {
        phase = PodPhase::Failed;
    }
    let mut status = PodStatus {
        phase,
        conditions: Vec::new(),
        reason: verdict.map(|verdict| verdict.reason.clone()),
        message: verdict.map(|verdict| verdict.message.clone()),
        host_ips: notes.host_ips.to_vec(),
        pod_ips: pod_ips(scene, notes),
        start_time: Some(notes.start_time),
        init_container_statuses,
        container_statuses,
        ephemeral_container_statuses,
        qos_class: qos_class(&pod.spec),
    };
    status.conditions = conditions::conditions(scene, &status, notes);
    let has_been = |container: &ContainerStatus| container.container_id.is_some();
    let unscheduled = notes.awaited_devices.is_some() && !status.all_containers().any(has_been);
    if unscheduled {
        // As of a pod that has no node yet: there is nothing to say of anything else.
        status.conditions.retain(|condition| condition.kind == PodConditionType::PodScheduled);
    }
    if refused || unscheduled {
        status.init_container_statuses.clear();
        status.container_statuses.clear();
    }
    status
}

/// The pod's addresses. As in the kubelet: where no sandbox has any, the last that were known.
fn pod_ips(scene: &Scene<'_>, notes: &Notes<'_>) -> Vec<IpAddr> {
    if scene.pod.spec.host.network {
        return notes.host_ips.to_vec();
    }
    match &scene.observed.addresses[..] {
        [] => notes.previous.map(|previous| previous.pod_ips.clone()).unwrap_or_default(),
        own => own.to_vec(),
    }
}

/// The kubelet's last word on a pod: containers of an initialized pod that never ran count as failed.
fn close(statuses: &mut [ContainerStatus], inits: usize) {
    let initialized = inits == 0
        || statuses[inits..].iter().any(|status| status.container_id.is_some())
        || matches!(&statuses[inits - 1].state, ContainerState::Terminated(last) if last.exit_code == 0);
    if !initialized {
        return;
    }
    for status in &mut statuses[inits..] {
        if !matches!(status.state, ContainerState::Terminated(_)) {
            container::close(status);
        }
    }
}
