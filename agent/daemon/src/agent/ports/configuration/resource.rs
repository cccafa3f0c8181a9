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
    Ok(divide(&field.resource, amount, field.divisor).to_string())
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

/// CPUs are divided in thousandths, everything else in whole units.
fn divide(resource: &str, amount: Quantity, divisor: Quantity) -> u64 {
    match resource {
        "cpu" => amount.milli().div_ceil(divisor.milli().max(1)),
        _ => amount.units().div_ceil(divisor.units().max(1)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_divided_and_rounded_up() {
        for (resource, amount, divisor, expected) in [
            ("cpu", "250m", "1", 1),
            ("cpu", "250m", "1m", 250),
            ("cpu", "1500m", "1", 2),
            ("cpu", "0", "1", 0),
            ("memory", "64Mi", "1", 67_108_864),
            ("memory", "64Mi", "1Mi", 64),
            ("memory", "65M", "1Mi", 62),
            ("memory", "1", "1Gi", 1),
            ("hugepages-2Mi", "4Mi", "1Mi", 4),
        ] {
            let divided = divide(resource, amount.parse().unwrap(), divisor.parse().unwrap());
            assert_eq!(divided, expected, "{resource} {amount} / {divisor}");
        }
    }
}
