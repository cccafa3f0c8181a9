//! Ports of the host: who may have them.

use coracle_model::{Pod, PodKey, PortConflict};

use crate::board::PodSnapshot;

/// Why a pod is refused while another has ports of the host that it asks for; the kubelet's reason.
pub(crate) const NODE_PORTS: &str = "NodePorts";

/// What a pod has of the ports of the host that it asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortHold {
    /// They are its own.
    Held,
    /// They will be, once another pod has ended. Nobody else gets them before.
    Awaited,
    /// It is being ended, and has them until its sandbox is gone.
    Ending,
    /// It was not taken up because another has them.
    Lacked,
    /// It needs none: it has ended, or was not taken up for another reason.
    None,
}

/// Whether a pod can have the ports of the host that it asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PortOffer {
    /// It can.
    Free,
    /// Once another has ended that is being ended: which one, and what it has, for people.
    Soon(String),
    /// Another has them: which one, and what it has, for people.
    Taken(String),
}

/// Whether a pod can have its ports beside all others.
pub(crate) fn offer<'a>(pod: &Pod, others: impl Iterator<Item = (&'a PodSnapshot, PortHold)>) -> PortOffer {
    let mut offer = PortOffer::Free;
    for (other, hold) in others {
        if matches!(hold, PortHold::Lacked | PortHold::None) {
            continue;
        }
        let Some(conflict) = pod.port_conflict(&other.pod) else { continue };
        match hold {
            PortHold::Ending => offer = PortOffer::Soon(soon(&other.pod.key, &conflict)),
            _ => return PortOffer::Taken(taken(&other.pod.key, &conflict)),
        }
    }
    offer
}

fn taken(holder: &PodKey, conflict: &PortConflict<'_>) -> String {
    let PortConflict { wanted, held } = conflict;
    format!(
        "Node didn't have free ports for the requested pod ports: host port {wanted}, which container {} asks for, is \
         that of container {} of pod {holder} (host port {held}, container port {})",
        wanted.container, held.container, held.container_port
    )
}

fn soon(holder: &PodKey, conflict: &PortConflict<'_>) -> String {
    let PortConflict { wanted, held } = conflict;
    format!(
        "Waiting for pod {holder} to end: its container {} has host port {held}, and container {} asks for {wanted}",
        held.container, wanted.container
    )
}
