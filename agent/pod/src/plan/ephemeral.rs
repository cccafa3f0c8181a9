//! Ephemeral containers: made once, whatever the others do, and in no sandbox again.

use super::{Facts, Plan, advance_live, make};
use crate::scene::{Part, Role};
use crate::view::View;

/// Takes every ephemeral container a step further. As in the kubelet they start beside whatever initializes, and
/// hold up nobody.
pub(super) fn advance_all(facts: &Facts<'_>, parts: &[Part<'_>], views: &[View<'_>], plan: &mut Plan) {
    for (part, view) in parts.iter().zip(views).filter(|(part, _)| part.role == Role::Ephemeral) {
        match view.live {
            Some(live) => drop(advance_live(facts, *part, live, true, plan)),
            None if view.dead.is_some() => {}
            // Its image is fetched meanwhile.
            None if facts.scene.awaited_target(*part).is_some() => plan.starting = true,
            None => drop(make(facts, *part, view, plan)),
        }
    }
}
