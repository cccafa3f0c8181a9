//! Which pods end when: a function of values, by the rules of the kubelet's node shutdown manager.

use std::time::Duration;

/// `system-cluster-critical`, from which on pods are critical: the kubelet's `SystemCriticalPriority`.
const CRITICAL: i32 = 2_000_000_000;
/// Of pods without a priority class.
const DEFAULT: i32 = 0;

/// The time pods of a range of priorities have: `shutdownGracePeriodByPodPriority[]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GracePeriod {
    /// The least priority of the range, which goes up to the next one's.
    pub priority: i32,
    /// What its pods have together. Whole seconds.
    pub grace: Duration,
}

/// The times of all ranges, by ascending priority. None: pods are not ended with the machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GracePeriods(Vec<GracePeriod>);

/// Pods that end together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group<T> {
    /// Of which range they are, and what they have.
    pub period: GracePeriod,
    /// The pods, in the order in which they were given.
    pub pods: Vec<T>,
}

/// Times that cannot be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPeriods {
    /// Critical pods are to have more than all of them.
    #[error("shutdownGracePeriodCriticalPods must be <= shutdownGracePeriod")]
    CriticalExceedsAll,
    /// Less than a second, and not none at all.
    #[error("must be either zero or otherwise >= 1 sec")]
    BelowOneSecond,
    /// Two ranges begin with the same priority.
    #[error("priority {0} is given twice")]
    Duplicate(i32),
}

// === impl GracePeriods ===

impl GracePeriods {
    /// `shutdownGracePeriod`, of which the last part, `shutdownGracePeriodCriticalPods`, is the critical pods'. As in
    /// the kubelet, parts of seconds count for nothing.
    ///
    /// # Errors
    /// [`InvalidPeriods::CriticalExceedsAll`], [`InvalidPeriods::BelowOneSecond`].
    pub fn of(all: Duration, critical: Duration) -> Result<Self, InvalidPeriods> {
        let second = Duration::from_secs(1);
        if [all, critical].into_iter().any(|period| !period.is_zero() && period < second) {
            return Err(InvalidPeriods::BelowOneSecond);
        }
        let others = all.checked_sub(critical).ok_or(InvalidPeriods::CriticalExceedsAll)?;
        if all.is_zero() {
            return Ok(Self::default());
        }
        let period = |priority, grace: Duration| GracePeriod { priority, grace: whole(grace) };
        Ok(Self(vec![period(DEFAULT, others), period(CRITICAL, critical)]))
    }

    /// `shutdownGracePeriodByPodPriority`, in whatever order.
    ///
    /// # Errors
    /// [`InvalidPeriods::Duplicate`].
    pub fn by_priority(periods: impl IntoIterator<Item = GracePeriod>) -> Result<Self, InvalidPeriods> {
        let mut periods: Vec<_> = periods.into_iter().collect();
        periods.sort_by_key(|period| period.priority);
        match periods.windows(2).find(|pair| pair[0].priority == pair[1].priority) {
            Some(pair) => Err(InvalidPeriods::Duplicate(pair[0].priority)),
            None => Ok(Self(periods)),
        }
    }

    /// Whether pods are not ended with the machine at all.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// For how long the machine's shutdown is delayed at most.
    pub fn total(&self) -> Duration {
        self.0.iter().fold(Duration::ZERO, |sum, period| sum.saturating_add(period.grace))
    }

    /// The pods that end together, given with their priorities; the groups in the order in which their turn comes,
    /// without those that nobody is in. A pod is of the highest range that begins at or below its priority; below
    /// the lowest, of that.
    pub fn groups<T>(&self, pods: impl IntoIterator<Item = (i32, T)>) -> Vec<Group<T>> {
        let mut groups: Vec<_> =
            self.0.iter().map(|period| Group { period: *period, pods: Vec::new() }).collect();
        for (priority, pod) in pods {
            let above = self.0.partition_point(|period| period.priority <= priority);
            if let Some(group) = groups.get_mut(above.saturating_sub(1)) {
                group.pods.push(pod);
            }
        }
        groups.retain(|group| !group.pods.is_empty());
        groups
    }
}

fn whole(period: Duration) -> Duration {
    Duration::from_secs(period.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn periods(all: &[(i32, u64)]) -> Vec<GracePeriod> {
        all.iter()
            .map(|(priority, grace)| GracePeriod { priority: *priority, grace: seconds(*grace) })
            .collect()
    }

    #[test]
    fn two_times_make_two_ranges() {
        for (all, critical, expected) in [
            (0, 0, vec![]),
            (30, 10, vec![(0, 20), (CRITICAL, 10)]),
            (30, 0, vec![(0, 30), (CRITICAL, 0)]),
            (30, 30, vec![(0, 0), (CRITICAL, 30)]),
        ] {
            let made = GracePeriods::of(seconds(all), seconds(critical)).unwrap();
            assert_eq!(made.0, periods(&expected), "{all} {critical}");
            assert_eq!(made.is_empty(), all == 0);
            assert_eq!(made.total(), seconds(all));
        }
        let made = GracePeriods::of(Duration::from_millis(30_500), Duration::from_millis(10_900)).unwrap();
        assert_eq!(made.0, periods(&[(0, 19), (CRITICAL, 10)]));
    }

    #[test]
    fn times_that_cannot_be_kept_are_refused() {
        use InvalidPeriods::{BelowOneSecond, CriticalExceedsAll, Duplicate};
        let half = Duration::from_millis(500);
        for (all, critical, expected) in [
            (seconds(10), seconds(11), CriticalExceedsAll),
            (seconds(0), seconds(1), CriticalExceedsAll),
            (half, seconds(0), BelowOneSecond),
            (seconds(1), half, BelowOneSecond),
        ] {
            assert_eq!(GracePeriods::of(all, critical), Err(expected), "{all:?} {critical:?}");
        }
        assert_eq!(GracePeriods::by_priority(periods(&[(5, 1), (0, 1), (5, 2)])), Err(Duplicate(5)));
    }

    #[test]
    fn a_pod_is_of_the_range_its_priority_lies_in() {
        let three = [(100_000, 10), (0, 120), (10_000, 180)];
        let two = [(0, 20), (CRITICAL, 10)];
        let one = [(1000, 60)];
        for (ranges, priorities, expected) in [
            // As in Kubernetes' documentation of priority-based graceful node shutdown.
            (
                &three[..],
                vec![0, 9_999, 10_000, 99_999, 100_000, i32::MAX],
                vec![(0, vec![0, 9_999]), (10_000, vec![10_000, 99_999]), (100_000, vec![100_000, i32::MAX])],
            ),
            (&three, vec![-1, i32::MIN], vec![(0, vec![-1, i32::MIN])]),
            (&three, vec![50_000, -5, 20_000], vec![(0, vec![-5]), (10_000, vec![50_000, 20_000])]),
            (&three, vec![], vec![]),
            (
                &two,
                vec![CRITICAL + 1000, 0, CRITICAL - 1],
                vec![(0, vec![0, CRITICAL - 1]), (CRITICAL, vec![CRITICAL + 1000])],
            ),
            (&one, vec![5, 5000], vec![(1000, vec![5, 5000])]),
            (&[], vec![1, 2], vec![]),
        ] {
            let made = GracePeriods::by_priority(periods(ranges)).unwrap();
            let groups = made.groups(priorities.iter().map(|priority| (*priority, *priority)));
            let seen: Vec<_> = groups.into_iter().map(|group| (group.period.priority, group.pods)).collect();
            assert_eq!(seen, expected, "{ranges:?} {priorities:?}");
        }
        let made = GracePeriods::by_priority(periods(&three)).unwrap();
        let groups = made.groups([(20_000, ()), (0, ())]);
        assert_eq!(groups.iter().map(|group| group.period.grace.as_secs()).collect::<Vec<_>>(), [120, 180]);
        assert_eq!(made.total(), seconds(310));
    }
}
