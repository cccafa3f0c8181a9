//! Which devices the containers of a pod get: a function of what there is, what pods have, and what plugins would rather.

use std::collections::{BTreeMap, BTreeSet};

use coracle_model::{Container, ExtendedResource, Name, PodSpec};

use crate::claims::{Claim, Claims, Containers};
use crate::error::AllocateError;
use crate::inventory::Devices;
use crate::numa::NumaNodes;
use crate::options::{TopologyPolicy, TopologyScope};
use crate::topology::{self, Supply, Verdict};

/// A resource that can be given.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Offer<'a> {
    pub(crate) devices: &'a Devices,
    /// Whether the plugin wants to be asked which ones it would rather give.
    pub(crate) prefers: bool,
    /// Whether it wants to be told before a container starts.
    pub(crate) pre_start: bool,
}

/// What topology is to be heeded.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Topology {
    pub(crate) policy: TopologyPolicy,
    pub(crate) scope: TopologyScope,
    pub(crate) nodes: NumaNodes,
}

/// What a plugin is to be asked before one can choose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Question {
    pub(crate) container: Name,
    pub(crate) resource: ExtendedResource,
    pub(crate) available: Vec<String>,
    pub(crate) must_include: Vec<String>,
    pub(crate) size: usize,
}

/// What plugins would rather give, by container and resource: answers to questions.
pub(crate) type Preferences = BTreeMap<(Name, ExtendedResource), BTreeSet<String>>;

/// How far a choice has come.
#[derive(Debug)]
pub(crate) enum Choice {
    /// To be made again when this is answered.
    Ask(Question),
    /// Made.
    Made(Containers),
}

/// Who chooses, and what was chosen so far.
struct Chooser<'a> {
    offers: &'a BTreeMap<ExtendedResource, Offer<'a>>,
    claims: &'a Claims,
    topology: Topology,
    preferences: &'a Preferences,
    /// Of containers that run beside each other.
    kept: BTreeSet<(&'a ExtendedResource, &'a str)>,
    /// Of init containers, which later containers use again.
    reusable: BTreeMap<&'a ExtendedResource, BTreeSet<&'a str>>,
    chosen: Containers,
}

/// What a container can be given of a resource.
struct Stock<'a> {
    wanted: usize,
    /// In order of their identifiers.
    free: Vec<&'a str>,
    /// What init containers had.
    reusable: Vec<&'a str>,
}

/// Chooses for all containers of a pod that has no devices.
///
/// # Errors
/// There are not enough, or they are not where the policy wants them. Every resource has an offer.
pub(crate) fn choose<'a>(
    spec: &'a PodSpec,
    offers: &'a BTreeMap<ExtendedResource, Offer<'a>>,
    claims: &'a Claims,
    topology: Topology,
    preferences: &'a Preferences,
) -> Result<Choice, AllocateError> {
    let mut chooser = Chooser {
        offers,
        claims,
        topology,
        preferences,
        kept: BTreeSet::new(),
        reusable: BTreeMap::new(),
        chosen: Containers::new(),
    };
    let totals = spec.extended_resources();
    chooser.there_are_enough(&totals)?;
    let of_the_pod = match topology.scope {
        TopologyScope::Pod => Some(chooser.near(&totals)?),
        TopologyScope::Container => None,
    };
    for container in spec.init_containers.iter().chain(&spec.containers) {
        let asked: BTreeMap<_, _> =
            container.resources.extended.iter().map(|(of, count)| (of, *count)).collect();
        let near = match of_the_pod {
            Some(near) => near,
            None => chooser.near(&asked)?,
        };
        let again =
            spec.init_containers.iter().any(|init| std::ptr::eq(init, container)) && !container.is_sidecar();
        for (resource, count) in asked {
            if let Some(question) = chooser.take(container, resource, count, near, again)? {
                return Ok(Choice::Ask(question));
            }
        }
    }
    Ok(Choice::Made(chooser.chosen))
}

// === impl Chooser ===

impl<'a> Chooser<'a> {
    fn offer(&self, resource: &ExtendedResource) -> Result<Offer<'a>, AllocateError> {
        let offer = self.offers.get(resource).copied();
        offer.ok_or_else(|| AllocateError::Missing { resource: resource.clone(), why: "none has registered" })
    }

    /// Whether the pod as a whole can be served, before anybody is asked anything.
    fn there_are_enough(&self, totals: &BTreeMap<&'a ExtendedResource, u64>) -> Result<(), AllocateError> {
        for (resource, total) in totals {
            let free = self.stock(resource, *total)?.free.len();
            if *total > free as u64 {
                return Err(self.insufficient(resource, *total));
            }
        }
        Ok(())
    }

    fn insufficient(&self, resource: &ExtendedResource, requested: u64) -> AllocateError {
        let devices = self.offers.get(resource).map(|offer| offer.devices);
        let healthy = devices.into_iter().flat_map(BTreeMap::values).filter(|device| device.healthy).count();
        AllocateError::Insufficient {
            resource: resource.clone(),
            requested,
            used: self.claims.used(resource),
            capacity: healthy as u64,
        }
    }

    fn stock(&self, resource: &'a ExtendedResource, count: u64) -> Result<Stock<'a>, AllocateError> {
        let devices = self.offer(resource)?.devices;
        let reusable = self.reusable.get(resource);
        let free = devices.iter().filter(|(id, device)| {
            device.healthy
                && !self.claims.is_taken(resource, id)
                && !self.kept.contains(&(resource, id.as_str()))
                && !reusable.is_some_and(|ids| ids.contains(id.as_str()))
        });
        Ok(Stock {
            wanted: usize::try_from(count).unwrap_or(usize::MAX),
            free: free.map(|(id, _)| id.as_str()).collect(),
            reusable: reusable.into_iter().flatten().copied().collect(),
        })
    }

    /// From which NUMA nodes devices are taken first.
    fn near(&self, asked: &BTreeMap<&'a ExtendedResource, u64>) -> Result<Option<NumaNodes>, AllocateError> {
        if self.topology.policy == TopologyPolicy::None {
            return Ok(None);
        }
        let mut hints = Vec::new();
        for (resource, count) in asked.iter().filter(|(_, count)| **count > 0) {
            let devices = self.offer(resource)?.devices;
            let stock = self.stock(resource, *count)?;
            let places = |ids: &[&str]| -> Vec<NumaNodes> {
                ids.iter().filter_map(|id| devices.get(*id)).map(|device| device.numa).collect()
            };
            let all: Vec<NumaNodes> = devices.values().map(|device| device.numa).collect();
            let reused = places(&stock.reusable);
            let free = [places(&stock.free), reused.clone()].concat();
            let supply = Supply { wanted: stock.wanted, all: &all, free: &free, reused: &reused };
            hints.push(topology::hints(self.topology.nodes, &supply));
        }
        match topology::merge(self.topology.policy, self.topology.nodes, &hints) {
            Verdict::Admitted(near) => Ok(near),
            Verdict::Refused => Err(AllocateError::Topology),
        }
    }

    /// Takes a container's devices of a resource, unless the plugin is to be asked first. `again`: they are used again.
    fn take(
        &mut self,
        container: &Container,
        resource: &'a ExtendedResource,
        count: u64,
        near: Option<NumaNodes>,
        again: bool,
    ) -> Result<Option<Question>, AllocateError> {
        let offer = self.offer(resource)?;
        let mut stock = self.stock(resource, count)?;
        let wanted = stock.wanted;
        if wanted > stock.free.len() + stock.reusable.len() {
            return Err(self.insufficient(resource, count));
        }
        let place = |id: &str| offer.devices.get(id).map(|device| device.numa).unwrap_or_default();
        let is_near = |id: &str| near.is_none_or(|near| place(id).meets(near));
        // Near ones first; of these those that are near to fewer nodes, and could be less use to others.
        let rank = |id: &&str| (!is_near(id), place(id).len());
        stock.free.sort_by_key(rank);
        stock.reusable.sort_by_key(rank);

        stock.reusable.truncate(wanted);
        let mut must = stock.reusable;
        let near_free = stock.free.iter().filter(|id| is_near(id)).count();
        if must.len() + near_free < wanted {
            must.extend(&stock.free[..near_free]);
            stock.free.drain(..near_free);
        } else {
            stock.free.truncate(near_free);
        }
        let key = (container.name.clone(), resource.clone());
        let preferred = self.preferences.get(&key);
        if offer.prefers
            && preferred.is_none()
            && must.len() < wanted
            && must.len() + stock.free.len() > wanted
        {
            let owned = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect::<Vec<_>>();
            return Ok(Some(Question {
                container: key.0,
                resource: key.1,
                available: [owned(&must), owned(&stock.free)].concat(),
                must_include: owned(&must),
                size: wanted,
            }));
        }
        // What the plugin would rather give, as far as it can be given, and others where that is not enough.
        stock.free.sort_by_key(|id| !preferred.is_some_and(|ids| ids.contains(*id)));
        let taken: Vec<&'a str> = must.into_iter().chain(stock.free).take(wanted).collect();

        let reusable = self.reusable.entry(resource).or_default();
        for id in &taken {
            if again {
                reusable.insert(id);
            } else {
                reusable.remove(id);
                self.kept.insert((resource, id));
            }
        }
        if !taken.is_empty() {
            let devices = taken.into_iter().map(str::to_owned).collect();
            let claim = Claim { devices, answer: None, pre_start: offer.pre_start };
            self.chosen.entry(key.0).or_default().insert(key.1, claim);
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests;
