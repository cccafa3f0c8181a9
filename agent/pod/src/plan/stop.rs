//! Ending containers: preStop hook, stop signal, SIGKILL, within one grace period.

use std::collections::BTreeMap;
use std::time::Duration;

use coracle_model::ContainerId;

use super::Timer;
use crate::action::Action;
use crate::ports::{ObservedContainer, ObservedState};
use crate::scene::{Part, Role, Scene};

/// What a container has at least between the stop signal and SIGKILL, as in the kubelet.
pub(crate) const MINIMUM_GRACE: Duration = Duration::from_secs(2);

/// The end of a container that is under way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stop {
    /// What is left of its grace period.
    pub(crate) left: Duration,
    /// No preStop hook is to be carried out any more.
    pub(crate) hook_done: bool,
    /// For how long it has had the stop signal.
    pub(crate) signalled: Option<Duration>,
}

/// The ends that are under way.
pub(crate) type Stops = BTreeMap<ContainerId, Stop>;

/// Takes the end of a container a step further. `its_turn`: whatever is to end before it has.
pub(crate) fn stop(
    part: Option<Part<'_>>,
    container: &ObservedContainer,
    stop: &Stop,
    its_turn: bool,
    timer: &mut Timer,
) -> Option<Action> {
    if !matches!(container.state, ObservedState::Running { .. }) {
        // It has no program that could be asked.
        return Some(Action::Stop(container.id, Duration::ZERO));
    }
    if let Some(signalled) = stop.signalled {
        return Some(Action::Stop(container.id, stop.left.max(MINIMUM_GRACE.saturating_sub(signalled))));
    }
    if !stop.left.is_zero() {
        let hook = part.filter(|part| !stop.hook_done && part.spec.lifecycle.pre_stop.is_some());
        if let Some(part) = hook {
            timer.wake_in(stop.left);
            return Some(Action::PreStop(part.index, container.id, stop.left));
        }
        if !its_turn {
            timer.wake_in(stop.left);
            return None;
        }
    }
    Some(Action::Stop(container.id, stop.left.max(MINIMUM_GRACE)))
}

/// Ends every container that is left: the app containers and whatever still initializes side by side, the
/// sidecars one after another in reverse order once no app container runs any more.
pub(crate) fn terminate(scene: &Scene<'_>, stops: &Stops, timer: &mut Timer) -> Vec<Action> {
    let live = || scene.observed.containers.iter().filter(|container| container.is_live());
    let parts: Vec<_> = scene.parts().collect();
    let part =
        |container: &ObservedContainer| parts.iter().copied().find(|part| part.spec.name == *container.name);
    let mut actions = Vec::new();
    for container in live() {
        let own = part(container);
        let blocks = |other: &ObservedContainer| match (own, part(other)) {
            (Some(own), Some(other)) if own.role == Role::Sidecar => {
                other.role == Role::App || other.role == Role::Sidecar && other.index > own.index
            }
            _ => false,
        };
        let its_turn = !live().any(blocks);
        let order = stops.get(&container.id).copied().unwrap_or_default();
        actions.extend(stop(own, container, &order, its_turn, timer));
    }
    actions
}
