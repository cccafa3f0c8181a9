//! Pods that ask for devices.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use coracle_model::{
    ConditionStatus, ContainerState, DeviceHealth, Name, Pod, PodConditionType, PodPhase, RestartPolicy,
};
use tokio::time::sleep;

use super::fake::Verb;
use super::fake::devices::gpu;
use super::node::{Node, POLICY, SETTLE, uid};
use super::values::pod;
use crate::WorkerPhase;

/// A pod whose only container asks for so many devices.
fn with_devices(name: &str, count: u64) -> Pod {
    let mut pod = pod(name, POLICY, &[], &["web"]);
    pod.key.name = Name::label(name).unwrap();
    pod.spec.containers[0].resources.extended.insert(gpu(), count);
    pod
}

impl Node {
    fn desire(&self, pod: Pod) {
        let source = Path::new("/m").join(pod.key.name.as_str());
        self.pods.set_desired(Arc::new(pod), Some(source.as_path().into())).unwrap();
    }

    /// A plugin comes with so many devices.
    fn plug(&self, count: usize) {
        self.fake.with(|state| state.inventory.plug(count));
        self.pods.devices_changed(&gpu());
    }

    fn unplug(&self) {
        self.fake.with(|state| state.inventory.plugins.clear());
        self.pods.devices_changed(&gpu());
    }

    fn set_healthy(&self, device: &str, healthy: bool) {
        self.fake.with(|state| {
            *state.inventory.plugins.get_mut(&gpu()).unwrap().get_mut(device).unwrap() = healthy;
        });
        self.pods.devices_changed(&gpu());
    }

    fn phase_of(&self, name: &str) -> PodPhase {
        self.pods.get(&uid(name)).unwrap().status.phase
    }

    /// The devices of a container.
    fn given(&self, pod: &str, container: &str) -> Vec<String> {
        self.fake.with(|state| {
            let pod = state.inventory.given.get(&uid(pod));
            let ids = pod.and_then(|pod| pod.iter().find(|(name, _)| ***name == *container)?.1.get(&gpu()));
            ids.into_iter().flatten().cloned().collect()
        })
    }

    /// Reasons and messages of what was told of a pod as a whole.
    fn told_of(&self, pod: &str) -> Vec<(String, String)> {
        let told = self.fake.told(&uid(pod)).into_iter().filter(|told| told.container.is_none());
        told.map(|told| (told.reason, told.message)).collect()
    }

    fn scheduled(&self, pod: &str) -> (ConditionStatus, Option<String>, Option<String>) {
        let status = self.pods.get(&uid(pod)).unwrap().status;
        let all = &status.conditions;
        let found = all.iter().find(|condition| condition.kind == PodConditionType::PodScheduled).unwrap();
        (found.status, found.reason.clone(), found.message.clone())
    }
}

const NO_PLUGIN: &str = "no device plugin serves example.com/gpu";

#[tokio::test(start_paused = true)]
async fn a_pod_waits_for_its_plugin_and_says_so() {
    let node = Node::new();
    node.desire(with_devices("a", 1));
    sleep(SETTLE).await;
    let status = node.see().status;
    assert_eq!(status.phase, PodPhase::Pending);
    assert_eq!(status.container_statuses, [], "as of a pod that has no node yet");
    assert_eq!(status.conditions.len(), 1);
    let waits = (ConditionStatus::False, Some("Unschedulable".to_owned()), Some(NO_PLUGIN.to_owned()));
    assert_eq!(node.scheduled("a"), waits);
    assert_eq!(node.told_of("a"), [("FailedScheduling".to_owned(), NO_PLUGIN.to_owned())]);

    let calls = node.fake.with(|state| state.calls.len());
    node.pods.notify(&uid("a"));
    sleep(Duration::from_secs(3600)).await;
    let after = node.fake.with(|state| state.calls.split_off(calls));
    let asked = after.iter().any(|(verb, _)| *verb == Verb::Allocate);
    assert!(!asked && after.len() <= 2, "it waits, and asks nobody meanwhile: {after:?}");

    let came = node.pods.changes();
    node.plug(1);
    sleep(SETTLE).await;
    drop(came);
    assert_eq!(node.phase_of("a"), PodPhase::Running);
    assert_eq!(node.scheduled("a"), (ConditionStatus::True, None, None));
    assert_eq!(node.told_of("a").len(), 1, "what it waited for was told once");
    node.pods.terminate(&uid("a"), None);
    node.gone(Duration::from_secs(60)).await;
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_waits_goes_at_once() {
    let node = Node::new();
    node.desire(with_devices("a", 1));
    sleep(SETTLE).await;
    node.pods.terminate(&uid("a"), None);
    node.gone(SETTLE).await;

    node.plug(1);
    node.fake.hang(Verb::Allocate);
    node.desire(with_devices("a", 1));
    sleep(SETTLE).await;
    node.pods.terminate(&uid("a"), None);
    node.gone(SETTLE).await;
}

#[tokio::test(start_paused = true)]
async fn what_comes_while_a_pod_asks_is_not_missed() {
    let node = Node::new();
    node.desire(with_devices("a", 1));
    while node.fake.count(Verb::Allocate) == 0 {
        tokio::task::yield_now().await;
        sleep(Duration::from_micros(100)).await;
    }
    // The question is under way; the plugin comes, and is gone again when it is answered.
    node.pods.devices_changed(&gpu());
    sleep(SETTLE).await;
    assert_eq!(node.fake.count(Verb::Allocate), 2, "the first answer may be outdated, the second is not");
    assert_eq!(node.phase_of("a"), PodPhase::Pending);
    node.well_behaved();
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_asks_for_more_than_is_free_is_refused() {
    let mut node = Node::new();
    node.plug(2);
    node.desire(with_devices("a", 1));
    sleep(SETTLE).await;
    node.desire(with_devices("b", 2));
    sleep(SETTLE).await;
    let message = "1 of 2 devices of example.com/gpu are free";
    for _ in 0..2 {
        let refused = node.pods.get(&uid("b")).unwrap().status;
        assert_eq!(refused.phase, PodPhase::Failed);
        assert_eq!(refused.reason.as_deref(), Some("OutOfexample.com/gpu"));
        assert_eq!(refused.message, Some(format!("Pod was rejected: {message}")));
        assert_eq!(refused.container_statuses, []);
        assert_eq!(node.told_of("b"), [("OutOfexample.com/gpu".to_owned(), message.to_owned())]);
        assert_eq!(node.given("b", "web"), [""; 0], "all or nothing");
        assert_eq!(node.phase_of("a"), PodPhase::Running);
        node.restart_agent().await;
    }
    node.pods.terminate(&uid("a"), None);
    sleep(Duration::from_secs(60)).await;
    assert_eq!(node.phase_of("b"), PodPhase::Failed, "for good");
    node.well_behaved();
}

#[tokio::test(start_paused = true)]
async fn a_device_of_a_pod_that_ends_is_awaited() {
    let mut node = Node::new();
    node.plug(1);
    node.desire(with_devices("a", 1));
    sleep(SETTLE).await;
    node.fake.with(|state| state.obey = Some(Duration::from_secs(5)));
    node.pods.terminate(&uid("a"), None);
    node.desire(with_devices("b", 1));
    sleep(SETTLE).await;
    let message = "Waiting for pod default/a to end, which has devices of example.com/gpu: 0 of 1 devices of \
                   example.com/gpu are free";
    assert_eq!(node.told_of("b"), [("FailedScheduling".to_owned(), message.to_owned())]);
    assert_eq!(node.scheduled("b").0, ConditionStatus::False);
    node.restart_agent().await;
    assert_eq!(node.phase_of("b"), PodPhase::Pending);
    sleep(Duration::from_secs(6)).await;
    assert_eq!(node.phase_of("b"), PodPhase::Running);
    node.desire(with_devices("c", 1));
    sleep(SETTLE).await;
    assert_eq!(node.phase_of("c"), PodPhase::Failed, "b does not end");
    node.well_behaved();
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_came_to_its_end_leaves_its_devices() {
    let node = Node::new();
    node.plug(1);
    let mut first = with_devices("a", 1);
    first.spec.restart_policy = RestartPolicy::Never;
    node.desire(first);
    sleep(SETTLE).await;
    node.exit("web", 0);
    sleep(SETTLE).await;
    assert_eq!(node.phase_of("a"), PodPhase::Succeeded);
    node.desire(with_devices("b", 1));
    sleep(SETTLE).await;
    assert_eq!(node.phase_of("b"), PodPhase::Running);
    let shown = &node.see().status.container_statuses[0].allocated_resources;
    assert_eq!(shown[0].devices[0].id, "gpu0", "what it had is still shown");
    node.well_behaved();
}

#[tokio::test(start_paused = true)]
async fn running_pods_keep_their_devices_over_a_restart_of_the_agent_and_are_not_asked_again() {
    let mut node = Node::new();
    node.plug(2);
    node.desire(with_devices("a", 2));
    sleep(SETTLE).await;
    let given = node.given("a", "web");
    node.unplug();
    node.restart_agent().await;
    node.restart_agent().await;
    assert_eq!((node.phase_of("a"), node.fake.count(Verb::Allocate)), (PodPhase::Running, 1));
    node.desire(with_devices("b", 1));
    sleep(SETTLE).await;
    assert_eq!(node.phase_of("b"), PodPhase::Pending);
    // A container that ends while no plugin is there comes again with what it had.
    node.exit("web", 1);
    sleep(SETTLE).await;
    assert_eq!((node.given("a", "web"), node.fake.count(Verb::Prepare)), (given, 2));
    node.plug(2);
    sleep(SETTLE).await;
    assert_eq!((node.phase_of("a"), node.phase_of("b")), (PodPhase::Running, PodPhase::Failed));
    node.well_behaved();
}

#[tokio::test(start_paused = true)]
async fn an_agent_killed_before_the_answer_is_on_record_gives_nothing_twice() {
    let mut node = Node::new();
    node.plug(1);
    node.desire(with_devices("a", 1));
    while node.fake.with(|state| state.inventory.given.is_empty()) {
        sleep(Duration::from_micros(100)).await;
    }
    // The record that says so is being written, and will never be.
    node.fake.hang(Verb::Save);
    sleep(SETTLE).await;
    assert_eq!(node.fake.count(Verb::Sandbox), 0, "nothing is made before that");
    node.fake.unhang(Verb::Save);
    node.fake.with(|state| state.records.get_mut(&uid("a")).unwrap().devices = None);
    node.restart_agent().await;
    assert_eq!(node.phase_of("a"), PodPhase::Running);
    assert_eq!(node.given("a", "web"), ["gpu0"]);
    node.well_behaved();
}

#[tokio::test(start_paused = true)]
async fn devices_are_given_anew_after_a_reboot_once_their_plugin_is_there() {
    let mut node = Node::new();
    node.plug(1);
    node.desire(with_devices("a", 1));
    // Until it is kept for after a reboot.
    sleep(Duration::from_secs(5)).await;
    node.pods.detach().await;
    node.fake.reboot();
    node.fake.with(|state| state.inventory.plugins.clear());
    node.pods = node.fake.take_over();
    sleep(SETTLE).await;
    assert_eq!(node.scheduled("a").0, ConditionStatus::False);
    assert_eq!(node.see().status.container_statuses.len(), 1, "its containers have been, and are shown");
    node.plug(1);
    sleep(SETTLE).await;
    assert_eq!((node.phase_of("a"), node.fake.count(Verb::Allocate)), (PodPhase::Running, 3));
    assert_eq!(node.container("web").restart_count, 1);
    node.well_behaved();
}

#[tokio::test(start_paused = true)]
async fn devices_are_prepared_before_each_creation_of_a_container_that_has_some() {
    let node = Node::new();
    node.plug(2);
    let mut pod = pod("a", POLICY, &["init", "proxy"], &["web", "log"]);
    pod.spec.init_containers[1].restart_policy = Some(RestartPolicy::Always);
    for container in [&mut pod.spec.init_containers[0], &mut pod.spec.containers[0]] {
        container.resources.extended.insert(gpu(), 1);
    }
    pod.spec.init_containers[1].resources.extended.insert(gpu(), 1);
    node.run_pod(&pod).await;
    node.exit("init", 0);
    sleep(SETTLE).await;
    let given = |name| node.given("a", name);
    assert_eq!((given("init"), given("web")), (vec!["gpu0".to_owned()], vec!["gpu1".to_owned()]));
    assert_eq!(given("proxy"), ["gpu0"], "what an init container had is used again");
    node.exit("web", 1);
    sleep(SETTLE).await;
    let prepared: Vec<String> = node.fake.with(|state| {
        let calls = state.calls.iter().filter(|(verb, _)| *verb == Verb::Prepare);
        calls.map(|(_, about)| about.clone()).collect()
    });
    assert_eq!(prepared, ["init", "proxy", "web", "web"], "log has none");
    assert_eq!(node.fake.count(Verb::Allocate), 1);
    node.well_behaved();
}

#[tokio::test(start_paused = true)]
async fn a_container_whose_devices_could_not_be_prepared_comes_with_the_plugin() {
    let node = Node::new();
    node.plug(1);
    node.fake.fail(Verb::Prepare, 20);
    node.desire(with_devices("a", 1));
    sleep(Duration::from_secs(60)).await;
    let ContainerState::Waiting(waiting) = node.container("web").state else { panic!("it does not wait") };
    assert_eq!(waiting.message.as_deref(), Some("Prepare was made to fail"));
    node.fake.heal();
    node.plug(1);
    sleep(SETTLE).await;
    assert_eq!(node.phase_of("a"), PodPhase::Running, "at once, without what is left of its back-off");
    node.well_behaved();
}

#[tokio::test(start_paused = true)]
async fn how_the_devices_of_a_container_are_is_shown_and_told() {
    let mut node = Node::new();
    node.plug(2);
    node.desire(with_devices("a", 2));
    sleep(SETTLE).await;
    let health = |node: &Node| -> Vec<(String, DeviceHealth)> {
        let [one] = &node.container("web").allocated_resources[..] else { panic!("not one resource") };
        assert_eq!(one.resource, gpu());
        one.devices.iter().map(|device| (device.id.clone(), device.health)).collect()
    };
    let (good, bad, unknown) = (DeviceHealth::Healthy, DeviceHealth::Unhealthy, DeviceHealth::Unknown);
    let both = |first, second| vec![("gpu0".to_owned(), first), ("gpu1".to_owned(), second)];
    assert_eq!(health(&node), both(good, good));
    node.set_healthy("gpu1", false);
    sleep(SETTLE).await;
    assert_eq!(health(&node), both(good, bad));
    assert_eq!(node.told("DeviceUnhealthy", "web"), ["Device gpu1 of example.com/gpu is unhealthy"]);
    node.restart_agent().await;
    assert_eq!(node.told("DeviceUnhealthy", "web").len(), 1, "it is told once");
    node.set_healthy("gpu1", true);
    sleep(SETTLE).await;
    assert_eq!(node.told("DeviceHealthy", "web"), ["Device gpu1 of example.com/gpu is healthy again"]);
    node.unplug();
    sleep(SETTLE).await;
    assert_eq!(health(&node), both(unknown, unknown));
    assert_eq!(node.phase_of("a"), PodPhase::Running);
    assert_eq!(node.see().phase, WorkerPhase::Syncing, "nothing ends for that");
    node.well_behaved();
}
