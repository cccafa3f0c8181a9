//! Which of the free devices a container should get: what a kubelet asks by `GetPreferredAllocation`.
//!
//! Shares are spread: the device with the most free shares is first. Several devices are chosen to be close to each other:
//! by their NVLinks, then by how much of their way to the processor they have in common.

use std::collections::{BTreeMap, BTreeSet};

use crate::device::{Device, Resource};

/// So many sets are compared one by one; beyond, a good set is grown device by device.
const MOST_SETS: u64 = 20_000;
/// One NVLink counts for more than any closeness on PCIe.
const LINK: u64 = 1000;

/// The ids to take of those available, `size` of them and all of `must` first. What is asked for that the resource does not have
/// is left out, so that there may be fewer.
pub(crate) fn prefer(resource: &Resource, available: &[String], must: &[String], size: usize) -> Vec<String> {
    let mut seen = BTreeSet::new();
    let mut chosen: Vec<String> = must
        .iter()
        .filter(|id| resource.device(id).is_some() && seen.insert(id.as_str()))
        .take(size)
        .cloned()
        .collect();
    // Free ids of each device, in the order of the resource's, not of the request.
    let mut free: BTreeMap<&str, Vec<&String>> = BTreeMap::new();
    for id in available {
        if let Some(device) = resource.device(id).filter(|_| seen.insert(id.as_str())) {
            free.entry(&device.id).or_default().push(id);
        }
    }
    let missing = size.saturating_sub(chosen.len());
    if resource.shares > 1 {
        chosen.extend(spread(resource, &mut free, &chosen, missing));
    } else {
        let taken: Vec<&Device> = chosen.iter().filter_map(|id| resource.device(id)).collect();
        let others: Vec<&Device> =
            resource.devices.iter().filter(|device| free.contains_key(device.id.as_str())).collect();
        let found = close(resource, &taken, &others, missing);
        chosen.extend(found.into_iter().map(|device| device.id.clone()));
    }
    chosen
}

/// Shares of the devices that are used least.
fn spread(
    resource: &Resource,
    free: &mut BTreeMap<&str, Vec<&String>>,
    chosen: &[String],
    missing: usize,
) -> Vec<String> {
    for ids in free.values_mut() {
        // `::10` is after `::9`.
        ids.sort_by_key(|id| (id.len(), id.as_str()));
        ids.reverse();
    }
    let mut mine: BTreeMap<String, usize> = BTreeMap::new();
    for device in chosen.iter().filter_map(|id| resource.device(id)) {
        *mine.entry(device.id.clone()).or_default() += 1;
    }
    let mut found = Vec::new();
    while found.len() < missing {
        // A second share of one device brings a container nothing, so those it has none of come first.
        let candidates = free.iter().filter(|(_, ids)| !ids.is_empty());
        let best = candidates.min_by_key(|(device, ids)| {
            (mine.get(**device).copied().unwrap_or_default(), usize::MAX - ids.len())
        });
        let Some(device) = best.map(|(device, _)| *device) else { break };
        if let Some(id) = free.get_mut(device).and_then(Vec::pop) {
            found.push(id.clone());
        }
        *mine.entry(device.to_owned()).or_default() += 1;
    }
    found
}

/// The set of devices that, with those taken, are closest to each other.
fn close<'a>(
    resource: &Resource,
    taken: &[&'a Device],
    others: &[&'a Device],
    missing: usize,
) -> Vec<&'a Device> {
    let missing = missing.min(others.len());
    if missing == 0 {
        return Vec::new();
    }
    let score = |set: &[&Device]| -> u64 {
        let all: Vec<&&Device> = taken.iter().chain(set).collect();
        let pairs = all.iter().enumerate().flat_map(|(at, a)| all.iter().skip(at + 1).map(move |b| (a, b)));
        pairs.map(|(a, b)| closeness(resource, a, b)).sum()
    };
    if sets(others.len(), missing) > MOST_SETS {
        return grow(resource, taken, others, missing);
    }
    let mut best: Option<(u64, Vec<&Device>)> = None;
    let mut set = Vec::with_capacity(missing);
    each_set(others, missing, &mut set, &mut |set| {
        let score = score(set);
        // Of equals the first: ids are in order, so the answer is the same every time.
        if best.as_ref().is_none_or(|(most, _)| score > *most) {
            best = Some((score, set.to_vec()));
        }
    });
    best.map(|(_, set)| set).unwrap_or_default()
}

/// Takes the device that is closest to those there are, again and again.
fn grow<'a>(
    resource: &Resource,
    taken: &[&'a Device],
    others: &[&'a Device],
    missing: usize,
) -> Vec<&'a Device> {
    let mut rest = others.to_vec();
    let mut found: Vec<&Device> = Vec::new();
    // What each of the rest has in common with those chosen, kept instead of summed up anew.
    let mut scores: Vec<u64> = rest
        .iter()
        .map(|device| taken.iter().map(|other| closeness(resource, device, other)).sum())
        .collect();
    while found.len() < missing {
        let best =
            scores.iter().enumerate().max_by_key(|(at, score)| (**score, usize::MAX - at)).map(|(at, _)| at);
        let Some(at) = best.filter(|at| *at < rest.len()) else { break };
        let device = rest.remove(at);
        scores.remove(at);
        for (score, other) in scores.iter_mut().zip(&rest) {
            *score += closeness(resource, device, other);
        }
        found.push(device);
    }
    found
}

/// How close two devices are.
fn closeness(resource: &Resource, a: &Device, b: &Device) -> u64 {
    let pair = if a.id < b.id { (a.id.clone(), b.id.clone()) } else { (b.id.clone(), a.id.clone()) };
    let links =
        if resource.links.is_empty() { 0 } else { resource.links.get(&pair).copied().unwrap_or_default() };
    let common = a.place.iter().zip(&b.place).take_while(|(x, y)| x == y).count();
    let numa = u64::from(a.numa.is_some() && a.numa == b.numa);
    u64::from(links) * LINK + common.min(99) as u64 * 2 + numa
}

/// How many sets of a size there are; more than can be compared counts as that.
fn sets(of: usize, size: usize) -> u64 {
    let size = size.min(of - size.min(of));
    let mut count = 1u64;
    for step in 0..size {
        count = count.saturating_mul((of - step) as u64) / (step as u64 + 1);
        if count > MOST_SETS {
            return u64::MAX;
        }
    }
    count
}

fn each_set<'a>(
    of: &[&'a Device],
    size: usize,
    set: &mut Vec<&'a Device>,
    tell: &mut impl FnMut(&[&'a Device]),
) {
    if size == 0 {
        return tell(set);
    }
    for (at, device) in of.iter().enumerate().take((of.len() + 1).saturating_sub(size)) {
        set.push(device);
        each_set(of.get(at + 1..).unwrap_or_default(), size - 1, set, tell);
        set.pop();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::device::Grant;

    fn device(id: &str, place: &[&str], numa: Option<u32>) -> Device {
        let place = place.iter().map(|it| (*it).to_owned()).collect();
        Device { id: id.to_owned(), unhealthy: None, numa, place, grant: Grant::default() }
    }

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn shares_are_spread_over_what_is_used_least() {
        let resource = Resource::new("a.b/c", vec![device("x", &[], None), device("y", &[], None)], 3);
        let choose =
            |available: &str, must: &str, size| prefer(&resource, &words(available), &words(must), size);
        assert_eq!(choose("x::1 x::2 y::0 y::1 y::2", "", 1), ["y::0"]);
        assert_eq!(choose("x::1 x::2 y::0 y::1 y::2", "", 2), ["y::0", "x::1"]);
        assert_eq!(choose("x::1 x::2 y::0 y::1 y::2", "y::1", 2), ["y::1", "x::1"]);
        assert_eq!(choose("x::0", "", 3), ["x::0"]);
    }

    #[test]
    fn several_devices_are_close_to_each_other() {
        let (left, right) = (["pci0000:00", "switch0"], ["pci0000:80", "switch1"]);
        let devices = vec![
            device("a", &left, Some(0)),
            device("b", &right, Some(1)),
            device("c", &left, Some(0)),
            device("d", &right, Some(1)),
        ];
        let mut resource = Resource::new("a.b/c", devices, 1);
        let choose =
            |resource: &Resource, must: &str, size| prefer(resource, &words("d c b a"), &words(must), size);
        assert_eq!(choose(&resource, "", 2), ["a", "c"]);
        assert_eq!(choose(&resource, "b", 2), ["b", "d"]);
        assert_eq!(choose(&resource, "", 1), ["a"]);
        resource.links.insert(("a".to_owned(), "d".to_owned()), 1);
        assert_eq!(choose(&resource, "", 2), ["a", "d"]);
    }

    #[test]
    fn strange_requests_do_no_harm() {
        let resource = Resource::new("a.b/c", vec![device("x", &[], None), device("y", &[], None)], 1);
        let choose =
            |available: &str, must: &str, size| prefer(&resource, &words(available), &words(must), size);
        assert_eq!(choose("", "", 5), Vec::<String>::new());
        assert_eq!(choose("x x x z", "x x", 9), ["x"]);
        assert_eq!(choose("x y", "x y", 1), ["x"]);
        assert_eq!(choose("x y", "", usize::MAX), ["x", "y"]);
        assert_eq!(choose("x y", "", 0), Vec::<String>::new());
    }

    #[test]
    fn many_devices_take_no_long_time() {
        let devices: Vec<_> = (0..1000)
            .map(|number| device(&format!("{number:04}"), &["pci0000:00"], Some(number % 2)))
            .collect();
        let ids: Vec<_> = devices.iter().map(|it| it.id.clone()).collect();
        let resource = Resource::new("a.b/c", devices, 1);
        assert_eq!(prefer(&resource, &ids, &[], 500).len(), 500);
    }

    proptest! {
        #[test]
        fn what_is_preferred_is_available_and_each_once(
            shares in 1u32..4,
            available in proptest::collection::vec("[a-f](::[0-4])?", 0..20),
            must in proptest::collection::vec("[a-f](::[0-4])?", 0..4),
            size in 0usize..12,
        ) {
            let devices = "abcde".chars().map(|c| device(&c.to_string(), &[], None)).collect();
            let resource = Resource::new("a.b/c", devices, shares);
            let chosen = prefer(&resource, &available, &must, size);
            prop_assert!(chosen.len() <= size);
            let all: BTreeSet<_> = chosen.iter().collect();
            prop_assert_eq!(all.len(), chosen.len());
            prop_assert!(chosen.iter().all(|id| available.contains(id) || must.contains(id)));
            prop_assert!(chosen.iter().all(|id| resource.device(id).is_some()));
            let known: BTreeSet<_> = available.iter().chain(&must).filter(|id| resource.device(id).is_some()).collect();
            prop_assert_eq!(chosen.len(), size.min(known.len()));
        }
    }
}
