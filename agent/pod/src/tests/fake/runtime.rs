//! The container runtime, which ends whoever creates what must not be.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use coracle_model::{
    Container, ContainerEdits, ContainerId, Pod, PodUid, RestartAction, RestartPolicy, Signal,
};
use tokio::time::{Instant, sleep_until};

use super::super::values::image;
use super::{Fake, Verb, end};
use crate::ports::*;

impl Runtime for Fake {
    async fn ensure_sandbox(&self, pod: &Arc<Pod>) -> Result<(), Failure> {
        self.call(Verb::Sandbox, &pod.uid).await?;
        self.with(|state| {
            state.check_alive(&pod.uid, Verb::Sandbox);
            let others = state.pods.iter().any(|(uid, host)| {
                *uid != pod.uid && host.pod.as_ref().is_some_and(|other| other.key == pod.key)
            });
            state.check(!others, || format!("two pods of the key {}", pod.key));
            let host = state.host(&pod.uid);
            host.pod = Some(Arc::clone(pod));
            host.logs = true;
            if host.observed.sandbox != SandboxState::Ready {
                host.observed.sandbox = SandboxState::Ready;
                host.observed.sandbox_attempt = host.sandboxes;
                host.sandboxes += 1;
                let live = host.observed.containers.iter().any(ObservedContainer::is_live);
                state.check(!live, || "a new sandbox beside live containers of the old".to_owned());
            }
            Ok(())
        })
    }

    async fn create_container(
        &self,
        pod: &Arc<Pod>,
        container: &Container,
        attempt: u32,
        _: &ImageRef,
        edits: ContainerEdits,
    ) -> Result<ContainerId, Failure> {
        self.call(Verb::Create, format!("{} {attempt}", container.name)).await?;
        let created_at = self.now();
        self.with(|state| {
            state.check_alive(&pod.uid, Verb::Create);
            if state.host(&pod.uid).observed.sandbox != SandboxState::Ready {
                return Err(Failure::new("CreateContainerError", "the sandbox is gone"));
            }
            state.check_edits(pod, container, &edits);
            state.counter = state.counter.wrapping_add(1);
            let id = ContainerId::from_bytes([state.counter; 32]);
            state.names.insert(id, container.name.to_string());
            let recorded = |record: &crate::PodRecord| record.pod.container(&container.name).is_some();
            let on_record = state.records.get(&pod.uid).is_some_and(recorded);
            let round = state.records.get(&pod.uid).map(|record| record.round.clone()).unwrap_or_default();
            let host = state.host(&pod.uid);
            host.pod = Some(Arc::clone(pod));
            let sandbox = host.observed.sandbox_attempt;
            let name = container.name.as_str();
            let same: Vec<_> = host.observed.containers.iter().filter(|one| one.name == name).collect();
            let counts = |one: &str, attempt| round.get(one).is_none_or(|first| attempt >= *first);
            let done = |init: &Container| {
                let is_it = |one: &&ObservedContainer| {
                    init.name == *one.name
                        && one.sandbox_attempt == Some(sandbox)
                        && counts(&one.name, one.attempt)
                };
                let mut runs = host.observed.containers.iter().filter(is_it);
                match init.restart_policy {
                    Some(RestartPolicy::Always) => host.begun.iter().any(|(one, of, attempt)| {
                        init.name == **one && *of == sandbox && counts(one, *attempt)
                    }),
                    _ => runs.any(ObservedContainer::succeeded),
                }
            };
            let is_ephemeral =
                pod.spec.ephemeral_containers.iter().any(|one| one.container.name == container.name);
            let before = pod.spec.init_containers.iter().take_while(|init| init.name != container.name);
            let before: Vec<_> = before.filter(|_| !is_ephemeral).collect();
            // Who has all restarted is left behind on record, or the next agent would do it again.
            let asks_again = |one: &&ObservedContainer| {
                let spec = pod.container(&one.name).filter(|_| one.attempt < attempt || one.name != name);
                let rules = spec.map(|spec| spec.restart_rules.as_slice()).unwrap_or_default();
                let ObservedState::Exited { exit_code, .. } = one.state else { return false };
                rules
                    .iter()
                    .any(|rule| rule.action == RestartAction::RestartAllContainers && rule.matches(exit_code))
                    && counts(&one.name, one.attempt)
            };
            let asked = host.observed.containers.iter().any(|one| asks_again(&one));
            let checks = [
                (host.volumes, "without volumes"),
                (host.images.contains(name), "without its image"),
                (!same.iter().any(|one| one.is_live()), "beside a live one"),
                (same.iter().all(|one| one.attempt < attempt), "with an attempt that was"),
                // What was forgotten is known by what was seen of it only, which is on record a while after.
                (follows(host.attempts.get(name), attempt, host.forgotten), "with an attempt out of turn"),
                (before.into_iter().all(done), "before its init containers"),
                (on_record, "while it was not on record"),
                (!is_ephemeral || attempt == 0, "again"),
                (!asked, "while a restart of all is not on record"),
            ];
            host.attempts.insert(name.to_owned(), attempt);
            host.observed.containers.push(ObservedContainer {
                id,
                name: name.to_owned(),
                attempt,
                sandbox_attempt: Some(sandbox),
                image_id: image().shown,
                volume_images: BTreeMap::new(),
                created_at,
                stop_signal: Some(Signal::TERM),
                state: ObservedState::Created,
            });
            for (holds, what) in checks {
                state.check(holds, || format!("{name} {attempt} was created {what}"));
            }
            Ok(id)
        })
    }

    async fn start_container(&self, pod: &PodUid, container: ContainerId) -> Result<(), Failure> {
        let result = self.call(Verb::Start, container).await;
        let now = self.now();
        self.with(|state| {
            state.check_alive(pod, Verb::Start);
            let host = state.host(pod);
            let Some(one) = host.observed.containers.iter_mut().find(|one| one.id == container) else {
                return Err(Failure::new("StartError", "there is no such container"));
            };
            match (&one.state, &result) {
                (ObservedState::Created, Ok(())) => one.state = ObservedState::Running { started_at: now },
                (ObservedState::Created, Err(_)) => {
                    end(one, 128, now);
                    if let ObservedState::Exited { reason, message, .. } = &mut one.state {
                        *reason = "StartError".to_owned();
                        *message = Some("exec: no such file".to_owned());
                    }
                }
                _ => {}
            }
            state.begin(pod, container);
            result
        })
    }

    async fn stop_container(
        &self,
        pod: &PodUid,
        container: ContainerId,
        grace: Duration,
    ) -> Result<(), Failure> {
        self.call(Verb::Stop, container).await?;
        let kill_at = Instant::now() + grace;
        let obeyed_at = self.with(|state| {
            state.check_turn(pod, container, grace);
            let signalled = *state.signalled.entry(container).or_insert(Instant::now());
            state.obey.map(|obey| signalled + obey)
        });
        let obeyed_at = obeyed_at.filter(|at| *at < kill_at && !grace.is_zero());
        sleep_until(obeyed_at.unwrap_or(kill_at)).await;
        let now = self.now();
        self.with(|state| {
            let code = if obeyed_at.is_some() { state.exit_code } else { 137 };
            let mut all = state.host(pod).observed.containers.iter_mut();
            if let Some(one) = all.find(|one| one.id == container && one.is_live()) {
                end(one, code, now);
            }
        });
        Ok(())
    }

    async fn remove_container(&self, pod: &PodUid, container: ContainerId) -> Result<(), Failure> {
        self.call(Verb::Remove, container).await?;
        self.with(|state| {
            let containers = &mut state.host(pod).observed.containers;
            let live = containers.iter().any(|one| one.id == container && one.is_live());
            containers.retain(|one| one.id != container);
            state.check(!live, || "a live container was removed".to_owned());
        });
        Ok(())
    }

    async fn remove_sandbox(&self, pod: &PodUid) -> Result<(), Failure> {
        self.call(Verb::RemoveSandbox, pod).await?;
        self.with(|state| {
            let host = state.host(pod);
            host.forgotten = true;
            let observed = std::mem::take(&mut host.observed);
            let live = observed.containers.iter().any(ObservedContainer::is_live);
            state.check(!live, || format!("{pod} was removed while it ran"));
        });
        Ok(())
    }

    fn observe(&self, pod: &PodUid) -> Observed {
        self.with(|state| state.pods.get(pod).map(|host| host.observed.clone()).unwrap_or_default())
    }
}

/// Whether an attempt may follow the last.
fn follows(last: Option<&u32>, attempt: u32, forgotten: bool) -> bool {
    let next = last.map_or(0, |last| last + 1);
    if forgotten { attempt <= next } else { attempt == next }
}
