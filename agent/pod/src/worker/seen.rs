//! What is seen of the pod, for whoever asks.

use std::collections::BTreeMap;
use std::sync::Arc;

use coracle_model::PodStatus;
use jiff::Timestamp;

use super::Worker;
use super::pulling;
use crate::action::Step;
use crate::admission::PortHold;
use crate::board::{PodSnapshot, WorkerPhase};
use crate::ports::{Devices, Observed, Ports};
use crate::status::{self, Course, Notes};

impl<P: Ports> Worker<P> {
    /// Puts up what is seen, if it is not what was seen before.
    pub(super) fn publish(&mut self, observed: &Observed, now: Timestamp) {
        let status = match &self.record.finished {
            // The last word is not taken back.
            Some(finished) => finished.clone(),
            None if self.phase == WorkerPhase::Syncing => self.compute_status(observed, now, Course::Running),
            None => self.compute_status(observed, now, Course::Stopping),
        };
        let settled = self.is_settled();
        let ports = self.port_hold();
        let state = (self.phase, self.record.deletion, settled, ports);
        if self.published == Some(state) && self.status.as_deref() == Some(&status) {
            return;
        }
        self.tell_health(&status);
        let status = Arc::new(status);
        self.status = Some(Arc::clone(&status));
        self.published = Some(state);
        self.board.publish(PodSnapshot {
            pod: Arc::clone(&self.record.pod),
            source: self.record.source.clone(),
            status,
            deletion: self.record.deletion,
            phase: self.phase,
            settled,
            ports,
            version: 0,
        });
    }

    /// What it has of the host's ports.
    fn port_hold(&self) -> PortHold {
        let verdict = self.record.ending.as_ref().and_then(|ending| ending.verdict.as_ref());
        match self.phase {
            _ if self.record.lacks_ports() => PortHold::Lacked,
            _ if verdict.is_some_and(|verdict| verdict.refused) => PortHold::None,
            WorkerPhase::Syncing if self.record.waits_for_ports => PortHold::Awaited,
            WorkerPhase::Syncing => PortHold::Held,
            WorkerPhase::Terminating => PortHold::Ending,
            WorkerPhase::Terminated if !self.released.sandbox => PortHold::Ending,
            WorkerPhase::Terminated | WorkerPhase::Gone => PortHold::None,
        }
    }

    /// The pod's status.
    pub(super) fn compute_status(&self, observed: &Observed, now: Timestamp, course: Course) -> PodStatus {
        let pod = &self.record.pod;
        let mut failures = BTreeMap::new();
        let mut pod_failure = None;
        for (step, failing) in &self.failing {
            match step {
                Step::Image(index) => {
                    let image = pod.all_containers().nth(*index).map_or("", |container| &container.image);
                    failures.insert(*index, pulling::failure(image, failing));
                }
                Step::Create(index) => {
                    // The image's, which has come to be missing since, is behind it in time.
                    failures.entry(*index).or_insert_with(|| failing.failure.clone());
                }
                Step::Sandbox | Step::Volumes | Step::SaveRecord | Step::AllocateDevices => {
                    pod_failure = pod_failure.or(Some(&failing.failure));
                }
                _ => {}
            }
        }
        status::status(
            &self.scene(observed),
            &Notes {
                start_time: self.record.start_time,
                back_off: &self.back_off,
                failures: &failures,
                pod_failure,
                awaited_devices: self.awaited_devices(),
                devices: self.record.devices.as_ref(),
                health: &|resource, device| self.ports.devices().health(resource, device),
                course,
                host_ips: &self.ports.node_addresses(),
                verdict: self.record.ending.as_ref().and_then(|ending| ending.verdict.as_ref()),
                previous: self.status.as_deref(),
                now,
            },
        )
    }
}
