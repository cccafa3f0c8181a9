//! A node with one pod, as the stories of pods' lives see it.

use std::sync::Arc;
use std::time::Duration;

use coracle_model::{ConditionStatus, ContainerState, ContainerStatus, Pod, PodConditionType, RestartPolicy};
use tokio::time::{sleep, timeout};

use super::fake::{Fake, Told};
use super::values::pod;
use crate::ports::Findings;
use crate::{PodSnapshot, Pods};

pub(crate) const POLICY: RestartPolicy = RestartPolicy::Always;

/// Long enough for whatever is not waiting for a timer.
pub(crate) const SETTLE: Duration = Duration::from_millis(100);

pub(crate) struct Node {
    pub(crate) fake: Arc<Fake>,
    pub(crate) pods: Pods<Fake>,
}

impl Node {
    pub(crate) fn new() -> Self {
        let fake = Fake::new();
        Self { pods: Pods::new(Arc::clone(&fake)), fake }
    }

    pub(crate) async fn run(&self, policy: RestartPolicy, init: &[&str], apps: &[&str]) {
        self.pods.set_desired(Arc::new(pod("a", policy, init, apps)), None).unwrap();
        sleep(SETTLE).await;
    }

    pub(crate) async fn run_pod(&self, pod: &Pod) {
        self.pods.set_desired(Arc::new(pod.clone()), None).unwrap();
        sleep(SETTLE).await;
    }

    /// The agent is killed, and another one takes over what it left.
    pub(crate) async fn restart_agent(&mut self) {
        self.pods.detach().await;
        self.fake.forget_agent();
        self.pods = self.fake.take_over();
        sleep(SETTLE).await;
    }

    /// Has the probes of a container find something.
    pub(crate) async fn find(&self, name: &str, change: impl FnOnce(&mut Findings)) {
        assert!(self.fake.find(&self.pods, &uid("a"), name, change), "{name} is not probed");
        sleep(SETTLE).await;
    }

    /// What is seen of a container.
    pub(crate) fn container(&self, name: &str) -> ContainerStatus {
        let status = self.see().status;
        status.all_containers().find(|one| one.name == name).unwrap().clone()
    }

    pub(crate) fn condition(&self, kind: PodConditionType) -> bool {
        let status = self.see().status;
        let condition = status.conditions.iter().find(|condition| condition.kind == kind).unwrap();
        condition.status == ConditionStatus::True
    }

    /// The messages told of a container for a reason.
    pub(crate) fn told(&self, reason: &str, container: &str) -> Vec<String> {
        let told = self.fake.told(&uid("a")).into_iter();
        let about = |told: &Told| told.reason == reason && told.container.as_deref() == Some(container);
        told.filter(about).map(|told| told.message).collect()
    }

    pub(crate) fn exit(&self, name: &str, code: i32) {
        assert!(self.fake.exit(&self.pods, &uid("a"), name, code), "{name} does not run");
    }

    pub(crate) fn see(&self) -> PodSnapshot {
        self.pods.get(&uid("a")).unwrap()
    }

    /// Reason of the first container that waits.
    pub(crate) fn waits(&self) -> Option<(String, Option<String>)> {
        let status = self.see().status;
        status.all_containers().find_map(|one| match &one.state {
            ContainerState::Waiting(waiting) => Some((waiting.reason.clone(), waiting.message.clone())),
            _ => None,
        })
    }

    pub(crate) async fn gone(&self, limit: Duration) {
        let mut changes = self.pods.changes();
        let wait = changes.wait_for(|_| self.pods.snapshot().is_empty());
        timeout(limit, wait).await.expect("the pod is gone in time").unwrap();
        assert_eq!(self.fake.leftovers(), Vec::<String>::new());
        self.well_behaved();
    }

    pub(crate) fn well_behaved(&self) {
        self.fake.with(|state| assert_eq!(state.violations, Vec::<String>::new()));
    }
}

pub(crate) fn uid(text: &str) -> coracle_model::PodUid {
    text.parse().unwrap()
}
