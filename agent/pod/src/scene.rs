//! A pod and what is known of its containers: what plan and status rest on.

use std::collections::BTreeMap;

use coracle_model::{Container, ContainerId, Name, Pod, RestartAction, RestartPolicy, RestartRule};

use crate::action::Index;
use crate::ports::{Observed, ObservedContainer, ObservedState, SandboxState};
use crate::record::{Progress, StopCause};
use crate::view::View;

/// A pod and what is known of its containers.
#[derive(Clone, Copy)]
pub(crate) struct Scene<'a> {
    pub(crate) pod: &'a Pod,
    pub(crate) observed: &'a Observed,
    pub(crate) progress: &'a BTreeMap<ContainerId, Progress>,
    /// Per container, the first run that counts, if not the first of all.
    pub(crate) round: &'a BTreeMap<String, u32>,
    /// All containers are being ended, to be started again.
    pub(crate) restarting: bool,
}

/// What part a container has in its pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Runs to completion before those after it.
    Init,
    /// An init container with `restartPolicy: Always`: runs beside those after it.
    Sidecar,
    /// The pod runs for as long as one of them does.
    App,
    /// Added to the pod while it is there: runs once, and counts for nothing.
    Ephemeral,
}

/// A container of the specification.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part<'a> {
    pub(crate) index: Index,
    pub(crate) role: Role,
    pub(crate) spec: &'a Container,
}

impl<'a> Scene<'a> {
    /// Every container of the pod: init containers first, ephemeral ones last, each list in its order.
    pub(crate) fn parts(&self) -> impl DoubleEndedIterator<Item = Part<'a>> + use<'a> {
        let spec = &self.pod.spec;
        let inits = spec.init_containers.iter().map(|spec| match spec.restart_policy {
            Some(RestartPolicy::Always) => (Role::Sidecar, spec),
            _ => (Role::Init, spec),
        });
        let apps = spec.containers.iter().map(|spec| (Role::App, spec));
        let ephemeral = spec.ephemeral_containers.iter().map(|one| (Role::Ephemeral, &one.container));
        let all: Vec<_> = inits.chain(apps).chain(ephemeral).collect();
        let part = |(index, (role, spec))| Part { index, role, spec };
        all.into_iter().enumerate().map(part)
    }

    /// What is observed of every container of the pod, in the same order.
    pub(crate) fn views(&self) -> Vec<View<'a>> {
        self.pod.all_containers().map(|container| View::of(self.observed, &container.name)).collect()
    }

    /// Whether a container belongs to the sandbox the pod has now, and was not left behind in it.
    pub(crate) fn is_current(&self, container: &ObservedContainer) -> bool {
        self.observed.sandbox == SandboxState::Ready
            && container.sandbox_attempt == Some(self.observed.sandbox_attempt)
            && !self.is_left_behind(container)
    }

    /// Whether a container ended before, or when, all containers were restarted.
    pub(crate) fn is_left_behind(&self, container: &ObservedContainer) -> bool {
        self.round.get(&container.name).is_some_and(|first| container.attempt < *first)
    }

    /// Whether it is the end of this container that has all containers of the pod started again.
    pub(crate) fn restarts_all(&self, part: Part<'_>, ended: &ObservedContainer) -> bool {
        let rule = exit_code(ended).and_then(|code| matching_rule(part.spec, code));
        rule.is_some_and(|rule| rule.action == RestartAction::RestartAllContainers)
    }

    /// Whether the containers of the sandbox the pod has now were initialized: once an app container was
    /// created its init containers had completed, whatever became of their records.
    pub(crate) fn has_initialized(&self) -> bool {
        let is_app =
            |one: &&ObservedContainer| self.pod.spec.containers.iter().any(|app| app.name == *one.name);
        self.observed.containers.iter().filter(is_app).any(|app| self.is_current(app))
    }

    /// The target an ephemeral container has to wait for: it runs only where that one does.
    pub(crate) fn awaited_target(&self, part: Part<'a>) -> Option<&'a Name> {
        let target = self.pod.target_of(&part.spec.name)?;
        let runs = |one: &ObservedContainer| {
            one.name == **target && self.is_current(one) && matches!(one.state, ObservedState::Running { .. })
        };
        (!self.observed.containers.iter().any(runs)).then_some(target)
    }

    /// Why the container is, or was, ended while the pod goes on.
    pub(crate) fn stop_cause(&self, id: ContainerId) -> Option<&'a StopCause> {
        Some(&self.progress.get(&id)?.stop.as_ref()?.cause)
    }

    /// Whether its postStart hook is still to be carried out, or under way.
    pub(crate) fn awaits_post_start(&self, spec: &Container, container: &ObservedContainer) -> bool {
        spec.lifecycle.post_start.is_some()
            && !self.progress.get(&container.id).is_some_and(|progress| progress.post_started)
    }

    /// `started`: it runs, its postStart hook has been carried out and its startup probe has succeeded.
    pub(crate) fn has_started(&self, spec: &Container, container: &ObservedContainer) -> bool {
        let findings = self.progress.get(&container.id).and_then(|progress| progress.findings.as_ref());
        matches!(container.state, ObservedState::Running { .. })
            && !self.awaits_post_start(spec, container)
            && (spec.probes.startup.is_none() || findings.is_some_and(|findings| findings.started))
    }

    /// `ready`: it has started and its readiness probe says yes.
    pub(crate) fn is_ready(&self, spec: &Container, container: &ObservedContainer) -> bool {
        let findings = self.progress.get(&container.id).and_then(|progress| progress.findings.as_ref());
        self.has_started(spec, container)
            && (spec.probes.readiness.is_none() || findings.is_some_and(|findings| findings.ready))
    }

    /// Whether a container that ended is started again.
    pub(crate) fn restarts(&self, part: Part<'_>, ended: &ObservedContainer) -> bool {
        let code = exit_code(ended);
        code.is_some_and(|code| self.is_left_behind(ended) || self.restarts_after(part, ended.id, code))
    }

    /// Whether a container that ended with this code is started again: by the first of its rules that matches,
    /// else by its own policy, else by the pod's. As in the kubelet: one whose probe has failed is started
    /// again whatever its code, unless its policy is Never.
    pub(crate) fn restarts_after(&self, part: Part<'_>, id: ContainerId, exit_code: i32) -> bool {
        let policy = part.spec.restart_policy.unwrap_or(self.pod.spec.restart_policy);
        let rule = matching_rule(part.spec, exit_code);
        let probe_failed = matches!(self.stop_cause(id), Some(StopCause::Probe(_)));
        match part.role {
            Role::Sidecar => true,
            Role::Ephemeral => false,
            Role::Init if exit_code == 0 => false,
            Role::Init | Role::App => {
                rule.is_some_and(|rule| rule.action == RestartAction::Restart)
                    || policy.restarts(exit_code)
                    || probe_failed && policy != RestartPolicy::Never
            }
        }
    }
}

// === impl Role ===

impl Role {
    /// Whether it stands among the init containers.
    pub(crate) fn is_init(self) -> bool {
        matches!(self, Self::Init | Self::Sidecar)
    }
}

/// The first rule that is about this exit. Rules count only beside a policy of the container's own.
fn matching_rule(spec: &Container, exit_code: i32) -> Option<&RestartRule> {
    spec.restart_policy?;
    spec.restart_rules.iter().find(|rule| rule.matches(exit_code))
}

/// The exit code of a container that ended.
fn exit_code(container: &ObservedContainer) -> Option<i32> {
    match container.state {
        ObservedState::Exited { exit_code, .. } => Some(exit_code),
        _ => None,
    }
}
