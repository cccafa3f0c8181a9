//! `status.phase`, by the kubelet's rules.

use coracle_model::{ContainerState, ContainerStatus, PodPhase};

use super::Course;
use super::container::RESTARTING_ALL;
use crate::scene::{Role, Scene};

/// The phase, as the states of the containers make it.
pub(super) fn phase(
    scene: &Scene<'_>,
    inits: &[ContainerStatus],
    apps: &[ContainerStatus],
    course: Course,
) -> PodPhase {
    // What the counting says of one that runs, of one that is yet to be, and of how one ended.
    let (mut running, mut waiting, mut initializing) = (0, 0, 0);
    let (mut stopped, mut restarted, mut succeeded) = (0, 0, 0);
    for (part, status) in scene.parts().zip(inits.iter().chain(apps)) {
        let ended = match (&status.state, &status.last_state) {
            (ContainerState::Running(_), _) => None,
            (ContainerState::Terminated(ended), _) => Some(ended),
            (ContainerState::Waiting(_), last) => last.as_ref(),
        };
        let runs = matches!(status.state, ContainerState::Running(_));
        let restarts = ended.is_some_and(|ended| {
            ended.reason == RESTARTING_ALL
                || ended.container_id.is_some_and(|id| scene.restarts_after(part, id, ended.exit_code))
        });
        match (part.role, ended) {
            (Role::Init, Some(ended)) if ended.exit_code != 0 && !restarts => return PodPhase::Failed,
            (Role::Init, Some(_)) => {}
            (Role::Init, None) => initializing += 1,
            (Role::Sidecar, None) => {
                running += usize::from(runs);
                waiting += usize::from(!runs);
                // Once app containers were there, a sidecar on its way makes the pod no less running.
                initializing += usize::from(!status.started && !scene.has_initialized());
            }
            (Role::Sidecar | Role::Ephemeral, Some(_)) | (Role::Ephemeral, None) => {}
            (Role::App, None) => {
                running += usize::from(runs);
                waiting += usize::from(!runs);
            }
            (Role::App, Some(ended)) => {
                stopped += 1;
                restarted += usize::from(restarts);
                succeeded += usize::from(ended.exit_code == 0);
            }
        }
    }
    if initializing > 0 || waiting > 0 {
        return PodPhase::Pending;
    }
    if running > 0 {
        return PodPhase::Running;
    }
    match (stopped, course) {
        (0, _) => PodPhase::Pending,
        // They are started again, unless the pod has come to its end.
        (_, Course::Running | Course::Stopping) if restarted > 0 => PodPhase::Running,
        _ if stopped == succeeded => PodPhase::Succeeded,
        _ => PodPhase::Failed,
    }
}
