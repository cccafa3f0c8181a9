//! ConfigMaps and Secrets that come and change while a pod waits or runs.

use std::sync::Arc;
use std::time::Duration;

use coracle_model::{ContainerState, PodUid, RestartPolicy};
use tokio::time::sleep;

use super::fake::{Fake, Verb};
use super::values::pod;
use crate::Pods;

/// Long enough for whatever is not waiting for a timer.
const SETTLE: Duration = Duration::from_millis(100);

fn uid() -> PodUid {
    "a".parse().unwrap()
}

async fn started(prepare: impl FnOnce(&Fake)) -> (Arc<Fake>, Pods<Fake>) {
    let fake = Fake::new();
    prepare(&fake);
    let pods = Pods::new(Arc::clone(&fake));
    pods.set_desired(Arc::new(pod("a", RestartPolicy::Always, &[], &["web"])), None).unwrap();
    sleep(SETTLE).await;
    (fake, pods)
}

fn runs(pods: &Pods<Fake>) -> bool {
    let status = pods.get(&uid()).unwrap().status;
    matches!(status.container_statuses[0].state, ContainerState::Running(_))
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_configuration_is_tried_at_once_when_it_comes() {
    for verb in [Verb::Volumes, Verb::Create] {
        let (fake, pods) = started(|fake| fake.fail(verb, u32::MAX)).await;
        // Far into the back-off.
        sleep(Duration::from_secs(300)).await;
        let tried = fake.count(verb);
        fake.heal();
        sleep(SETTLE).await;
        assert_eq!((fake.count(verb), runs(&pods)), (tried, false), "{verb:?} waits for its back-off");
        pods.config_changed(&uid());
        sleep(SETTLE).await;
        assert!(runs(&pods), "{verb:?}");
        pods.terminate_all(None).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_try_that_began_before_the_change_costs_no_back_off() {
    for verb in [Verb::Volumes, Verb::Create] {
        let (fake, pods) = started(|fake| fake.fail(verb, 12)).await;
        while fake.count(verb) < 11 {
            sleep(Duration::from_secs(1)).await;
        }
        fake.hang(verb);
        while fake.count(verb) < 12 {
            sleep(Duration::from_secs(1)).await;
        }
        pods.config_changed(&uid());
        sleep(SETTLE).await;
        fake.unhang(verb);
        sleep(SETTLE).await;
        assert!(runs(&pods), "{verb:?} failed with what it had seen before, and was tried again");
        pods.terminate_all(None).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_change_refreshes_the_volumes_of_a_pod_that_runs() {
    let (fake, pods) = started(|_| {}).await;
    assert_eq!(fake.count(Verb::RefreshVolumes), 0);
    pods.config_changed(&uid());
    sleep(SETTLE).await;
    sleep(Duration::from_secs(1000)).await;
    assert_eq!(fake.count(Verb::RefreshVolumes), 1, "once for a change");

    // A change during a refresh is not lost, and a failure is tried again.
    fake.hang(Verb::RefreshVolumes);
    pods.config_changed(&uid());
    sleep(SETTLE).await;
    pods.config_changed(&uid());
    sleep(SETTLE).await;
    fake.heal();
    fake.fail(Verb::RefreshVolumes, 1);
    sleep(Duration::from_secs(1000)).await;
    assert_eq!(fake.count(Verb::RefreshVolumes), 3);
    assert!(runs(&pods));
    pods.terminate_all(None).await;
    pods.config_changed(&uid());
    assert_eq!(fake.with(|state| state.violations.clone()), Vec::<String>::new());
}
