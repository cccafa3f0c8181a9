//! Limits of volumes that the kernel does not keep.

use std::time::Duration;

use coracle_model::{EmptyDirMedium, Name, Pod, PodConditionType, PodPhase, Volume, VolumeSource};
use tokio::time::sleep;

use super::fake::Verb;
use super::node::{Node, POLICY, SETTLE, uid};
use super::values::pod;
use crate::WorkerPhase;

const MESSAGE: &str = "Usage of EmptyDir volume \"scratch\" exceeds the limit \"1Mi\". ";

fn with_limit(medium: EmptyDirMedium, limit: Option<&str>) -> Pod {
    let mut pod = pod("a", POLICY, &[], &["web"]);
    let size_limit = limit.map(|limit| limit.parse().unwrap());
    let source = VolumeSource::EmptyDir { medium, size_limit };
    pod.spec.volumes.push(Volume { name: Name::label("scratch").unwrap(), source });
    pod
}

fn limited() -> Pod {
    with_limit(EmptyDirMedium::Default, Some("1Mi"))
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_outgrows_its_volume_is_evicted() {
    let node = Node::new();
    node.run_pod(&limited()).await;
    sleep(Duration::from_secs(25)).await;
    assert_eq!(node.fake.count(Verb::MeasureVolumes), 3, "at the start and every ten seconds");
    assert!(node.condition(PodConditionType::Ready));

    node.fake.with(|state| {
        state.obey = None;
        state.measuring.1 = Some(MESSAGE.to_owned());
    });
    sleep(Duration::from_millis(7900)).await;
    assert_eq!(node.see().phase, WorkerPhase::Terminated, "it has no more time than its last signal takes");
    let status = node.see().status;
    assert_eq!((status.phase, status.reason.as_deref()), (PodPhase::Failed, Some("Evicted")));
    assert_eq!(status.message.as_deref(), Some(MESSAGE));
    let disruption = |kind| status.conditions.iter().any(|condition| condition.kind == kind);
    assert!(!disruption(PodConditionType::DisruptionTarget), "it is the pod's own doing");
    let told = node.fake.told(&uid("a"));
    let told: Vec<_> = told.iter().filter(|told| told.reason == "Evicted").collect();
    assert_eq!((told.len(), told[0].message.as_str()), (1, MESSAGE));
    sleep(Duration::from_secs(60)).await;
    assert_eq!(node.fake.count(Verb::MeasureVolumes), 4, "nothing is left to measure");
    node.pods.terminate(&uid("a"), None);
    node.gone(SETTLE).await;
}

#[tokio::test(start_paused = true)]
async fn a_measurement_takes_little_of_the_time_and_delays_nothing() {
    let mut node = Node::new();
    node.fake.with(|state| state.measuring.0 = Duration::from_secs(5));
    node.run_pod(&limited()).await;
    assert!(node.condition(PodConditionType::Ready));
    sleep(Duration::from_secs(104)).await;
    assert_eq!(node.fake.count(Verb::MeasureVolumes), 1);
    sleep(Duration::from_secs(2)).await;
    assert_eq!(node.fake.count(Verb::MeasureVolumes), 2);
    node.restart_agent().await;
    assert_eq!(node.fake.count(Verb::MeasureVolumes), 3, "the next agent does not know what was found");
    node.pods.terminate(&uid("a"), None);
    node.gone(SETTLE).await;
}

#[tokio::test(start_paused = true)]
async fn a_measurement_that_fails_is_told_and_made_again() {
    let node = Node::new();
    node.fake.fail(Verb::MeasureVolumes, 2);
    node.run_pod(&limited()).await;
    sleep(Duration::from_secs(5)).await;
    let told = node.fake.told(&uid("a"));
    assert!(told.iter().any(|told| told.message.starts_with("error measuring the pod's volumes: ")));
    assert_eq!(node.fake.count(Verb::MeasureVolumes), 3);
    assert!(node.condition(PodConditionType::Ready));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_measured_where_the_kernel_keeps_the_limit_or_there_is_none() {
    for pod in [with_limit(EmptyDirMedium::Memory, Some("1Mi")), with_limit(EmptyDirMedium::Default, None)] {
        let node = Node::new();
        node.run_pod(&pod).await;
        sleep(Duration::from_secs(60)).await;
        assert_eq!(node.fake.count(Verb::MeasureVolumes), 0);
    }
}
