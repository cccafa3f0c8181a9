//! The task of one probe.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use coracle_model::{EventType, Probe, ProbeKind, Probes};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::beat::Beat;
use crate::check::{Checker, Outcome, attempt};
use crate::node::{Node, Target, Telling};
use crate::state::{ContainerState, Findings};

/// How often an attempt that could not be made is made again at once, before it is told and given up.
const MOST_ATTEMPTS: usize = 3;

/// What all probes share.
pub(crate) struct Shared<N> {
    pub(crate) node: N,
    pub(crate) checker: Checker,
}

/// A container that is probed.
pub(crate) struct Watched {
    pub(crate) target: Target,
    pub(crate) probes: Probes,
    state: Mutex<ContainerState>,
    /// Whether the startup probe has succeeded: what the other two wait for.
    started: watch::Sender<bool>,
}

// === impl Watched ===

impl Watched {
    pub(crate) fn new(target: Target, probes: Probes, known: Option<Findings>) -> Self {
        let state = ContainerState::new(&probes, known);
        let started = watch::Sender::new(state.findings().started);
        Self { target, probes, state: Mutex::new(state), started }
    }

    pub(crate) fn findings(&self) -> Findings {
        self.state().findings().clone()
    }

    fn state(&self) -> MutexGuard<'_, ContainerState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn may_run(&self, kind: ProbeKind) -> bool {
        self.state().may_run(kind)
    }

    /// Notes a result; whether it changed what was found.
    fn record(&self, kind: ProbeKind, success: bool) -> bool {
        let (changed, started) = {
            let mut state = self.state();
            (state.record(kind, success), state.findings().started)
        };
        if started && !*self.started.borrow() {
            self.started.send_replace(true);
        }
        changed
    }
}

/// Runs a probe from `first` on, for as long as it is to be run.
pub(crate) async fn run<N: Node>(
    shared: Arc<Shared<N>>,
    watched: Arc<Watched>,
    kind: ProbeKind,
    first: Instant,
) {
    let Some(probe) = watched.probes.get(kind) else { return };
    let mut beat = Beat::new(first, probe.period);
    if kind != ProbeKind::Startup && !*watched.started.borrow() {
        // The sender lives in `watched`, so waiting cannot fail.
        let _ = watched.started.subscribe().wait_for(|started| *started).await;
        let now = Instant::now();
        beat.skip_to(now);
        // Readiness is asked for as soon as it is of interest, and then on its beat.
        if kind == ProbeKind::Readiness && first < now && !once(&shared, &watched, kind, probe).await {
            return;
        }
    }
    while watched.may_run(kind) {
        sleep_until(beat.next(Instant::now())).await;
        if !once(&shared, &watched, kind, probe).await {
            return;
        }
    }
}

/// Runs a probe once and notes the result; whether it is to be run again.
async fn once<N: Node>(shared: &Shared<N>, watched: &Watched, kind: ProbeKind, probe: &Probe) -> bool {
    if !watched.may_run(kind) {
        return false;
    }
    let (node, target) = (&shared.node, &watched.target);
    let mut outcome = Outcome::Unknown(String::new());
    for _ in 0..MOST_ATTEMPTS {
        outcome = attempt(&shared.checker, node, target, &probe.handler, probe.timeout).await;
        if !matches!(outcome, Outcome::Unknown(_)) {
            break;
        }
    }
    if !watched.may_run(kind) {
        return false;
    }
    if let Some(telling) = telling(kind, &outcome) {
        node.tell(target, telling);
    }
    let success = match outcome {
        Outcome::Success | Outcome::Warning(_) => true,
        Outcome::Failure(_) => false,
        Outcome::Unknown(_) => return true,
    };
    if watched.record(kind, success) {
        node.changed(&target.pod.uid);
    }
    watched.may_run(kind)
}

/// What people are told of an outcome, in the kubelet's words.
fn telling(kind: ProbeKind, outcome: &Outcome) -> Option<Telling> {
    let kind = kind.as_str();
    let (reason, message) = match outcome {
        Outcome::Success => return None,
        Outcome::Warning(message) => ("ProbeWarning", format!("{kind} probe warning: {message}")),
        Outcome::Failure(message) => ("Unhealthy", format!("{kind} probe failed: {message}")),
        Outcome::Unknown(message) => {
            ("Unhealthy", format!("{kind} probe errored and resulted in unknown state: {message}"))
        }
    };
    Some(Telling { kind: EventType::Warning, reason, message })
}
