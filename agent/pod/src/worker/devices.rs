//! The devices a pod asks for: nothing is made of it before it has them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use coracle_model::{DeviceHealth, EventType, ExtendedResource, Pod, PodStatus, PodUid};
use tokio::sync::watch;

use super::Worker;
use crate::action::{Action, Step};
use crate::board::{Board, WorkerPhase};
use crate::ports::{Allocation, Clock, Ports, Refusal};
use crate::record::Verdict;

/// The kubelet's own static pods are never unscheduled; a scheduler says it so.
pub(crate) const UNSCHEDULABLE: &str = "Unschedulable";
const FAILED_SCHEDULING: &str = "FailedScheduling";

/// How far a pod is that asks for devices: nothing, for one that asks for none, as most do.
#[derive(Debug)]
pub(super) struct Waiting(Option<Box<Question>>);

#[derive(Debug)]
struct Question {
    /// What it waits for, in words. It asks again once what it waits for has changed.
    awaits: Option<String>,
    /// What was told last of that.
    told: Option<String>,
    /// What there is may have changed since the question that is under way.
    stale: bool,
    /// Changes when other pods' devices become free.
    freed: watch::Receiver<u64>,
}

impl<P: Ports> Worker<P> {
    /// Whether it asks for devices and was not given them yet.
    pub(super) fn lacks_devices(&self) -> bool {
        self.devices.0.is_some() && self.record.devices.is_none()
    }

    /// What is to be done for a pod without its devices.
    pub(super) fn ask_for_devices(&self) -> Vec<Action> {
        match &self.devices.0 {
            Some(question) if question.awaits.is_none() => vec![Action::AllocateDevices],
            _ => Vec::new(),
        }
    }

    /// A question begins: what changes from now on may change the answer.
    pub(super) fn asking_for_devices(&mut self) {
        if let Some(question) = &mut self.devices.0 {
            question.stale = false;
            question.freed.borrow_and_update();
        }
    }

    /// What devices there are has changed.
    pub(super) fn devices_changed(&mut self) {
        if let Some(question) = &mut self.devices.0 {
            question.awaits = None;
            question.stale |= self.acting.contains(Step::AllocateDevices);
        }
        // What a plugin did not prepare while it was not there.
        self.failing.retain(|step, _| !matches!(step, Step::AllocateDevices | Step::Create(_)));
    }

    /// What has come of the question.
    pub(super) fn allocated(&mut self, allocation: Allocation) {
        match allocation {
            Allocation::Given(devices) => {
                if self.devices.0.as_mut().and_then(|question| question.told.take()).is_some() {
                    self.record.start_time = self.ports.clock().now();
                }
                self.record.devices = Some(devices);
                // One that is being written does not say so yet.
                self.acting.give_up(Step::SaveRecord);
                self.unsaved = true;
                self.recorded = false;
            }
            Allocation::Later(message) => self.await_devices(message),
            Allocation::Lacking { resource, holders, refusal } => match self.ending_holder(&holders) {
                Some(holder) => {
                    let message = format!(
                        "Waiting for pod {holder} to end, which has devices of {resource}: {}",
                        refusal.message
                    );
                    self.await_devices(message);
                }
                None => self.refuse(refusal),
            },
            Allocation::Refused(refusal) => self.refuse(refusal),
        }
    }

    /// One of the pods that is being ended, by its name where it is known.
    fn ending_holder(&self, holders: &BTreeSet<PodUid>) -> Option<String> {
        let uid = holders.iter().find(|uid| self.board.is_ending(uid))?;
        Some(self.board.get(uid).map_or_else(|| uid.to_string(), |pod| pod.pod.key.to_string()))
    }

    fn await_devices(&mut self, message: String) {
        let Some(question) = &mut self.devices.0 else { return };
        let is_news = question.told.as_ref() != Some(&message);
        if is_news {
            question.told = Some(message.clone());
        }
        if !question.stale {
            question.awaits = Some(message.clone());
        }
        if is_news {
            self.event(EventType::Warning, FAILED_SCHEDULING, None, message);
        }
    }

    /// The pod is not taken up after all: it fails, as in the kubelet's admission.
    fn refuse(&mut self, refusal: Refusal) {
        let Refusal { reason, message } = refusal;
        self.event(EventType::Warning, &reason, None, message.clone());
        let message = format!("Pod was rejected: {message}");
        let verdict = Verdict { reason: reason.into_owned(), message, disruption: false, refused: true };
        let moment = self.moment();
        self.end(Some(verdict), Some(Duration::ZERO), moment);
    }

    /// What it waits for, while it does.
    pub(super) fn awaited_devices(&self) -> Option<&str> {
        let waits = self.phase == WorkerPhase::Syncing && self.lacks_devices();
        self.devices.0.as_ref().filter(|_| waits)?.told.as_deref()
    }

    /// Tells of devices whose health is another than it was seen to be.
    pub(super) fn tell_health(&self, status: &PodStatus) {
        let Some(before) = self.status.as_deref() else { return };
        let before: BTreeMap<_, _> = health(before).collect();
        for (device, now) in health(status) {
            let (container, resource, id) = device;
            let kind = match (before.get(&device), now) {
                (Some(DeviceHealth::Healthy | DeviceHealth::Unknown), DeviceHealth::Unhealthy) => {
                    EventType::Warning
                }
                (Some(DeviceHealth::Unhealthy), DeviceHealth::Healthy) => EventType::Normal,
                _ => continue,
            };
            let (reason, state) = match now {
                DeviceHealth::Healthy => ("DeviceHealthy", "healthy again"),
                _ => ("DeviceUnhealthy", "unhealthy"),
            };
            let name =
                self.record.pod.all_containers().map(|it| &it.name).find(|name| name.as_str() == container);
            self.event(kind, reason, name, format!("Device {id} of {resource} is {state}"));
        }
    }
}

/// Every device of a status: container, resource, identifier; and how it is.
fn health(status: &PodStatus) -> impl Iterator<Item = ((&str, &ExtendedResource, &str), DeviceHealth)> {
    status.all_containers().flat_map(|container| {
        container.allocated_resources.iter().flat_map(move |one| {
            one.devices.iter().map(move |device| {
                ((container.name.as_str(), &one.resource, device.id.as_str()), device.health)
            })
        })
    })
}

// === impl Waiting ===

impl Waiting {
    /// For a pod whose worker begins.
    pub(super) fn of(pod: &Pod, board: &Board) -> Self {
        let asks = !pod.spec.extended_resources().is_empty();
        let question = || Question { awaits: None, told: None, stale: false, freed: board.freed_devices() };
        Self(asks.then(|| Box::new(question())))
    }

    /// Returns once devices of other pods are free that it waits for. Never while it waits for none.
    pub(super) async fn freed(&mut self) {
        let Some(question) = self.0.as_mut().filter(|question| question.awaits.is_some()) else {
            return std::future::pending().await;
        };
        // The board lives as long as the worker.
        if question.freed.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
        question.awaits = None;
    }
}
