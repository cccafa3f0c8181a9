//! The times that pods have when the machine shuts down, as they are written.

use std::time::Duration;

use coracle_model::go_duration;
use coracle_shutdown::{GracePeriod, GracePeriods};
use serde::Deserialize;

use super::problems::{Giver, Problems};

const ALL: &str = "shutdownGracePeriod";
const CRITICAL: &str = "shutdownGracePeriodCriticalPods";
const BY_PRIORITY: &str = "shutdownGracePeriodByPodPriority";

/// `shutdownGracePeriodByPodPriority[]`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct Period {
    priority: i32,
    shutdown_grace_period_seconds: i64,
}

/// The times of all ranges of priorities.
pub(super) fn periods(
    all: Option<&str>,
    critical: Option<&str>,
    by_priority: &[Period],
    problems: &mut Problems,
) -> GracePeriods {
    let (whole, last) = (duration(ALL, all, problems), duration(CRITICAL, critical, problems));
    // What is no duration was said, and makes nothing else wrong.
    let (Some(whole), Some(last)) = (whole, last) else { return GracePeriods::default() };
    if by_priority.is_empty() {
        return GracePeriods::of(whole, last).unwrap_or_else(|error| {
            let below = |period: Duration| !period.is_zero() && period < Duration::from_secs(1);
            let (field, text) = if below(whole) { (ALL, all) } else { (CRITICAL, critical) };
            problems.invalid(&Giver::field(field), text.unwrap_or_default(), error);
            GracePeriods::default()
        });
    }
    if !whole.is_zero() || !last.is_zero() {
        let (field, text) = if whole.is_zero() { (CRITICAL, critical) } else { (ALL, all) };
        let message = format!("may not be specified together with {BY_PRIORITY}");
        problems.invalid(&Giver::field(field), text.unwrap_or_default(), message);
    }
    let list = Giver::field(BY_PRIORITY);
    let mut periods: Vec<GracePeriod> = Vec::with_capacity(by_priority.len());
    for (index, period) in by_priority.iter().enumerate() {
        let item = list.item(index);
        // What can be added up, and told to logind in microseconds.
        let Ok(seconds) = u32::try_from(period.shutdown_grace_period_seconds) else {
            let message = format!("must be between 0 and {}, inclusive", u32::MAX);
            let seconds = item.child("shutdownGracePeriodSeconds");
            problems.invalid_number(&seconds, period.shutdown_grace_period_seconds, message);
            continue;
        };
        if periods.iter().any(|other| other.priority == period.priority) {
            problems.say(&item.child("priority"), format!("Duplicate value: {}", period.priority));
            continue;
        }
        periods.push(GracePeriod { priority: period.priority, grace: Duration::from_secs(seconds.into()) });
    }
    GracePeriods::by_priority(periods).unwrap_or_else(|error| {
        problems.say(&list, error.to_string());
        GracePeriods::default()
    })
}

/// A duration that may be none; `None` where it is wrong.
pub(super) fn duration(field: &str, text: Option<&str>, problems: &mut Problems) -> Option<Duration> {
    let Some(text) = text else { return Some(Duration::ZERO) };
    let parsed = go_duration(text);
    if parsed.is_none() {
        let message = "must be a duration such as 30s, 2m or 1h30m, and not negative";
        problems.invalid(&Giver::field(field), text, message);
    }
    parsed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(all: &str, critical: &str, by_priority: &[(i32, i64)]) -> Result<GracePeriods, String> {
        let by_priority: Vec<_> = by_priority
            .iter()
            .map(|(priority, seconds)| Period {
                priority: *priority,
                shutdown_grace_period_seconds: *seconds,
            })
            .collect();
        let text = |text: &'static str| Some(text).filter(|text| !text.is_empty());
        let (all, critical) = (text(all.to_owned().leak()), text(critical.to_owned().leak()));
        let mut problems = Problems::default();
        let periods = periods(all, critical, &by_priority, &mut problems);
        match problems.faults.0.into_iter().next() {
            Some(fault) => Err(format!("{}: {}", fault.path, fault.message)),
            None => Ok(periods),
        }
    }

    #[test]
    fn times_are_the_kubelets_and_exclude_each_other() {
        assert!(read("", "", &[]).unwrap().is_empty());
        assert!(read("0s", "0s", &[]).unwrap().is_empty());
        assert_eq!(read("30s", "10s", &[]).unwrap().total(), Duration::from_secs(30));
        assert_eq!(read("", "", &[(0, 5), (1000, 0)]).unwrap().total(), Duration::from_secs(5));
        assert_eq!(read("0", "", &[(0, 5)]).unwrap().total(), Duration::from_secs(5));
        for (all, critical, by_priority, expected) in [
            (
                "10s",
                "11s",
                &[][..],
                "shutdownGracePeriodCriticalPods: Invalid value: \"11s\": shutdownGracePeriodCriticalPods must be <= shutdownGracePeriod",
            ),
            (
                "500ms",
                "",
                &[],
                "shutdownGracePeriod: Invalid value: \"500ms\": must be either zero or otherwise >= 1 sec",
            ),
            (
                "10s",
                "1ms",
                &[],
                "shutdownGracePeriodCriticalPods: Invalid value: \"1ms\": must be either zero",
            ),
            ("ten", "", &[], "shutdownGracePeriod: Invalid value: \"ten\": must be a duration such as 30s"),
            (
                "10s",
                "",
                &[(0, 5)],
                "shutdownGracePeriod: Invalid value: \"10s\": may not be specified together with shutdownGracePeriodByPodPriority",
            ),
            (
                "",
                "",
                &[(0, 5), (1, -1)],
                "shutdownGracePeriodByPodPriority[1].shutdownGracePeriodSeconds: Invalid value: -1: must be between",
            ),
            ("", "", &[(7, 5), (7, 1)], "shutdownGracePeriodByPodPriority[1].priority: Duplicate value: 7"),
        ] {
            let error = read(all, critical, by_priority).unwrap_err();
            assert!(error.starts_with(expected), "{error:?}, not {expected:?}");
        }
    }
}
