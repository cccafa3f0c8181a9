//! How far the init containers are.

use crate::action::Index;
use crate::ports::ObservedContainer;
use crate::scene::{Part, Role, Scene};
use crate::view::View;

/// How far the init containers are.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Init {
    /// These are seen to: the sidecars that have been started before, and the one whose turn it is.
    Pending(Vec<Index>),
    /// All have completed or started once; the sidecars are kept running.
    Completed(Vec<Index>),
    /// One failed and is not started again.
    Failed,
}

/// How far the init containers are in the sandbox the pod has now.
///
/// As in the kubelet: the last one that was made there shows how far they are. Those before it have completed,
/// or started once; a sidecar among them that ended is started again and holds up nobody.
pub(super) fn pending_init(scene: &Scene<'_>, parts: &[Part<'_>], views: &[View<'_>]) -> Init {
    let inits: Vec<_> = parts.iter().zip(views).filter(|(part, _)| part.role.is_init()).collect();
    let sidecars_before = |index: Index| {
        let before = inits.iter().filter(move |(part, _)| part.role == Role::Sidecar && part.index < index);
        before.map(|(part, _)| part.index)
    };
    if scene.has_initialized() {
        return Init::Completed(sidecars_before(inits.len()).collect());
    }
    let frontier = inits.iter().rev().find_map(|(part, view)| {
        let latest = view.latest().filter(|latest| scene.is_current(latest))?;
        Some((*part, latest))
    });
    let turn = match frontier {
        None => 0,
        Some((part, latest)) if completed(scene, *part, latest) => part.index + 1,
        Some((part, latest)) if failed(scene, *part, latest) => return Init::Failed,
        Some((part, _)) => part.index,
    };
    let mut next: Vec<_> = sidecars_before(turn).collect();
    if turn == inits.len() {
        return Init::Completed(next);
    }
    next.push(turn);
    Init::Pending(next)
}

/// Whether those after it may begin.
fn completed(scene: &Scene<'_>, part: Part<'_>, latest: &ObservedContainer) -> bool {
    match part.role {
        Role::Sidecar => scene.has_started(part.spec, latest),
        Role::Init | Role::App | Role::Ephemeral => latest.succeeded(),
    }
}

/// Whether the pod has failed with it.
fn failed(scene: &Scene<'_>, part: Part<'_>, latest: &ObservedContainer) -> bool {
    part.role == Role::Init && !latest.is_live() && !scene.restarts(part, latest)
}
