//! Pods and the ports of the host they ask for.

use std::sync::Arc;

use coracle_model::{EventType, Pod};

use super::{Shared, Slots};
use crate::admission::{self, NODE_PORTS, PortHold, PortOffer};
use crate::ports::{Events, PodEvent, Ports, Refusal};
use crate::record::PodRecord;

impl<P: Ports> Shared<P> {
    /// Has a pod wait, or fail, whose ports of the host another has.
    pub(super) fn judge_ports(&self, slots: &Slots, record: &mut PodRecord) {
        match self.offer(slots, &record.pod) {
            PortOffer::Free => {}
            PortOffer::Taken(message) => self.refuse(record, Refusal { reason: NODE_PORTS.into(), message }),
            PortOffer::Soon(message) => {
                record.waits_for_ports = true;
                let kind = EventType::Normal;
                let event = PodEvent { kind, reason: NODE_PORTS, message, container: None };
                self.ports.events().record(&record.pod, event);
            }
        }
    }

    /// Whether the pod can have its ports of the host.
    pub(super) fn offer(&self, slots: &Slots, pod: &Pod) -> PortOffer {
        if pod.host_ports().next().is_none() {
            return PortOffer::Free;
        }
        let others = slots.by_key.values().filter(|slot| slot.uid != pod.uid);
        let others: Vec<_> = others
            .filter_map(|slot| {
                let snapshot = self.board.get(&slot.uid)?;
                // Its worker may not have heard of it.
                let hold = match snapshot.ports {
                    PortHold::Held | PortHold::Awaited if slot.terminating => PortHold::Ending,
                    hold => hold,
                };
                Some((snapshot, hold))
            })
            .collect();
        admission::offer(pod, others.iter().map(|(snapshot, hold)| (snapshot, *hold)))
    }

    /// Has the pod go on, if it lacks ports of the host, once nobody has them any more.
    pub(super) fn await_ports(self: &Arc<Self>, pod: &Arc<Pod>) {
        let lacks = |ports| matches!(ports, PortHold::Awaited | PortHold::Lacked);
        let mut changes = self.board.changes();
        if !self.board.get(&pod.uid).is_some_and(|seen| lacks(seen.ports)) {
            return;
        }
        let (shared, pod) = (Arc::downgrade(self), Arc::clone(pod));
        tokio::spawn(async move {
            loop {
                {
                    let Some(shared) = shared.upgrade() else { return };
                    let slots = shared.lock();
                    let slot = slots.by_key.get(&pod.key).filter(|slot| slot.uid == pod.uid);
                    let Some(slot) = slot.filter(|slot| !slot.terminating && !slots.closed) else { return };
                    if shared.offer(&slots, &pod) == PortOffer::Free {
                        return slot.inbox.ports_free();
                    }
                }
                if changes.changed().await.is_err() {
                    return;
                }
            }
        });
    }
}
