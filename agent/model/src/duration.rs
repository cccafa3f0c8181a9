//! Durations in Go's words, which is how Kubernetes' configurations have them.

use std::time::Duration;

/// The units of Go's durations, in nanoseconds. Those that others begin with come after them.
const UNITS: [(&str, u64); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("\u{b5}s", 1_000),
    ("\u{3bc}s", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// Reads a duration as Go's `time.ParseDuration` does: `1h2m3.5s`. A negative one is none.
pub fn go_duration(text: &str) -> Option<Duration> {
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Some(Duration::ZERO);
    }
    if rest.is_empty() {
        return None;
    }
    let mut nanoseconds = 0_u64;
    while !rest.is_empty() {
        let number = rest.find(|c: char| !c.is_ascii_digit() && c != '.').filter(|length| *length > 0)?;
        let (number, with_unit) = rest.split_at(number);
        let (unit, of) = UNITS.into_iter().find(|(unit, _)| with_unit.starts_with(unit))?;
        nanoseconds = nanoseconds.checked_add(times(number, of)?)?;
        rest = with_unit.get(unit.len()..)?;
    }
    Some(Duration::from_nanos(nanoseconds))
}

/// A decimal number of units, in nanoseconds, rounded down.
fn times(number: &str, unit: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() || fraction.contains('.') {
        return None;
    }
    let mut nanoseconds = if whole.is_empty() { 0 } else { whole.parse::<u64>().ok()?.checked_mul(unit)? };
    let mut scale = unit;
    for digit in fraction.chars() {
        scale /= 10;
        nanoseconds = nanoseconds.checked_add(u64::from(digit.to_digit(10)?) * scale)?;
    }
    Some(nanoseconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_gos() {
        for (text, milliseconds) in [
            ("0", Some(0)),
            ("0s", Some(0)),
            ("20s", Some(20_000)),
            ("+1.5s", Some(1500)),
            (".5m", Some(30_000)),
            ("1h2m3s4ms", Some(3_723_004)),
            ("1500us", Some(1)),
            ("2000\u{b5}s", Some(2)),
            ("", None),
            ("20", None),
            ("s", None),
            (".s", None),
            ("1.2.3s", None),
            ("1d", None),
            ("-1s", None),
            ("1 s", None),
            ("99999999999h", None),
        ] {
            assert_eq!(go_duration(text).map(|found| found.as_millis()), milliseconds, "{text}");
        }
    }
}
