//! A wall clock that is set while pods run: what takes time takes no more of it, and no less.

use std::time::Duration;

use coracle_model::PodPhase;
use jiff::SignedDuration;
use tokio::time::{Instant, sleep};

use super::fake::Verb;
use super::node::{Node, POLICY, SETTLE, uid};
use super::values::pod;
use crate::WorkerPhase;

/// A day ahead, and all the way back to 1970.
const JUMPS: [SignedDuration; 2] =
    [SignedDuration::from_hours(24), SignedDuration::from_secs(-1_000_000_000)];

#[tokio::test(start_paused = true)]
async fn a_back_off_takes_as_long_as_it_is_said_to() {
    for jump in JUMPS {
        let node = Node::new();
        node.run(POLICY, &[], &["web"]).await;
        node.exit("web", 1);
        sleep(SETTLE).await;
        node.exit("web", 1);
        sleep(SETTLE).await;
        let starts = node.fake.count(Verb::Start);
        assert_eq!(starts, 2);
        node.fake.set_clock(jump);
        node.pods.notify(&uid("a"));
        sleep(Duration::from_secs(10) - 2 * SETTLE).await;
        assert_eq!(node.fake.count(Verb::Start), starts, "{jump:?}: too early");
        sleep(2 * SETTLE).await;
        assert_eq!(node.fake.count(Verb::Start), starts + 1, "{jump:?}: too late");
    }
}

#[tokio::test(start_paused = true)]
async fn a_run_is_as_long_as_it_took() {
    for jump in JUMPS {
        let node = Node::new();
        node.run(POLICY, &[], &["web"]).await;
        for _ in 0..2 {
            node.exit("web", 1);
            sleep(SETTLE).await;
        }
        sleep(Duration::from_secs(10)).await;
        assert_eq!(node.fake.count(Verb::Start), 3);
        // A short run is no long one.
        node.fake.set_clock(jump);
        node.exit("web", 1);
        sleep(SETTLE).await;
        let (reason, message) = node.waits().expect("it waits");
        assert_eq!(reason, "CrashLoopBackOff");
        assert!(message.unwrap().starts_with("back-off 20s "), "{jump:?}");
        // And a long one no short one.
        sleep(Duration::from_secs(20)).await;
        sleep(Duration::from_secs(601)).await;
        node.fake.set_clock(-jump);
        node.exit("web", 1);
        sleep(SETTLE).await;
        assert_eq!(node.fake.count(Verb::Start), 5, "{jump:?}: at once");
    }
}

#[tokio::test(start_paused = true)]
async fn a_deadline_comes_when_the_pod_has_run_for_that_long() {
    for jump in JUMPS {
        let mut node = Node::new();
        let mut pod = pod("a", POLICY, &[], &["web"]);
        pod.spec.active_deadline = Some(Duration::from_secs(60));
        node.run_pod(&pod).await;
        node.fake.set_clock(jump);
        node.pods.notify(&uid("a"));
        sleep(Duration::from_secs(30)).await;
        assert_eq!(node.see().status.phase, PodPhase::Running, "{jump:?}");
        // Also for an agent that starts then.
        node.restart_agent().await;
        sleep(Duration::from_secs(29)).await;
        assert_eq!(node.see().status.phase, PodPhase::Running, "{jump:?}");
        sleep(Duration::from_secs(2)).await;
        assert_eq!(node.see().status.reason.as_deref(), Some("DeadlineExceeded"), "{jump:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_grace_period_is_given_in_full_and_no_longer() {
    for jump in JUMPS {
        let node = Node::new();
        node.run(POLICY, &[], &["web"]).await;
        node.fake.with(|state| state.obey = None);
        let began = Instant::now();
        node.pods.terminate(&uid("a"), Some(Duration::from_secs(30)));
        sleep(SETTLE).await;
        node.fake.set_clock(jump);
        node.pods.notify(&uid("a"));
        sleep(Duration::from_secs(29)).await;
        assert_eq!(node.see().phase, WorkerPhase::Terminating, "{jump:?}");
        node.gone(Duration::from_secs(5)).await;
        assert!(began.elapsed() < Duration::from_secs(32), "{jump:?}");
    }
}
