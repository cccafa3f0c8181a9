//! Carrying out an action: the call of the port, and what it says as an event.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use coracle_model::{Container, ContainerEdits, ContainerId, EventType, Handler, Pod};

use crate::action::{Action, Index, Step};
use crate::ports::{Allocation, Devices, Failure, Hooks, ImageRef, Images, Ports, Records, Runtime, Volumes};
use crate::record::PodRecord;

/// What an action brought, beside what is observed anyway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Done,
    Image(ImageRef),
    Devices(Allocation),
    /// A volume exceeds its limit: in words.
    OverLimit(String),
}

/// An action under way. Boxed, so that an idle worker holds no room for the largest of them.
type Call = Pin<Box<dyn Future<Output = (Action, Result<Outcome, Failure>)> + Send>>;

/// The actions under way, at most one of a step. One that is given up is dropped at once.
#[derive(Default)]
pub(crate) struct Acting {
    calls: Vec<(Step, Call)>,
}

// === impl Acting ===

impl Acting {
    /// Begins an action.
    pub(crate) fn begin<P: Ports>(&mut self, ports: &Arc<P>, record: &PodRecord, action: Action) {
        let step = action.step();
        let (ports, pod) = (Arc::clone(ports), Arc::clone(&record.pod));
        let record = matches!(action, Action::SaveRecord | Action::Checkpoint).then(|| record.clone());
        let call: Call = Box::pin(async move {
            let result = match (&action, record) {
                (Action::SaveRecord, Some(record)) => ports.records().save(&record).await,
                (Action::Checkpoint, Some(record)) => ports.records().checkpoint(&record).await,
                _ => {
                    let result = call(&*ports, &pod, &action).await;
                    return (action, result);
                }
            };
            (action, result.map(|()| Outcome::Done))
        });
        self.calls.push((step, call));
    }

    /// Whether an action of this step is under way.
    pub(crate) fn contains(&self, step: Step) -> bool {
        self.calls.iter().any(|(other, _)| *other == step)
    }

    /// The steps of what is under way.
    pub(crate) fn steps(&self) -> impl Iterator<Item = Step> {
        self.calls.iter().map(|(step, _)| *step)
    }

    /// Gives up what is not to go on.
    pub(crate) fn retain(&mut self, goes_on: impl Fn(Step) -> bool) {
        self.calls.retain(|(step, _)| goes_on(*step));
    }

    /// Gives up an action of this step. Whether one was under way.
    pub(crate) fn give_up(&mut self, step: Step) -> bool {
        let before = self.calls.len();
        self.retain(|other| other != step);
        self.calls.len() < before
    }

    /// The next action that ends. While none is under way there is none.
    pub(crate) async fn next(&mut self) -> (Action, Result<Outcome, Failure>) {
        poll_fn(|context| {
            for at in 0..self.calls.len() {
                if let Poll::Ready(ended) = self.calls[at].1.as_mut().poll(context) {
                    drop(self.calls.swap_remove(at));
                    return Poll::Ready(ended);
                }
            }
            Poll::Pending
        })
        .await
    }
}

async fn call<P: Ports>(ports: &P, pod: &Arc<Pod>, action: &Action) -> Result<Outcome, Failure> {
    let (runtime, volumes) = (ports.runtime(), ports.volumes());
    match action {
        // These need the record itself: see `begin`.
        Action::SaveRecord | Action::Checkpoint => Ok(()),
        Action::AllocateDevices => return ports.devices().allocate(pod).await.map(Outcome::Devices),
        Action::EnsureSandbox => runtime.ensure_sandbox(pod).await,
        Action::EnsureVolumes => volumes.ensure_volumes(pod).await,
        Action::EnsureImage(index, _) => {
            let container = container(pod, *index)?;
            return ports.images().ensure_image(pod, container).await.map(Outcome::Image);
        }
        Action::Create(index, attempt, image) => {
            let container = container(pod, *index)?;
            let edits = match container.resources.extended.is_empty() {
                true => ContainerEdits::default(),
                false => ports.devices().prepare(pod, container).await?,
            };
            runtime.create_container(pod, container, *attempt, image, edits).await.map(|_| ())
        }
        Action::Start(_, id) => runtime.start_container(&pod.uid, *id).await,
        Action::PostStart(index, id) => {
            let container = container(pod, *index)?;
            let handler = container.lifecycle.post_start.as_ref();
            run_hook(ports, pod, container, *id, handler, None).await
        }
        Action::PreStop(index, id, limit) => {
            let container = container(pod, *index)?;
            let handler = container.lifecycle.pre_stop.as_ref();
            run_hook(ports, pod, container, *id, handler, Some(*limit)).await
        }
        Action::Stop(id, grace) => runtime.stop_container(&pod.uid, *id, *grace).await,
        Action::Remove(id) => runtime.remove_container(&pod.uid, *id).await,
        Action::RemoveSandbox => runtime.remove_sandbox(&pod.uid).await,
        Action::RefreshVolumes => volumes.refresh_volumes(pod).await,
        Action::MeasureVolumes => {
            let over_limit = volumes.over_limit(pod).await?;
            return Ok(over_limit.map_or(Outcome::Done, Outcome::OverLimit));
        }
        Action::ReleaseDevices => ports.devices().release_devices(&pod.uid).await,
        Action::ReleaseVolumes => volumes.release_volumes(&pod.uid).await,
        Action::ReleaseLogs => volumes.release_logs(pod).await,
        Action::ForgetRecord => ports.records().forget(&pod.uid).await,
    }
    .map(|()| Outcome::Done)
}

async fn run_hook<P: Ports>(
    ports: &P,
    pod: &Arc<Pod>,
    container: &Container,
    id: ContainerId,
    handler: Option<&Handler>,
    timeout: Option<std::time::Duration>,
) -> Result<(), Failure> {
    match handler {
        Some(handler) => ports.hooks().run_hook(pod, container, id, handler, timeout).await,
        None => Ok(()),
    }
}

/// The container at a place of the plan.
fn container(pod: &Pod, index: Index) -> Result<&Container, Failure> {
    pod.all_containers().nth(index).ok_or_else(|| {
        Failure::new("CreateContainerConfigError", format!("the pod has no container number {index}"))
    })
}

/// The event of an action that succeeded: reason and message, in the kubelet's words.
pub(crate) fn success_event(action: &Action) -> Option<(&'static str, String)> {
    Some(match action {
        Action::Create(..) => ("Created", "Container created".to_owned()),
        Action::Start(..) => ("Started", "Container started".to_owned()),
        _ => return None,
    })
}

/// The event of a step that failed.
pub(crate) fn failure_event(step: Step, failure: &Failure) -> (EventType, &'static str, String) {
    let Failure { reason, message, .. } = failure;
    let (event, message) = match step {
        // Whoever pulls has told why.
        Step::Image(_) => ("Failed", format!("Error: {reason}")),
        Step::Create(_) | Step::Start(_) => ("Failed", format!("Error: {message}")),
        // What a hook said may be a secret: as in the kubelet it is in no event.
        Step::PostStart(_) => ("FailedPostStartHook", "PostStartHook failed".to_owned()),
        Step::PreStop(_) => ("FailedPreStopHook", "PreStopHook failed".to_owned()),
        Step::Sandbox => ("FailedCreatePodSandBox", format!("Failed to create pod sandbox: {message}")),
        Step::AllocateDevices => ("FailedSync", format!("error allocating devices: {message}")),
        Step::Volumes | Step::RefreshVolumes => ("FailedMount", message.clone()),
        Step::MeasureVolumes => ("FailedSync", format!("error measuring the pod's volumes: {message}")),
        Step::Stop(_) => ("FailedKillPod", format!("error killing pod: {message}")),
        Step::RemoveSandbox => ("FailedKillPod", format!("error removing the pod's sandbox: {message}")),
        Step::ReleaseDevices => ("FailedSync", format!("error releasing devices: {message}")),
        Step::ReleaseVolumes => ("FailedUnMount", message.clone()),
        Step::Remove(_) => ("FailedSync", format!("error removing a container that ended: {message}")),
        Step::ReleaseLogs => ("FailedSync", format!("error removing the pod's logs: {message}")),
        Step::SaveRecord => ("FailedSync", format!("error saving the pod's record: {message}")),
        Step::Checkpoint => ("FailedSync", format!("error saving the pod's checkpoint: {message}")),
        Step::ForgetRecord => ("FailedSync", format!("error removing the pod's record: {message}")),
    };
    (EventType::Warning, event, message)
}
