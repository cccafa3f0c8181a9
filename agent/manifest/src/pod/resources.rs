//! `containers[].resources`.

use coracle_document::{Faults, Path};
use std::collections::BTreeMap;

use coracle_model::{ExtendedResource, Quantity, ResourceList, Resources};
use k8s_openapi::api::core::v1;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;

use super::filled;

/// Requests or limits, read.
#[derive(Default)]
struct List {
    plain: ResourceList,
    extended: BTreeMap<ExtendedResource, u64>,
}

/// Checks, and gives a resource with a limit but no request the limit as its request.
pub(super) fn convert(
    resources: &mut v1::ResourceRequirements,
    path: &Path<'_>,
    faults: &mut Faults,
) -> Option<Resources> {
    let v1::ResourceRequirements { claims, limits, requests } = resources;
    faults.not_yet_if(filled(claims.as_ref()), &path.child("claims"), "dynamic resource allocation");

    let before = faults.0.len();
    let (limits_path, requests_path) = (path.child("limits"), path.child("requests"));
    let List { plain: most, mut extended } = list(limits.as_ref(), None, &limits_path, faults);
    let mut least = list(requests.as_ref(), Some(&most), &requests_path, faults);
    if faults.0.len() == before {
        // Only now, so that a wrong limit is not reported a second time as a missing one.
        check_pairs(&least.extended, &extended, path, faults);
    }

    // Only now, so that a wrong limit is not reported a second time as a wrong request.
    if let Some(limits) = limits.as_ref().filter(|limits| !limits.is_empty()) {
        let requests = requests.get_or_insert_default();
        for (name, limit) in limits {
            requests.entry(name.clone()).or_insert_with(|| limit.clone());
        }
    }
    least.plain.cpu = least.plain.cpu.or(most.cpu);
    least.plain.memory = least.plain.memory.or(most.memory);
    extended.retain(|_, count| *count > 0);
    (faults.0.len() == before).then_some(Resources { requests: least.plain, limits: most, extended })
}

/// Reads requests (`limits` given) or limits.
fn list(
    amounts: Option<&BTreeMap<String, Text>>,
    limits: Option<&ResourceList>,
    path: &Path<'_>,
    faults: &mut Faults,
) -> List {
    let mut list = List::default();
    for (name, text) in amounts.into_iter().flatten() {
        let path = path.key(name);
        let amount = match text.0.parse::<Quantity>() {
            Ok(amount) => amount,
            Err(error) => {
                faults.invalid(&path, &text.0, error);
                continue;
            }
        };
        match name.as_str() {
            "cpu" => list.plain.cpu = Some(amount),
            "memory" => list.plain.memory = Some(amount),
            "ephemeral-storage" if limits.is_none() => {
                faults.not_yet(&path, "local storage is not limited; leave the limit out");
            }
            // Only a scheduler adds these up.
            "ephemeral-storage" => {
                list.plain.other.insert(name.clone(), amount);
            }
            huge if huge.starts_with("hugepages-") => faults.not_yet(&path, "huge pages"),
            extended if extended.contains('/') => match (ExtendedResource::new(extended), count(amount)) {
                (Ok(resource), Some(count)) => drop(list.extended.insert(resource, count)),
                (Ok(_), None) => faults.invalid(&path, &text.0, "must be an integer"),
                (Err(error), _) => faults.invalid(&path, name, error),
            },
            _ => faults.invalid(&path, name, "must be a standard resource for containers"),
        }
        let limit = limits.and_then(|limits| match name.as_str() {
            "cpu" => limits.cpu,
            "memory" => limits.memory,
            _ => None,
        });
        if let Some(limit) = limit.filter(|limit| amount > *limit) {
            faults.invalid(
                &path,
                &text.0,
                format_args!("must be less than or equal to {name} limit of {limit}"),
            );
        }
    }
    list
}

/// A device is not shared with whoever has not asked for it: what is requested is what is had.
fn check_pairs(
    requests: &BTreeMap<ExtendedResource, u64>,
    limits: &BTreeMap<ExtendedResource, u64>,
    path: &Path<'_>,
    faults: &mut Faults,
) {
    for (resource, count) in requests {
        match limits.get(resource) {
            None => faults.required(
                &path.child("limits").key(resource),
                "Limit must be set for non overcommitable resources",
            ),
            Some(limit) if limit != count => faults.invalid(
                &path.child("requests").key(resource),
                &count.to_string(),
                format_args!("must be equal to {resource} limit of {limit}"),
            ),
            Some(_) => {}
        }
    }
}

/// The amount as a number of devices, if it is one.
fn count(amount: Quantity) -> Option<u64> {
    (Quantity::from_units(amount.units()) == amount).then(|| amount.units())
}
