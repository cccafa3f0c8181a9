//! What a series of results means for a container.

use std::time::Duration;

use coracle_model::{ProbeKind, Probes};

/// What the probes of one container have found so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// The startup probe has succeeded, or there is none.
    pub started: bool,
    /// The readiness probe says yes; without one, the container has started.
    pub ready: bool,
    /// The startup or liveness probe that has failed. Never taken back: the container is to be replaced.
    pub failed: Option<Failed>,
}

/// A startup or liveness probe that has failed as often as its threshold says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failed {
    /// Which.
    pub kind: ProbeKind,
    /// Its `terminationGracePeriodSeconds`, for the container it ends.
    pub termination_grace_period: Option<Duration>,
}

/// The probes of one container and where they stand. A new container has a new one.
///
/// Before anything is known a startup probe has no result, a liveness probe counts as succeeded and a
/// readiness probe as failed. A result counts once it came as often in a row as its threshold says.
#[derive(Clone, Debug)]
pub struct ContainerState {
    startup: Option<Series>,
    liveness: Option<Series>,
    readiness: Option<Series>,
    findings: Findings,
}

/// The results of one probe.
#[derive(Clone, Debug)]
struct Series {
    success_threshold: u32,
    failure_threshold: u32,
    termination_grace_period: Option<Duration>,
    /// The last result.
    last: Option<bool>,
    /// How often in a row it came.
    run: u32,
}

// === impl ContainerState ===

impl ContainerState {
    /// A container of which nothing is known but, where an agent before this one has watched it, what
    /// that one has found.
    pub fn new(probes: &Probes, known: Option<Findings>) -> Self {
        let series = |kind| probes.get(kind).map(Series::new);
        let mut state = Self {
            startup: series(ProbeKind::Startup),
            liveness: series(ProbeKind::Liveness),
            readiness: series(ProbeKind::Readiness),
            findings: known.unwrap_or_default(),
        };
        if state.startup.is_none() {
            state.findings.started = true;
        }
        state.derive_ready();
        state
    }

    /// What was found so far.
    pub fn findings(&self) -> &Findings {
        &self.findings
    }

    /// Whether a probe is to be run now. A startup probe is until it has succeeded, the others from then
    /// on. After a failure that ends the container only its readiness is still asked for.
    pub fn may_run(&self, kind: ProbeKind) -> bool {
        match kind {
            ProbeKind::Startup => {
                self.startup.is_some() && !self.findings.started && self.findings.failed.is_none()
            }
            ProbeKind::Liveness => {
                self.liveness.is_some() && self.findings.started && self.findings.failed.is_none()
            }
            ProbeKind::Readiness => self.readiness.is_some() && self.findings.started,
        }
    }

    /// Notes a result; whether it changed what was found. One of a probe that is not to be run does not
    /// count.
    pub fn record(&mut self, kind: ProbeKind, success: bool) -> bool {
        if !self.may_run(kind) {
            return false;
        }
        let before = self.findings.clone();
        let series = match kind {
            ProbeKind::Startup => &mut self.startup,
            ProbeKind::Liveness => &mut self.liveness,
            ProbeKind::Readiness => &mut self.readiness,
        };
        let Some(series) = series else { return false };
        if !series.counts(success) {
            return false;
        }
        let termination_grace_period = series.termination_grace_period;
        match (kind, success) {
            (ProbeKind::Startup, true) => {
                self.findings.started = true;
                self.derive_ready();
            }
            (ProbeKind::Startup | ProbeKind::Liveness, false) => {
                self.findings.failed = Some(Failed { kind, termination_grace_period });
            }
            (ProbeKind::Liveness, true) => {}
            (ProbeKind::Readiness, ready) => self.findings.ready = ready,
        }
        self.findings != before
    }

    /// Who has no readiness probe is ready once started; who has not started is not ready.
    fn derive_ready(&mut self) {
        if self.readiness.is_none() {
            self.findings.ready = true;
        }
        self.findings.ready &= self.findings.started;
    }
}

// === impl Series ===

impl Series {
    fn new(probe: &coracle_model::Probe) -> Self {
        Self {
            success_threshold: probe.success_threshold,
            failure_threshold: probe.failure_threshold,
            termination_grace_period: probe.termination_grace_period,
            last: None,
            run: 0,
        }
    }

    /// Notes a result; whether it came often enough to count.
    fn counts(&mut self, success: bool) -> bool {
        if self.last == Some(success) {
            self.run = self.run.saturating_add(1);
        } else {
            self.last = Some(success);
            self.run = 1;
        }
        self.run >= if success { self.success_threshold } else { self.failure_threshold }
    }
}

#[cfg(test)]
mod tests;
