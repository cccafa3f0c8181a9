//! Values for the tests of this crate.

use std::collections::BTreeMap;
use std::time::Duration;

use coracle_model::{
    Container, ContainerId, EphemeralContainer, Handler, Name, Pod, PodKey, PodSpec, Probe, RestartPolicy,
    Signal,
};
use jiff::Timestamp;

use crate::ports::{ImageRef, ObservedContainer, ObservedState};

pub(crate) fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

pub(crate) fn id(number: u8) -> ContainerId {
    ContainerId::from_bytes([number; 32])
}

pub(crate) fn image() -> ImageRef {
    ImageRef { id: "sha256:0".to_owned(), shown: "docker.io/library/busybox@sha256:1".to_owned() }
}

pub(crate) fn container(name: &str) -> Container {
    Container::new(Name::label(name).unwrap(), "busybox")
}

pub(crate) fn pod(uid: &str, policy: RestartPolicy, init: &[&str], apps: &[&str]) -> Pod {
    Pod {
        uid: uid.parse().unwrap(),
        key: PodKey { namespace: Name::label("default").unwrap(), name: Name::label("pod").unwrap() },
        labels: Default::default(),
        annotations: Default::default(),
        spec: PodSpec {
            init_containers: init.iter().copied().map(container).collect(),
            restart_policy: policy,
            ..PodSpec::new(apps.iter().copied().map(container).collect())
        },
        object: "{}".to_owned(),
    }
}

/// An ephemeral container, of a target where one is named.
pub(crate) fn ephemeral(name: &str, target: Option<&str>) -> EphemeralContainer {
    EphemeralContainer {
        container: container(name),
        target: target.map(|name| Name::label(name).unwrap()),
        object: "{}".to_owned(),
    }
}

/// A probe that is never carried out: what it finds is said by the test.
pub(crate) fn probe() -> Probe {
    Probe {
        handler: Handler::Exec(vec!["true".to_owned()]),
        initial_delay: Duration::ZERO,
        timeout: Duration::from_secs(1),
        period: Duration::from_secs(10),
        success_threshold: 1,
        failure_threshold: 3,
        termination_grace_period: None,
    }
}

/// A pod with two init containers around two sidecars, and two app containers.
pub(crate) fn pod_with_sidecars(policy: RestartPolicy) -> Pod {
    let mut pod = pod("a", policy, &["one", "proxy", "two", "shipper"], &["web", "log"]);
    for at in [1, 3] {
        pod.spec.init_containers[at].restart_policy = Some(RestartPolicy::Always);
    }
    pod
}

/// A container in a state, of the first sandbox.
pub(crate) fn observed(name: &str, attempt: u32, state: ObservedState) -> ObservedContainer {
    let number = name.bytes().fold(0u8, u8::wrapping_add).wrapping_mul(16).wrapping_add(attempt as u8);
    ObservedContainer {
        id: id(number),
        name: name.to_owned(),
        attempt,
        sandbox_attempt: Some(0),
        image_id: image().shown,
        volume_images: BTreeMap::new(),
        created_at: at(0),
        stop_signal: Some(Signal::TERM),
        state,
    }
}

pub(crate) fn created(name: &str, attempt: u32) -> ObservedContainer {
    observed(name, attempt, ObservedState::Created)
}

pub(crate) fn running(name: &str, attempt: u32) -> ObservedContainer {
    observed(name, attempt, ObservedState::Running { started_at: at(0) })
}

/// Ended at 0, having run for no time.
pub(crate) fn exited(name: &str, attempt: u32, exit_code: i32) -> ObservedContainer {
    let reason = if exit_code == 0 { "Completed" } else { "Error" };
    let state = ObservedState::Exited {
        exit_code,
        signal: None,
        reason: reason.to_owned(),
        message: None,
        started_at: Some(at(0)),
        finished_at: at(0),
    };
    observed(name, attempt, state)
}

impl ObservedContainer {
    /// The same, having run from one time to another.
    pub(crate) fn ran(mut self, from: Timestamp, to: Timestamp) -> Self {
        if let ObservedState::Exited { started_at, finished_at, .. } = &mut self.state {
            (*started_at, *finished_at) = (Some(from), to);
        }
        self
    }
}
