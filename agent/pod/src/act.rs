//! Carrying out an action: the call of the port, and what it says as an event.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use coracle_model::{Container, EventType, Pod};

use crate::action::{Action, Index, Step};
use crate::ports::{Failure, ImageRef, Images, Ports, Records, Runtime, Volumes};
use crate::record::PodRecord;

/// An action under way. Dropping it gives it up.
pub(crate) type Acting = Pin<Box<dyn Future<Output = (Action, Result<Outcome, Failure>)> + Send>>;

/// What an action brought, beside what is observed anyway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Done,
    Image(ImageRef),
}

/// Begins an action. Boxed, so that an idle worker holds no room for the largest of them.
pub(crate) fn act<P: Ports>(ports: &Arc<P>, record: &PodRecord, action: Action) -> Acting {
    let (ports, pod) = (Arc::clone(ports), Arc::clone(&record.pod));
    if action == Action::SaveRecord {
        let record = record.clone();
        return Box::pin(async move {
            let result = ports.records().save(&record).await;
            (action, result.map(|()| Outcome::Done))
        });
    }
    Box::pin(async move {
        let result = call(&*ports, &pod, &action).await;
        (action, result)
    })
}

async fn call<P: Ports>(ports: &P, pod: &Arc<Pod>, action: &Action) -> Result<Outcome, Failure> {
    let (runtime, volumes) = (ports.runtime(), ports.volumes());
    match action {
        // Needs the record itself: see `act`.
        Action::SaveRecord => Ok(()),
        Action::EnsureSandbox => runtime.ensure_sandbox(pod).await,
        Action::EnsureVolumes => volumes.ensure_volumes(pod).await,
        Action::RefreshVolumes => volumes.refresh_volumes(pod).await,
        Action::EnsureImage(index, _) => {
            let container = container(pod, *index)?;
            return ports.images().ensure_image(pod, container).await.map(Outcome::Image);
        }
        Action::Create(index, attempt, image) => {
            let container = container(pod, *index)?;
            runtime.create_container(pod, container, *attempt, image).await.map(|_| ())
        }
        Action::Start(_, id) => runtime.start_container(&pod.uid, *id).await,
        Action::Stop(id, grace, _) => runtime.stop_container(&pod.uid, *id, *grace).await,
        Action::Remove(id) => runtime.remove_container(&pod.uid, *id).await,
        Action::RemoveSandbox => runtime.remove_sandbox(&pod.uid).await,
        Action::ReleaseVolumes => volumes.release_volumes(&pod.uid).await,
        Action::ReleaseLogs => volumes.release_logs(pod).await,
        Action::ForgetRecord => ports.records().forget(&pod.uid).await,
    }
    .map(|()| Outcome::Done)
}

/// The container at a place of the plan.
fn container(pod: &Pod, index: Index) -> Result<&Container, Failure> {
    pod.all_containers().nth(index).ok_or_else(|| {
        Failure::new("CreateContainerConfigError", format!("the pod has no container number {index}"))
    })
}

/// The event of an action that succeeded: reason and message, in the kubelet's words.
pub(crate) fn success_event(pod: &Pod, action: &Action) -> Option<(&'static str, String)> {
    Some(match action {
        Action::EnsureImage(index, _) => {
            let image = pod.all_containers().nth(*index).map_or("", |container| &container.image);
            ("Pulled", format!("Container image \"{image}\" already present on machine"))
        }
        Action::Create(..) => ("Created", "Container created".to_owned()),
        Action::Start(..) => ("Started", "Container started".to_owned()),
        _ => return None,
    })
}

/// The event of a step that failed.
pub(crate) fn failure_event(step: Step, failure: &Failure) -> (EventType, &'static str, String) {
    let Failure { reason, message } = failure;
    let (event, message) = match step {
        Step::Image(_) if reason == "ErrImageNeverPull" => ("ErrImageNeverPull", message.clone()),
        Step::Image(_) => ("Failed", format!("{reason}: {message}")),
        Step::Create(_) | Step::Start(_) => ("Failed", format!("Error: {message}")),
        Step::Sandbox => ("FailedCreatePodSandBox", format!("Failed to create pod sandbox: {message}")),
        Step::Volumes | Step::RefreshVolumes => ("FailedMount", message.clone()),
        Step::Stop(..) => ("FailedKillPod", format!("error killing pod: {message}")),
        Step::RemoveSandbox => ("FailedKillPod", format!("error removing the pod's sandbox: {message}")),
        Step::ReleaseVolumes => ("FailedUnMount", message.clone()),
        Step::Remove(_) => ("FailedSync", format!("error removing a container that ended: {message}")),
        Step::ReleaseLogs => ("FailedSync", format!("error removing the pod's logs: {message}")),
        Step::SaveRecord => ("FailedSync", format!("error saving the pod's record: {message}")),
        Step::ForgetRecord => ("FailedSync", format!("error removing the pod's record: {message}")),
    };
    (EventType::Warning, event, message)
}
