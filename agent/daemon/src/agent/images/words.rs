//! Times, as Kubernetes' messages have them.

use std::time::Duration;

use crate::duration::go_text;

/// A duration to the millisecond, as Go writes it: `532ms`, `1.2s`, `2m3.004s`.
pub(super) fn go_duration(duration: Duration) -> String {
    let whole_milliseconds = Duration::new(duration.as_secs(), duration.subsec_millis() * 1_000_000);
    go_text(whole_milliseconds)
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
