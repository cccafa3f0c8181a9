//! Keeping a pod to the limits of its volumes that the kernel does not keep: they are measured now and then,
//! as the kubelet does it, and the pod that exceeds one is evicted.

use std::time::Duration;

use coracle_model::{EmptyDirMedium, EventType, Pod, VolumeSource};
use tokio::time::Instant;

use super::Worker;
use crate::action::{Action, Step};
use crate::age::Moment;
use crate::board::WorkerPhase;
use crate::plan::Timer;
use crate::ports::{Observed, Ports};
use crate::record::Verdict;

/// The kubelet measures as often.
const INTERVAL: Duration = Duration::from_secs(10);

/// The kubelet's `immediateEvictionGracePeriodSeconds`.
const GRACE: Duration = Duration::from_secs(1);

/// Measuring walks the volume. It may take no more than this part of the time, however large a volume is.
const REST: u32 = 20;

/// When a pod's volumes are measured.
#[derive(Debug)]
pub(super) struct Measuring {
    next: Instant,
    began: Instant,
}

impl<P: Ports> Worker<P> {
    /// The measurement that is due, while something runs that could write.
    pub(super) fn measure(&self, observed: &Observed, moment: Moment, timer: &mut Timer) -> Option<Action> {
        let measuring = self.measuring.as_ref()?;
        let writes = observed.containers.iter().any(|container| container.is_live());
        if !writes || self.acting.contains(Step::MeasureVolumes) {
            return None;
        }
        let left = measuring.next.saturating_duration_since(moment.instant);
        if left.is_zero() {
            return Some(Action::MeasureVolumes);
        }
        timer.wake_in(left);
        None
    }

    /// The pod's volumes were measured, and what exceeds its limit, in words.
    pub(super) fn measured(&mut self, over_limit: Option<String>) {
        let moment = self.moment();
        if let Some(measuring) = &mut self.measuring {
            measuring.ended(moment.instant);
        }
        let Some(message) = over_limit.filter(|_| self.phase == WorkerPhase::Syncing) else { return };
        self.event(EventType::Warning, "Evicted", None, message.clone());
        // It is not for the node's sake: no disruption.
        let verdict = Verdict { reason: "Evicted".to_owned(), message, disruption: false, refused: false };
        self.end(Some(verdict), Some(GRACE), moment);
    }
}

// === impl Measuring ===

impl Measuring {
    /// For a pod that has such a limit.
    pub(super) fn of(pod: &Pod) -> Option<Self> {
        let limited = pod.spec.volumes.iter().any(|volume| {
            let on_disk = EmptyDirMedium::Default;
            matches!(&volume.source, VolumeSource::EmptyDir { medium, size_limit: Some(_) } if *medium == on_disk)
        });
        let now = Instant::now();
        limited.then_some(Self { next: now, began: now })
    }

    /// A measurement begins.
    pub(super) fn begins(&mut self, now: Instant) {
        self.began = now;
    }

    fn ended(&mut self, now: Instant) {
        self.next = now + INTERVAL.max(REST * now.saturating_duration_since(self.began));
    }
}
