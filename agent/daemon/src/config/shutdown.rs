//! The times that pods have when the machine shuts down, as they are written.

use std::time::Duration;

use coracle_shutdown::{GracePeriod, GracePeriods, InvalidPeriods};
use jiff::SignedDuration;
use serde::Deserialize;

use super::{ConfigError, value};

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

/// The times of all ranges of priorities. `origin` names the file beside a field.
pub(super) fn periods(
    all: Option<&str>,
    critical: Option<&str>,
    by_priority: &[Period],
    origin: impl Fn(&str) -> String,
) -> Result<GracePeriods, ConfigError> {
    let parsed = |field: &str, text: Option<&str>| match text.map(duration) {
        None => Ok(Duration::ZERO),
        Some(Ok(parsed)) => Ok(parsed),
        Some(Err(message)) => Err(value(origin(field), text.unwrap_or_default(), &message)),
    };
    let (whole, last) = (parsed(ALL, all)?, parsed(CRITICAL, critical)?);
    if by_priority.is_empty() {
        return GracePeriods::of(whole, last).map_err(|error| {
            let below = |period: Duration| !period.is_zero() && period < Duration::from_secs(1);
            let (field, text) = if below(whole) { (ALL, all) } else { (CRITICAL, critical) };
            value(origin(field), text.unwrap_or_default(), &error.to_string())
        });
    }
    if !whole.is_zero() || !last.is_zero() {
        let (field, text) = if whole.is_zero() { (CRITICAL, critical) } else { (ALL, all) };
        let message = format!("may not be specified together with {BY_PRIORITY}");
        return Err(value(origin(field), text.unwrap_or_default(), &message));
    }
    let mut periods = Vec::with_capacity(by_priority.len());
    for (index, period) in by_priority.iter().enumerate() {
        let field = || origin(&format!("{BY_PRIORITY}[{index}].shutdownGracePeriodSeconds"));
        // What can be added up, and told to logind in microseconds.
        let Ok(seconds) = u32::try_from(period.shutdown_grace_period_seconds) else {
            let message = format!("must be between 0 and {}, inclusive", u32::MAX);
            return Err(value(field(), period.shutdown_grace_period_seconds, &message));
        };
        periods.push(GracePeriod { priority: period.priority, grace: Duration::from_secs(seconds.into()) });
    }
    GracePeriods::by_priority(periods).map_err(|error| match error {
        InvalidPeriods::Duplicate(priority) => value(origin(BY_PRIORITY), priority, "is given twice"),
        error => value(origin(BY_PRIORITY), "", &error.to_string()),
    })
}

/// A duration as Go writes it, which is how `KubeletConfiguration` has them.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let invalid = || "must be a duration such as 30s, 2m or 1h30m, and not negative".to_owned();
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    // Of what else jiff reads, nothing is Go's.
    if !text.chars().all(|one| one.is_ascii_digit() || ".hmsuµn+".contains(one)) {
        return Err(invalid());
    }
    let parsed: SignedDuration = text.parse().map_err(|_| invalid())?;
    Duration::try_from(parsed).map_err(|_| invalid())
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
        periods(all, critical, &by_priority, str::to_owned).map_err(|error| error.to_string())
    }

    #[test]
    fn durations_are_gos() {
        for (text, seconds) in [
            ("0", 0.0),
            ("0s", 0.0),
            ("30s", 30.0),
            ("1m30s", 90.0),
            ("1.5h", 5400.0),
            ("2500ms", 2.5),
            ("1h2m3s", 3723.0),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_secs_f64(seconds)), "{text}");
        }
        for text in ["", "30", "-1s", "PT30S", "30 seconds", "1 h", "s", "1x"] {
            assert!(duration(text).is_err(), "{text}");
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
                "shutdownGracePeriodByPodPriority[1].shutdownGracePeriodSeconds: Invalid value: \"-1\": must be between",
            ),
            (
                "",
                "",
                &[(7, 5), (7, 1)],
                "shutdownGracePeriodByPodPriority: Invalid value: \"7\": is given twice",
            ),
        ] {
            let error = read(all, critical, by_priority).unwrap_err();
            assert!(error.starts_with(expected), "{error:?}, not {expected:?}");
        }
    }
}
