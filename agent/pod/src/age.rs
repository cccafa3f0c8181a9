//! How long containers have run, and how long ago they ended, whatever the wall clock is set to meanwhile.
//!
//! What is seen of containers has times of the wall clock, as their status has. What the worker saw happen it measures
//! from then on by the clock that nobody sets; what happened before, under another agent, is as old as the wall clock had
//! it when it was seen first.

use std::collections::BTreeMap;
use std::time::Duration;

use coracle_model::ContainerId;
use jiff::Timestamp;
use tokio::time::Instant;

use crate::ports::{Observed, ObservedContainer, ObservedState};

/// The time, on the wall clock and on the one that is never set.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    pub(crate) now: Timestamp,
    pub(crate) instant: Instant,
}

/// Something that has happened.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Since {
    seen: Instant,
    /// How old it was by then; longer than anything where the wall clock had it in the future.
    before: Duration,
}

/// How old a container's last run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Age {
    /// How long it ran; nothing where that cannot be told.
    pub(crate) run: Duration,
    /// How long ago it ended.
    pub(crate) ended: Duration,
}

/// The ages of a pod's containers.
#[derive(Debug, Default)]
pub(crate) struct Ages {
    running: BTreeMap<ContainerId, Since>,
    ended: BTreeMap<ContainerId, (Duration, Since)>,
}

// === impl Moment ===

impl Moment {
    /// When a grace period ends that began then. The clock may have been set meanwhile: never later than if
    /// it began now.
    pub(crate) fn deadline(&self, began: Timestamp, grace: Duration) -> Instant {
        let passed = Duration::try_from(self.now.duration_since(began)).unwrap_or_default();
        self.instant + grace.saturating_sub(passed)
    }
}

// === impl Since ===

impl Since {
    /// What the wall clock says happened then, and is seen now.
    pub(crate) fn new(then: Timestamp, moment: Moment) -> Self {
        // A time in the future means that the clock was set back; waiting for it could take for ever.
        let before = Duration::try_from(moment.now.duration_since(then)).unwrap_or(Duration::MAX);
        Self { seen: moment.instant, before }
    }

    /// What is seen now, and is so old.
    pub(crate) fn by_then(before: Duration, moment: Moment) -> Self {
        Self { seen: moment.instant, before }
    }

    pub(crate) fn passed(&self, moment: Moment) -> Duration {
        self.before.saturating_add(moment.instant.saturating_duration_since(self.seen))
    }
}

// === impl Age ===

impl Age {
    /// By the wall clock alone.
    pub(crate) fn of(container: &ObservedContainer, now: Timestamp) -> Self {
        let ObservedState::Exited { started_at, finished_at, .. } = container.state else {
            return Self { run: Duration::ZERO, ended: Duration::ZERO };
        };
        let run = started_at.map(|started_at| finished_at.duration_since(started_at));
        Self {
            run: run.and_then(|run| Duration::try_from(run).ok()).unwrap_or_default(),
            ended: Duration::try_from(now.duration_since(finished_at)).unwrap_or(Duration::MAX),
        }
    }
}

// === impl Ages ===

impl Ages {
    /// Takes note of what began and what ended.
    pub(crate) fn see(&mut self, observed: &Observed, moment: Moment) {
        let find = |id: &ContainerId| observed.containers.iter().any(|container| container.id == *id);
        self.running.retain(|id, _| find(id));
        self.ended.retain(|id, _| find(id));
        for container in &observed.containers {
            match container.state {
                ObservedState::Created => {}
                ObservedState::Running { started_at } => {
                    // An adopted one whose clock was set back has run for no time that is known.
                    let started_at = started_at.min(moment.now);
                    self.running.entry(container.id).or_insert_with(|| Since::new(started_at, moment));
                }
                ObservedState::Exited { finished_at, .. } => {
                    self.ended.entry(container.id).or_insert_with(|| {
                        let began = self.running.remove(&container.id);
                        let run = began
                            .map_or_else(|| Age::of(container, moment.now).run, |began| began.passed(moment));
                        (run, Since::new(finished_at, moment))
                    });
                }
            }
        }
    }

    /// How old the last run of a container is that was seen to have ended.
    pub(crate) fn of(&self, container: &ObservedContainer, moment: Moment) -> Age {
        match self.ended.get(&container.id) {
            Some((run, since)) => Age { run: *run, ended: since.passed(moment) },
            None => Age::of(container, moment.now),
        }
    }
}
