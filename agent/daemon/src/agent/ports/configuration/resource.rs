//! `resourceFieldRef`: requests and limits of a container.

use coracle_model::{Container, Quantity, ResourceField};

use super::Sources;

/// The amount, divided and rounded up. A limit that is not set is what the node has for its pods; a request
/// that is not set is nothing.
pub(super) fn value(field: &ResourceField, own: &Container, sources: Sources<'_>) -> Result<String, String> {
    let container = match &field.container {
        None => own,
        Some(name) => sources
            .pod
            .container(name.as_str())
            .ok_or_else(|| format!("container {} not found", name.as_str()))?,
    };
    let list = if field.limit { &container.resources.limits } else { &container.resources.requests };
    let set = match field.resource.as_str() {
        "cpu" => list.cpu,
        "memory" => list.memory,
        other => list.other.get(other).copied(),
    };
    let amount = match set.filter(|amount| !field.limit || !amount.is_zero()) {
        Some(amount) => amount,
        None if field.limit => allocatable(&field.resource, sources)?,
        None => Quantity::default(),
    };
    // CPUs are divided in thousandths, everything else in whole units.
    Ok(amount.divide(field.divisor, field.resource == "cpu").to_string())
}

fn allocatable(resource: &str, sources: Sources<'_>) -> Result<Quantity, String> {
    let all = sources
        .node
        .allocatable
        .as_ref()
        .map_err(|error| format!("failed to find what the node has: {error}"))?;
    Ok(match resource {
        "cpu" => Quantity::from_milli(all.cpu),
        "memory" => Quantity::from_units(all.memory),
        "ephemeral-storage" => Quantity::from_units(all.ephemeral_storage),
        // The kubelet fills in no others.
        _ => Quantity::default(),
    })
}
