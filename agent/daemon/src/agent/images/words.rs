//! Times, as Kubernetes' messages have them.

use std::time::Duration;

/// A duration to the millisecond, as Go writes it: `532ms`, `1.2s`, `2m3.004s`.
pub(super) fn go_duration(duration: Duration) -> String {
    let millis = duration.as_millis();
    if millis == 0 {
        return "0s".to_owned();
    }
    if millis < 1000 {
        return format!("{millis}ms");
    }
    let (hours, minutes) = (millis / 3_600_000, millis / 60_000 % 60);
    let seconds = match (millis / 1000 % 60, millis % 1000) {
        (seconds, 0) => format!("{seconds}s"),
        (seconds, rest) => format!("{}s", format!("{seconds}.{rest:03}").trim_end_matches('0')),
    };
    match (hours, minutes) {
        (0, 0) => seconds,
        (0, minutes) => format!("{minutes}m{seconds}"),
        (hours, minutes) => format!("{hours}h{minutes}m{seconds}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_go_writes_them() {
        for (millis, text) in [
            (0, "0s"),
            (7, "7ms"),
            (999, "999ms"),
            (1000, "1s"),
            (1200, "1.2s"),
            (1234, "1.234s"),
            (10_050, "10.05s"),
            (60_000, "1m0s"),
            (123_004, "2m3.004s"),
            (3_600_000, "1h0m0s"),
        ] {
            assert_eq!(go_duration(Duration::from_millis(millis)), text);
        }
    }
}
