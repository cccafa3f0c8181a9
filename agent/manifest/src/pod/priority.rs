//! `spec.priority` and `spec.priorityClassName`.

use coracle_document::{Faults, Path};

/// The two classes every cluster has. Others are objects of an API server.
const CLASSES: [(&str, i32); 2] =
    [("system-cluster-critical", 2_000_000_000), ("system-node-critical", 2_000_001_000)];

/// The pod's priority, which its class decides where the node knows the class. It is written down, as by
/// the API server.
pub(super) fn resolve(
    priority: &mut Option<i32>,
    class: Option<&str>,
    spec: &Path<'_>,
    faults: &mut Faults,
) -> i32 {
    let class = class.unwrap_or_default();
    match CLASSES.iter().find(|(name, _)| *name == class) {
        Some((_, value)) => {
            if let Some(other) = priority.filter(|priority| priority != value) {
                let detail = format!(
                    "the integer value of priority ({other}) must not be provided in pod spec; PriorityClass {class} says {value}"
                );
                faults.forbidden(&spec.child("priority"), &detail);
            }
            *priority.get_or_insert(*value)
        }
        None => {
            if !class.is_empty() && priority.is_none() {
                let detail = format!(
                    "no PriorityClass with name {class} was found: this node knows {} and {}; for another give spec.priority too",
                    CLASSES[0].0, CLASSES[1].0
                );
                faults.forbidden(&spec.child("priorityClassName"), &detail);
            }
            priority.unwrap_or(0)
        }
    }
}
