//! A pod gets its devices, and a container makes use of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use coracle_model::{ExtendedResource, Name, Pod, PodDevices, PodUid};

use crate::answer::Answer;
use crate::choose::{Choice, Preferences};
use crate::claims::{Claim, Containers, devices};
use crate::endpoint::Endpoint;
use crate::error::{AllocateError, PrepareError};
use crate::manager::put_together;
use crate::state::Shared;
use crate::store::Store;

/// Devices that a pod is being given: taken from it again when this is dropped, unless they are its own.
struct Attempt<'a> {
    shared: &'a Shared,
    pod: &'a PodUid,
    attempt: u64,
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        // Others may have waited for what this had.
        if let Some(resources) = state.claims.undo(self.pod, self.attempt) {
            resources.iter().for_each(|resource| state.listeners.tell(resource));
        }
    }
}

/// See [`DeviceManager::allocate`](crate::DeviceManager::allocate).
pub(crate) async fn allocate(
    shared: &Arc<Shared>,
    store: &Store,
    pod: &Pod,
) -> Result<PodDevices, AllocateError> {
    if pod.spec.extended_resources().values().all(|count| *count == 0) {
        return Ok(PodDevices::new());
    }
    let mut preferences = Preferences::new();
    let (attempt, mut containers) = loop {
        let question = {
            let mut state = shared.lock();
            if let Some(has) = state.claims.of(&pod.uid) {
                return Ok(devices(has));
            }
            if state.claims.is_under_way(&pod.uid) {
                return Err(AllocateError::Busy);
            }
            match state.choose(&pod.spec, shared.topology, &preferences)? {
                // The choice and the claim are one step: from here on no other pod gets them.
                Choice::Made(containers) => {
                    break (state.claims.begin(&pod.uid, containers.clone()), containers);
                }
                Choice::Ask(question) => question,
            }
        };
        let endpoint = shared.lock().serving(&question.resource);
        let preferred = match &endpoint {
            Some(endpoint) => endpoint.prefer(&question).await.unwrap_or_else(|status| {
                // It is advice, and one can do without.
                let (resource, error) = (&question.resource, status.message());
                tracing::warn!(%resource, error, "a device plugin did not say which devices it would rather give");
                Default::default()
            }),
            None => Default::default(),
        };
        preferences.insert((question.container, question.resource), preferred);
    };
    let attempt = Attempt { shared, pod: &pod.uid, attempt };
    ask(shared, &mut containers).await?;
    let given = devices(&containers);
    let version = {
        let mut state = shared.lock();
        if !state.claims.settle(&pod.uid, attempt.attempt, containers) {
            return Err(AllocateError::Busy);
        }
        state.version += 1;
        state.version
    };
    let settled = Settled { shared, pod: &pod.uid, kept: false };
    settled.record(store, version).await?;
    Ok(given)
}

/// Devices that are a pod's, and not on record yet: taken from it again when this is dropped before.
struct Settled<'a> {
    shared: &'a Shared,
    pod: &'a PodUid,
    kept: bool,
}

impl Settled<'_> {
    async fn record(mut self, store: &Store, version: u64) -> Result<(), AllocateError> {
        let recorded = store.record(self.shared, version).await;
        self.kept = recorded.is_ok();
        recorded.map_err(|error| AllocateError::Checkpoint { path: store.path().to_owned(), error })
    }
}

impl Drop for Settled<'_> {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        let mut state = self.shared.lock();
        if let Some(resources) = state.claims.remove(self.pod) {
            resources.iter().for_each(|resource| state.listeners.tell(resource));
            state.version += 1;
        }
    }
}

/// Asks plugins what to do for each container.
async fn ask(shared: &Shared, containers: &mut Containers) -> Result<(), AllocateError> {
    for (resource, claim) in containers.values_mut().flatten() {
        let failed = |problem| AllocateError::Plugin { resource: resource.clone(), problem };
        let endpoint = serving(shared, resource)
            .ok_or_else(|| AllocateError::Missing { resource: resource.clone(), why: "it has just gone" })?;
        claim.answer = Some(endpoint.allocate(&claim.devices).await.map_err(failed)?);
    }
    Ok(())
}

fn serving(shared: &Shared, resource: &ExtendedResource) -> Option<Arc<Endpoint>> {
    shared.lock().serving(resource)
}

/// See [`DeviceManager::prepare`](crate::DeviceManager::prepare).
pub(crate) async fn prepare(
    shared: &Shared,
    store: &Store,
    pod: &Pod,
    container: &Name,
) -> Result<Answer, PrepareError> {
    let asked = pod.container(container.as_str()).map(|container| &container.resources.extended);
    let asked = asked.into_iter().flatten().filter(|(_, count)| **count > 0).map(|(resource, _)| resource);
    let mut claims: BTreeMap<ExtendedResource, Claim> = {
        let state = shared.lock();
        state.claims.of(&pod.uid).and_then(|has| has.get(container)).cloned().unwrap_or_default()
    };
    let mut learned = false;
    for resource in asked {
        let (of, resource) = (resource, resource.clone());
        let container = container.clone();
        let Some(claim) = claims.get_mut(of) else {
            return Err(PrepareError::NotGiven { container, resource });
        };
        if claim.answer.is_some() && !claim.pre_start {
            continue;
        }
        let Some(endpoint) = serving(shared, of) else {
            return Err(PrepareError::Missing { container, resource });
        };
        if claim.answer.is_none() {
            // Only which devices these are is known, of the pod's record: the plugin says again what to do.
            let answer = endpoint.allocate(&claim.devices).await;
            let answer = answer.map_err(|problem| PrepareError::Plugin {
                container: container.clone(),
                resource: resource.clone(),
                problem,
            })?;
            claim.answer = Some(answer.clone());
            claim.pre_start = endpoint.options.pre_start_required;
            shared.lock().claims.answered(&pod.uid, &container, of, answer, claim.pre_start);
            learned = true;
        }
        if claim.pre_start {
            endpoint.pre_start(&claim.devices).await.map_err(|status| PrepareError::Plugin {
                container,
                resource,
                problem: status.message().to_owned(),
            })?;
        }
    }
    if learned {
        let version = {
            let mut state = shared.lock();
            state.version += 1;
            state.version
        };
        // It can be learned again.
        if let Err(error) = store.record(shared, version).await {
            tracing::warn!(path = %store.path().display(), %error, "what a device plugin said cannot be recorded");
        }
    }
    Ok(put_together(&claims))
}
