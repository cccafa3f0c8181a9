//! Sets of NUMA nodes.

use std::fs;

/// A set of NUMA nodes. Of those beyond 63 nothing is known here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NumaNodes(u64);

/// Where the kernel says which nodes are there, as `0-1,4`.
const ONLINE: &str = "/sys/devices/system/node/online";

// === impl NumaNodes ===

impl NumaNodes {
    /// No node.
    pub const NONE: Self = Self(0);

    /// This machine's; node 0 alone where the kernel knows of none.
    pub fn of_this_machine() -> Self {
        let online = fs::read_to_string(ONLINE).unwrap_or_default();
        let mut nodes = Self::default();
        for range in online.trim().split(',') {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            if let (Ok(first), Ok(last)) = (first.parse::<i64>(), last.parse::<i64>()) {
                nodes = (first..=last.min(63)).fold(nodes, Self::with);
            }
        }
        if nodes.is_empty() { nodes.with(0) } else { nodes }
    }

    /// With one more node. One of no number that a node can have is left out.
    pub fn with(self, node: i64) -> Self {
        match u32::try_from(node).ok().and_then(|node| 1_u64.checked_shl(node)) {
            Some(bit) => Self(self.0 | bit),
            None => self,
        }
    }

    /// How many.
    pub fn len(self) -> u32 {
        self.0.count_ones()
    }

    /// Whether there is none in it.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The nodes of both.
    pub fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Whether the two have a node in common.
    pub fn meets(self, other: Self) -> bool {
        !self.and(other).is_empty()
    }

    /// The numbers of its nodes, in order.
    pub fn iter(self) -> impl Iterator<Item = u32> {
        (0..64).filter(move |node| self.0 >> node & 1 == 1)
    }

    /// Every subset with a node in it.
    pub(crate) fn subsets(self) -> impl Iterator<Item = Self> {
        // The next smaller subset of a mask is what borrows from the bits of it alone.
        let all = self.0;
        std::iter::successors(Some(all), move |subset| Some(subset.wrapping_sub(1) & all))
            .take_while(|subset| *subset != 0)
            .map(Self)
    }
}

impl FromIterator<i64> for NumaNodes {
    fn from_iter<I: IntoIterator<Item = i64>>(nodes: I) -> Self {
        nodes.into_iter().fold(Self::default(), Self::with)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_hold_what_is_put_into_them() {
        let nodes: NumaNodes = [0, 2, 63, 64, -1].into_iter().collect();
        assert_eq!(nodes.iter().collect::<Vec<_>>(), [0, 2, 63]);
        let subsets: Vec<_> = [1, 3].into_iter().collect::<NumaNodes>().subsets().map(|one| one.0).collect();
        assert_eq!(subsets, [0b1010, 0b1000, 0b0010]);
        assert_eq!(NumaNodes::default().subsets().count(), 0);
        assert!(!NumaNodes::of_this_machine().is_empty());
    }
}
