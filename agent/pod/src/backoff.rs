//! How long to wait before something is tried again.
//!
//! Two kinds. A container that ended is restarted as the kubelet does it: at once the first time,
//! then after 10 s, doubling to 5 min, and at once again after a run of 10 min. That delay follows
//! from the restart count alone (and the last long run, kept in the pod's record), so it survives a
//! restart of the agent. A step that failed is tried again with a jittered delay kept in memory.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use crate::age::Age;
use crate::ports::{Observed, ObservedContainer};

/// The first delay of a crash loop, and of an image that cannot be had.
const INITIAL: Duration = Duration::from_secs(10);
/// The longest delay of either.
const LONGEST: Duration = Duration::from_secs(300);
/// A run of this length ends a crash loop.
const RESET: Duration = Duration::from_secs(600);

/// The delays of a failing step: the first, doubling up to the second.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Schedule {
    first: Duration,
    longest: Duration,
}

/// For images, as the kubelet delays pulls.
pub(crate) const IMAGE: Schedule = Schedule { first: INITIAL, longest: LONGEST };
/// For everything that is local to the node.
pub(crate) const STEP: Schedule =
    Schedule { first: Duration::from_secs(1), longest: Duration::from_secs(60) };

/// The back-off a container that ended is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CrashLoop {
    /// The whole delay, as users are shown it.
    pub(crate) delay: Duration,
    /// What is left of it.
    pub(crate) remaining: Duration,
}

impl Schedule {
    /// The delay after so many failures in a row (1 or more), lengthened by up to a fifth so that many
    /// pods that failed together do not come back together.
    pub(crate) fn delay(self, failures: u32) -> Duration {
        let delay = doubled(self.first, failures.saturating_sub(1), self.longest);
        // Every RandomState has keys of its own: a random number without a generator to keep.
        let random = RandomState::new().hash_one(failures) % 1024;
        delay + delay / 5 * u32::try_from(random).unwrap_or(0) / 1024
    }
}

/// The back-off of a container that ended and is to be started again; `None` when it may start now.
pub(crate) fn crash_loop(
    dead: &ObservedContainer,
    age: Age,
    streak_base: &BTreeMap<String, u32>,
) -> Option<CrashLoop> {
    if dead.is_live() {
        return None;
    }
    let base = streak_base.get(&dead.name).copied().unwrap_or(0);
    let base = if age.run >= RESET { dead.attempt } else { base };
    let delay = crash_delay(dead.attempt.saturating_sub(base).saturating_add(1));
    let remaining = delay.checked_sub(age.ended).filter(|left| !left.is_zero())?;
    Some(CrashLoop { delay, remaining })
}

/// Notes which containers ended after a run long enough to end a crash loop. Whether any did.
pub(crate) fn note_long_runs(
    observed: &Observed,
    age: impl Fn(&ObservedContainer) -> Age,
    streak_base: &mut BTreeMap<String, u32>,
) -> bool {
    let mut changed = false;
    let was_long = |container: &&ObservedContainer| !container.is_live() && age(container).run >= RESET;
    for container in observed.containers.iter().filter(was_long) {
        if streak_base.get(&container.name).is_none_or(|base| *base < container.attempt) {
            streak_base.insert(container.name.clone(), container.attempt);
            changed = true;
        }
    }
    changed
}

/// The delay before the start that follows this many short runs in a row.
fn crash_delay(streak: u32) -> Duration {
    match streak.checked_sub(2) {
        None => Duration::ZERO,
        Some(doublings) => doubled(INITIAL, doublings, LONGEST),
    }
}

fn doubled(first: Duration, doublings: u32, longest: Duration) -> Duration {
    let factor = 2u32.saturating_pow(doublings);
    first.checked_mul(factor).unwrap_or(longest).min(longest)
}

/// A duration as Go writes it and Kubernetes' messages carry it: `10s`, `2m40s`, `5m0s`.
pub(crate) fn go_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds}s"),
        (0, minutes, seconds) => format!("{minutes}m{seconds}s"),
        (hours, minutes, seconds) => format!("{hours}h{minutes}m{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::values::exited;

    /// Ran so many seconds, and ended so many ago.
    fn age(run: u64, ended: u64) -> Age {
        Age { run: Duration::from_secs(run), ended: Duration::from_secs(ended) }
    }

    #[test]
    fn crash_loops_double_from_ten_seconds_to_five_minutes() {
        let delays: Vec<u64> =
            (1..=9).chain([u32::MAX]).map(|streak| crash_delay(streak).as_secs()).collect();
        assert_eq!(delays, [0, 10, 20, 40, 80, 160, 300, 300, 300, 300]);
    }

    #[test]
    fn the_delay_counts_from_the_end_of_the_last_run() {
        let none = BTreeMap::new();
        let dead = exited("web", 2, 1);
        assert_eq!(
            crash_loop(&dead, age(1, 5), &none),
            Some(CrashLoop { delay: Duration::from_secs(20), remaining: Duration::from_secs(15) })
        );
        assert_eq!(crash_loop(&dead, age(1, 20), &none), None);
        assert_eq!(crash_loop(&exited("web", 0, 1), age(1, 0), &none), None);
    }

    #[test]
    fn a_long_run_ends_the_loop_also_after_a_restart_of_the_agent() {
        let mut base = BTreeMap::new();
        let long = exited("web", 7, 1);
        assert_eq!(crash_loop(&long, age(600, 0), &base), None);
        let observed = Observed { containers: vec![long], ..Observed::default() };
        assert!(!note_long_runs(&observed, |_| age(599, 0), &mut base));
        assert!(note_long_runs(&observed, |_| age(600, 0), &mut base));
        assert!(!note_long_runs(&observed, |_| age(600, 0), &mut base), "noted once");
        let next = exited("web", 8, 1);
        assert_eq!(crash_loop(&next, age(1, 0), &base).map(|back_off| back_off.delay.as_secs()), Some(10));
    }

    #[test]
    fn steps_are_jittered_within_a_fifth() {
        for failures in [1, 2, 3, 50, u32::MAX] {
            let plain = doubled(STEP.first, failures - 1, STEP.longest);
            let delay = STEP.delay(failures);
            assert!(delay >= plain && delay <= plain + plain / 5, "{failures}: {delay:?}");
        }
    }

    #[test]
    fn durations_as_go_writes_them() {
        let texts = [10, 80, 300, 3600].map(|seconds| go_duration(Duration::from_secs(seconds)));
        assert_eq!(texts, ["10s", "1m20s", "5m0s", "1h0m0s"]);
    }
}
