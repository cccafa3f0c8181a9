//! Which NUMA nodes a container's devices are taken from: the kubelet's topology manager, for devices alone.

use std::collections::BTreeSet;

use crate::numa::NumaNodes;
use crate::options::TopologyPolicy;

/// Devices of one resource, as far as topology goes: each by the nodes it is near to, empty where it said none.
pub(crate) struct Supply<'a> {
    /// How many are asked for.
    pub(crate) wanted: usize,
    /// All there are.
    pub(crate) all: &'a [NumaNodes],
    /// Those that could be given.
    pub(crate) free: &'a [NumaNodes],
    /// Those of them that are in any case.
    pub(crate) reused: &'a [NumaNodes],
}

/// A set of nodes from which enough devices could be taken, and whether no smaller set could ever do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Hint {
    pub(crate) nodes: NumaNodes,
    pub(crate) preferred: bool,
}

/// What comes of all hints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Devices are taken from these nodes first; from any, if there are none.
    Admitted(Option<NumaNodes>),
    /// The policy is not met.
    Refused,
}

/// The hints of one resource. None: topology does not matter to it.
pub(crate) fn hints(nodes: NumaNodes, supply: &Supply<'_>) -> Option<Vec<Hint>> {
    if supply.all.iter().all(|device| device.is_empty()) {
        return None;
    }
    let near = |devices: &[NumaNodes], mask| devices.iter().filter(|device| device.meets(mask)).count();
    let enough = |mask: &NumaNodes| near(supply.all, *mask) >= supply.wanted;
    let narrowest = nodes.subsets().filter(enough).map(NumaNodes::len).min().unwrap_or_else(|| nodes.len());
    // What is used again is used: a set without it would not be where the devices are.
    let reused = supply.reused.len().min(supply.wanted);
    let possible = nodes
        .subsets()
        .filter(|mask| near(supply.free, *mask) >= supply.wanted && near(supply.reused, *mask) >= reused);
    Some(possible.map(|nodes| Hint { nodes, preferred: nodes.len() == narrowest }).collect())
}

/// What the policy makes of the hints of all resources.
pub(crate) fn merge(policy: TopologyPolicy, nodes: NumaNodes, all: &[Option<Vec<Hint>>]) -> Verdict {
    if policy == TopologyPolicy::None {
        return Verdict::Admitted(None);
    }
    let single = policy == TopologyPolicy::SingleNumaNode;
    let any = Hint { nodes, preferred: true };
    let mut merged = BTreeSet::from([any]);
    for (at, hints) in all.iter().flatten().enumerate() {
        let usable = hints.iter().filter(|hint| !single || (hint.nodes.len() == 1 && hint.preferred));
        let mut usable: Vec<Hint> = usable.copied().collect();
        if usable.is_empty() {
            usable.push(Hint { nodes, preferred: false });
        }
        // What several ways lead to is one: the number of sets is bounded by the nodes, not by the resources.
        merged = merged
            .iter()
            .flat_map(|one| {
                usable.iter().map(|other| Hint {
                    nodes: one.nodes.and(other.nodes),
                    // As in the kubelet, only where all want the same nodes: what two sets have in common need not do.
                    preferred: one.preferred && other.preferred && (at == 0 || one.nodes == other.nodes),
                })
            })
            .filter(|hint| !hint.nodes.is_empty())
            .collect();
    }
    let narrowest = |hints: &Vec<Hint>| hints.iter().map(|hint| hint.nodes.len()).min();
    let wide = all.iter().flatten().filter_map(narrowest).max().unwrap_or(0);
    // Preferred ones, of these the narrowest; else one as wide as the resource needs that needs most, or nearest to that.
    let rank = |hint: &Hint| match (hint.preferred, hint.nodes.len()) {
        (true, len) => (0, len),
        (false, len) if len >= wide => (1, len),
        (false, len) => (2, u32::MAX - len),
    };
    let best = merged.iter().min_by_key(|hint| (rank(hint), hint.nodes)).copied();
    let best = best.unwrap_or(Hint { nodes, preferred: false });
    if policy != TopologyPolicy::BestEffort && !best.preferred {
        return Verdict::Refused;
    }
    Verdict::Admitted((best.nodes != nodes).then_some(best.nodes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(nodes: &[i64]) -> NumaNodes {
        nodes.iter().copied().collect()
    }

    /// Of which nodes each of some devices is.
    type Places<'a> = &'a [&'a [i64]];

    /// What two resources lead to on a machine of two nodes: how many are wanted, and where all and the free ones are.
    fn verdict(policy: TopologyPolicy, resources: &[(usize, Places<'_>, Places<'_>)]) -> Verdict {
        let nodes = set(&[0, 1]);
        let all: Vec<_> = resources
            .iter()
            .map(|(wanted, all, free)| {
                let sets = |devices: &[&[i64]]| devices.iter().map(|one| set(one)).collect::<Vec<_>>();
                let (all, free) = (sets(all), sets(free));
                hints(nodes, &Supply { wanted: *wanted, all: &all, free: &free, reused: &[] })
            })
            .collect();
        merge(policy, nodes, &all)
    }

    #[test]
    fn policies_admit_what_kubernetes_says_they_do() {
        use TopologyPolicy::{BestEffort, None as Any, Restricted, SingleNumaNode};
        let on = |nodes: &[i64]| Verdict::Admitted(Some(set(nodes)));
        let anywhere = Verdict::Admitted(None);
        let four: Places<'_> = &[&[0], &[0], &[1], &[1]];
        let without: Places<'_> = &[&[], &[]];
        for (policy, resources, expected) in [
            // No policy, and no topology.
            (Any, vec![(1, four, four)], anywhere),
            (SingleNumaNode, vec![(2, without, without)], anywhere),
            (Restricted, vec![], anywhere),
            // One device, or two of one node.
            (BestEffort, vec![(1, four, four)], on(&[0])),
            (SingleNumaNode, vec![(2, four, four)], on(&[0])),
            (SingleNumaNode, vec![(2, four, &four[1..])], on(&[1])),
            // Three are never of one node: restricted has nothing against that, single-numa-node has.
            (BestEffort, vec![(3, four, four)], anywhere),
            (Restricted, vec![(3, four, four)], anywhere),
            (SingleNumaNode, vec![(3, four, four)], Verdict::Refused),
            // Two could be of one node, but one of each is another's.
            (BestEffort, vec![(2, four, &four[1..3])], anywhere),
            (Restricted, vec![(2, four, &four[1..3])], Verdict::Refused),
            (SingleNumaNode, vec![(2, four, &four[1..3])], Verdict::Refused),
            // Two resources agree, or cannot.
            (Restricted, vec![(1, four, four), (1, four, &four[2..])], on(&[1])),
            (Restricted, vec![(1, four, &four[..2]), (1, four, &four[2..])], Verdict::Refused),
            (BestEffort, vec![(1, four, &four[..2]), (1, four, &four[2..])], on(&[0])),
            // One without topology does not matter to the other.
            (SingleNumaNode, vec![(1, without, without), (2, four, &four[1..])], on(&[1])),
        ] {
            assert_eq!(verdict(policy, &resources), expected, "{policy:?} {resources:?}");
        }
    }

    #[test]
    fn what_is_used_again_decides_where_the_others_are() {
        let nodes = set(&[0, 1]);
        let four = [set(&[0]), set(&[0]), set(&[1]), set(&[1])];
        let supply = Supply { wanted: 2, all: &four, free: &four, reused: &four[2..3] };
        let hints = vec![hints(nodes, &supply)];
        assert_eq!(merge(TopologyPolicy::Restricted, nodes, &hints), Verdict::Admitted(Some(set(&[1]))));
    }

    #[test]
    fn many_resources_on_many_nodes_are_no_work() {
        let nodes: NumaNodes = (0..8).collect();
        let devices: Vec<NumaNodes> = (0..64).map(|at| set(&[at % 8])).collect();
        let one = || hints(nodes, &Supply { wanted: 9, all: &devices, free: &devices, reused: &[] });
        let all: Vec<_> = (0..32).map(|_| one()).collect();
        assert_eq!(merge(TopologyPolicy::Restricted, nodes, &all), Verdict::Admitted(Some(set(&[0, 1]))));
    }
}
