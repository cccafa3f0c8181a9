//! Telling of an image that cannot be had: why, and a moment later, as the kubelet does it, that the next attempt has
//! to wait.

use std::time::Duration;

use coracle_model::EventType;

use super::Worker;
use super::results::Failing;
use crate::action::Step;
use crate::age::Moment;
use crate::plan::Timer;
use crate::ports::{Failure, Ports};

/// How long a container is shown with the error itself. The kubelet looks at a pod again about as soon.
const SHOWN: Duration = Duration::from_secs(1);

/// What nothing was pulled for: it is shown as it is, as long as it lasts.
const LOCAL: [&str; 3] = ["ErrImageNeverPull", "InvalidImageName", "ImageInspectError"];

impl<P: Ports> Worker<P> {
    /// Tells of the pulls that have failed a moment ago and are now in back-off.
    pub(super) fn tell_pull_back_off(&mut self, moment: Moment, timer: &mut Timer) {
        let mut told = Vec::new();
        for (step, failing) in &mut self.failing {
            let Step::Image(index) = *step else { continue };
            let waits = failing.not_before > moment.instant && !self.acting.contains(*step);
            if failing.backing_off || !waits || LOCAL.contains(&failing.failure.reason.as_str()) {
                continue;
            }
            let left = (failing.since + SHOWN).saturating_duration_since(moment.instant);
            if left.is_zero() {
                failing.backing_off = true;
                told.push((index, failing.failure.image.clone()));
            } else {
                timer.wake_in(left);
            }
        }
        for (index, other) in told {
            let Some(container) = self.record.pod.all_containers().nth(index) else { continue };
            let name = Some(&container.name);
            self.event(
                EventType::Normal,
                "BackOff",
                name,
                back_off(other.as_ref().unwrap_or(&container.image)),
            );
            self.event(EventType::Warning, "Failed", name, "Error: ImagePullBackOff".to_owned());
        }
    }
}

/// The failure of an image as a status shows it.
pub(super) fn failure(image: &str, failing: &Failing) -> Failure {
    let Failure { reason, message, image: other } = &failing.failure;
    let image = other.as_deref().unwrap_or(image);
    if !failing.backing_off {
        return failing.failure.clone();
    }
    Failure::new("ImagePullBackOff", format!("{}: {reason}: {message}", back_off(image)))
}

fn back_off(image: &str) -> String {
    format!("Back-off pulling image \"{image}\"")
}
