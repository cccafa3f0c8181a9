//! Why the agent is stopped, and what becomes of its pods then.

use std::time::Duration;

use coracle_pod::Pods;
use coracle_shutdown::GracePeriods;
use coracle_systemd::{Active, Error, JobType, Systemd, UnitName, UnitState};
use tokio::time::timeout;

use super::Notifier;
use crate::agent::ports::NodePorts;
use crate::agent::shutdown::end_by_priority;

/// What systemd may take to say why; then the pods are left.
const PATIENCE: Duration = Duration::from_secs(10);
/// For how long the service manager is asked at a time.
const STEP: Duration = Duration::from_secs(30);
/// What a pod's end may take beside its grace period.
const BESIDE: Duration = Duration::from_secs(30);
/// What a machine that shuts down reaches first.
const SHUTDOWN: &str = "shutdown.target";

/// Whether the agent is stopped, and not restarted: by systemd's word where it was started by it. The machine's shutdown
/// is no stop in this sense: what it means for pods logind says. Where nobody can tell, it is none.
pub(crate) async fn is_for_good(started_by_systemd: bool) -> bool {
    if !started_by_systemd {
        return true;
    }
    match timeout(PATIENCE, ask(&Systemd::new())).await {
        Ok(Ok(for_good)) => for_good,
        Ok(Err(error)) => {
            tracing::error!(%error, "systemd does not say why the agent is stopped; the pods are left");
            false
        }
        Err(_) => {
            tracing::error!("systemd does not say why the agent is stopped; the pods are left");
            false
        }
    }
}

async fn ask(systemd: &Systemd) -> Result<bool, Error> {
    let Some(unit) = systemd.own_unit().await? else { return Ok(true) };
    let own = systemd.state(&unit).await?;
    let shutdown = match SHUTDOWN.parse::<UnitName>() {
        Ok(name) => systemd.state(&name).await?,
        Err(_) => None,
    };
    Ok(decide(own.as_ref(), shutdown.as_ref()))
}

/// By the job that systemd has for the agent's unit: a restart is one job, and a signal that somebody else has sent none.
fn decide(own: Option<&UnitState>, shutdown: Option<&UnitState>) -> bool {
    let goes_down =
        shutdown.is_some_and(|unit| unit.active == Active::Active || unit.job == Some(JobType::Start));
    !goes_down && own.is_some_and(|unit| unit.job == Some(JobType::Stop))
}

/// Ends the pods, as a shutdown of the machine would, and asks the service manager for the time it takes. Where no
/// periods are configured for that, critical pods come after all others, and every pod has its own grace period.
pub(crate) async fn end_pods(pods: &Pods<NodePorts>, periods: &GracePeriods, notifier: &Notifier) {
    pods.set_shutting_down(true);
    let periods = if periods.is_empty() { own_periods(pods) } else { periods.clone() };
    let longer = async {
        loop {
            notifier.needs_longer(STEP);
            tokio::time::sleep(STEP / 3).await;
        }
    };
    tokio::select! {
        () = end_by_priority(pods, &periods) => {}
        () = longer => {}
    }
}

/// As long as the longest grace period, for those of default and of critical priority.
fn own_periods(pods: &Pods<NodePorts>) -> GracePeriods {
    let graces = pods.snapshot().into_iter().map(|pod| pod.pod.spec.termination_grace_period);
    let longest = graces.max().unwrap_or_default() + BESIDE;
    // Critical pods' time comes on top of the others'.
    GracePeriods::of(longest * 2, longest).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_stop_of_the_unit_is_for_good() {
        let own = |job| UnitState { active: Active::Other("deactivating".to_owned()), job };
        let up = UnitState { active: Active::Inactive, job: None };
        let down = UnitState { active: Active::Inactive, job: Some(JobType::Start) };
        assert!(decide(Some(&own(Some(JobType::Stop))), Some(&up)));
        assert!(decide(Some(&own(Some(JobType::Stop))), None));
        assert!(!decide(Some(&own(Some(JobType::Restart))), Some(&up)), "a restart");
        assert!(!decide(Some(&own(None)), Some(&up)), "a signal of somebody else's");
        assert!(!decide(Some(&own(Some(JobType::Stop))), Some(&down)), "the machine shuts down");
        assert!(!decide(None, None));
    }

    #[tokio::test]
    async fn without_a_service_manager_a_stop_is_for_good() {
        assert!(is_for_good(false).await);
    }
}
