//! Durations, as Kubernetes writes them.

use std::time::Duration;

/// The text that Go makes of a duration: `2m0s`, `1h0m0s`, `1.5s`, `250ms`. What is read of it is the same duration.
pub(crate) fn go_text(duration: Duration) -> String {
    let nanoseconds = duration.as_nanos();
    // Go leaves trailing zeros of a fraction out.
    let decimal = |amount: u128, unit: u128, name: &str| {
        let digits = unit.ilog10() as usize;
        let fraction = format!("{:0digits$}", amount % unit);
        let fraction = if digits == 0 { "" } else { fraction.trim_end_matches('0') };
        let dot = if fraction.is_empty() { "" } else { "." };
        format!("{}{dot}{fraction}{name}", amount / unit)
    };
    match nanoseconds {
        0 => "0s".to_owned(),
        1..1_000 => format!("{nanoseconds}ns"),
        1_000..1_000_000 => decimal(nanoseconds, 1_000, "µs"),
        1_000_000..1_000_000_000 => decimal(nanoseconds, 1_000_000, "ms"),
        _ => {
            let (minutes, rest) = (nanoseconds / 60_000_000_000, nanoseconds % 60_000_000_000);
            let seconds = decimal(rest, 1_000_000_000, "s");
            match (minutes / 60, minutes % 60) {
                (0, 0) => seconds,
                (0, minutes) => format!("{minutes}m{seconds}"),
                (hours, minutes) => format!("{hours}h{minutes}m{seconds}"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use coracle_model::go_duration;

    use super::*;

    #[test]
    fn it_is_written_as_go_does_and_read_again() {
        for (nanoseconds, text) in [
            (0, "0s"),
            (7, "7ns"),
            (1_500, "1.5µs"),
            (250_000_000, "250ms"),
            (1_500_000_000, "1.5s"),
            (60_000_000_000, "1m0s"),
            (61_000_000_001, "1m1.000000001s"),
            (3_600_000_000_000, "1h0m0s"),
        ] {
            let duration = Duration::from_nanos(nanoseconds);
            assert_eq!(go_text(duration), text);
            assert_eq!(go_duration(text), Some(duration), "{text}");
        }
    }
}
