//! `oom_score_adj` of a container.

use coracle_model::{Container, QosClass};

/// The value the kubelet gives, from -1000 to 1000: the larger, the sooner the kernel kills it when the
/// host runs out of memory. `memory_capacity` is the host's memory in bytes.
///
/// Guaranteed pods are nearly exempt, best-effort ones go first, and in between it is the better the
/// larger the part of the host's memory a container has requested.
pub(crate) fn score_adj(class: QosClass, container: &Container, memory_capacity: u64) -> i32 {
    match class {
        QosClass::Guaranteed => -997,
        QosClass::BestEffort => 1000,
        QosClass::Burstable => {
            let request = container.resources.requests.memory.map_or(0, |memory| memory.units());
            let share = u128::from(request) * 1000 / u128::from(memory_capacity.max(1));
            let value = 1000 - i32::try_from(share.min(1000)).unwrap_or(1000);
            // Never as protected as a guaranteed container, never as exposed as a best-effort one.
            value.clamp(3, 999)
        }
    }
}
