//! `containers[].resources`.

use coracle_document::{Faults, Path};
use std::collections::BTreeMap;

use coracle_model::{Quantity, ResourceList, Resources};
use k8s_openapi::api::core::v1;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;

use super::filled;

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
    let most = list(limits.as_ref(), None, &limits_path, faults);
    let mut least = list(requests.as_ref(), Some(&most), &requests_path, faults);

    // Only now, so that a wrong limit is not reported a second time as a wrong request.
    if let Some(limits) = limits.as_ref().filter(|limits| !limits.is_empty()) {
        let requests = requests.get_or_insert_default();
        for (name, limit) in limits {
            requests.entry(name.clone()).or_insert_with(|| limit.clone());
        }
    }
    least.cpu = least.cpu.or(most.cpu);
    least.memory = least.memory.or(most.memory);
    (faults.0.len() == before).then_some(Resources { requests: least, limits: most })
}

/// Reads requests (`limits` given) or limits.
fn list(
    amounts: Option<&BTreeMap<String, Text>>,
    limits: Option<&ResourceList>,
    path: &Path<'_>,
    faults: &mut Faults,
) -> ResourceList {
    let mut list = ResourceList::default();
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
            "cpu" => list.cpu = Some(amount),
            "memory" => list.memory = Some(amount),
            "ephemeral-storage" if limits.is_none() => {
                faults.not_yet(&path, "local storage is not limited; leave the limit out");
            }
            // Only a scheduler adds these up.
            "ephemeral-storage" => {
                list.other.insert(name.clone(), amount);
            }
            huge if huge.starts_with("hugepages-") => faults.not_yet(&path, "huge pages"),
            extended if extended.contains('/') => {
                faults.not_yet(&path, "no device plugin serves this resource");
            }
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
