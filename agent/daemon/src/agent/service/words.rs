//! What the agent does, in a line, for `systemctl status`.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use coracle_model::PodPhase;
use coracle_pod::Pods;
use coracle_server::Problem;
use tokio::sync::watch;

use super::Notifier;
use crate::agent::ports::NodePorts;

/// How often it is told at most.
const INTERVAL: Duration = Duration::from_secs(1);

/// Tells how many pods there are and how they are, when that changes, for as long as the agent lives.
pub(crate) async fn tell_status(
    notifier: Notifier,
    pods: Pods<NodePorts>,
    mut problems: watch::Receiver<Arc<Vec<Problem>>>,
) {
    if !notifier.is_heard() {
        return pending().await;
    }
    let mut changes = pods.changes();
    let mut told = String::new();
    loop {
        let phases = pods.snapshot().into_iter().map(|pod| pod.status.phase);
        let line = line(phases, problems.borrow_and_update().len());
        if line != told {
            notifier.status(&line);
            told = line;
        }
        let changed = async {
            tokio::select! {
                changed = changes.changed() => changed.is_ok(),
                changed = problems.changed() => changed.is_ok(),
            }
        };
        if !changed.await {
            return pending().await;
        }
        // A thousand pods that start are told of as one.
        tokio::time::sleep(INTERVAL).await;
        changes.mark_unchanged();
    }
}

fn line(phases: impl IntoIterator<Item = PodPhase>, problems: usize) -> String {
    let phases: Vec<PodPhase> = phases.into_iter().collect();
    let running = phases.iter().filter(|phase| **phase == PodPhase::Running).count();
    let mut line = match phases.len() {
        0 => "No pods".to_owned(),
        1 => format!("1 pod, {running} running"),
        all => format!("{all} pods, {running} running"),
    };
    match problems {
        0 => {}
        1 => line.push_str("; 1 manifest cannot be used"),
        more => line.push_str(&format!("; {more} manifests cannot be used")),
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_counts_pods_and_problems() {
        assert_eq!(line([], 0), "No pods");
        assert_eq!(line([PodPhase::Running], 0), "1 pod, 1 running");
        assert_eq!(
            line([PodPhase::Running, PodPhase::Pending, PodPhase::Failed], 1),
            "3 pods, 1 running; 1 manifest cannot be used"
        );
    }
}
