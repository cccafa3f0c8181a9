//! Signals, as images and specifications name them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A signal by its Linux number, 1 to 64.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signal(i32);

/// No signal of that name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown stop signal {0:?}: give a name such as SIGTERM or SIGRTMIN+3, or a number from 1 to 64")]
pub struct UnknownSignal(String);

/// Linux numbers on x86_64 and aarch64, where they are the same.
const NAMES: [(&str, i32); 34] = [
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ILL", 4),
    ("TRAP", 5),
    ("ABRT", 6),
    ("IOT", 6),
    ("BUS", 7),
    ("FPE", 8),
    ("KILL", 9),
    ("USR1", 10),
    ("SEGV", 11),
    ("USR2", 12),
    ("PIPE", 13),
    ("ALRM", 14),
    ("TERM", 15),
    ("STKFLT", 16),
    ("CHLD", 17),
    ("CLD", 17),
    ("CONT", 18),
    ("STOP", 19),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("URG", 23),
    ("XCPU", 24),
    ("XFSZ", 25),
    ("VTALRM", 26),
    ("PROF", 27),
    ("WINCH", 28),
    ("IO", 29),
    ("POLL", 29),
    ("PWR", 30),
    ("SYS", 31),
];
const RTMIN: i32 = 34;
const RTMAX: i32 = 64;

// === impl Signal ===

impl Signal {
    /// SIGTERM: what asks a container to end that names no other signal.
    pub const TERM: Self = Self(15);

    /// The signal that `lifecycle.stopSignal` names: Kubernetes takes one spelling of each of 65 names. Of the
    /// real-time signals, the lower 16 count from SIGRTMIN and the others from SIGRTMAX.
    pub fn from_kubernetes(name: &str) -> Option<Self> {
        let signal: Self = name.parse().ok()?;
        let rest = name.strip_prefix("SIG")?;
        let known = match rest.strip_prefix("RTM") {
            None => NAMES.iter().any(|(known, _)| *known == rest),
            Some(_) => real_time(signal.0).as_deref() == Some(rest),
        };
        known.then_some(signal)
    }

    /// The signal of this Linux number, if there is one.
    pub fn from_number(number: i32) -> Option<Self> {
        (1..=RTMAX).contains(&number).then_some(Self(number))
    }

    /// The number.
    pub fn number(self) -> i32 {
        self.0
    }
}

/// As the API names it: `SIGTERM`, `SIGRTMIN+3`, `SIGRTMAX-1`.
impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Of two names the first is the usual one.
        if let Some((name, _)) = NAMES.iter().find(|(_, number)| *number == self.0) {
            return write!(f, "SIG{name}");
        }
        match real_time(self.0) {
            Some(name) => write!(f, "SIG{name}"),
            // What the C library keeps for itself has no name.
            None => write!(f, "{}", self.0),
        }
    }
}

/// Reads a signal given as `SIGTERM`, `term`, `15`, `SIGRTMIN+3` or `RTMAX-1`.
impl FromStr for Signal {
    type Err = UnknownSignal;

    fn from_str(text: &str) -> Result<Self, UnknownSignal> {
        number(text).map(Self).ok_or_else(|| UnknownSignal(text.to_owned()))
    }
}

/// The API's name of a real-time signal, without `SIG`.
fn real_time(number: i32) -> Option<String> {
    match (number - RTMIN, RTMAX - number) {
        (0, _) => Some("RTMIN".to_owned()),
        (_, 0) => Some("RTMAX".to_owned()),
        (above @ 1..=15, _) => Some(format!("RTMIN+{above}")),
        (_, below @ 1..=14) => Some(format!("RTMAX-{below}")),
        _ => None,
    }
}

fn number(text: &str) -> Option<i32> {
    if let Ok(number) = text.parse::<i32>() {
        return Signal::from_number(number).map(Signal::number);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some((_, number)) = NAMES.iter().find(|(known, _)| *known == name) {
        return Some(*number);
    }
    let offset = |text: &str, sign: char| match text.strip_prefix(sign) {
        None if text.is_empty() => Some(0),
        None => None,
        Some(digits) => digits.parse::<i32>().ok(),
    };
    let number = if let Some(rest) = name.strip_prefix("RTMIN") {
        RTMIN.checked_add(offset(rest, '+')?)
    } else {
        RTMAX.checked_sub(offset(name.strip_prefix("RTMAX")?, '-')?)
    };
    number.filter(|number| (RTMIN..=RTMAX).contains(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        for (text, number) in [
            ("SIGTERM", 15),
            ("term", 15),
            ("9", 9),
            ("SIGRTMIN+3", 37),
            ("RTMIN", 34),
            ("SIGRTMAX-1", 63),
            ("SIGQUIT", 3),
        ] {
            assert_eq!(text.parse(), Ok(Signal(number)), "{text}");
        }
        for signal in (1..=RTMAX).filter_map(Signal::from_number) {
            assert_eq!(signal.to_string().parse(), Ok(signal), "{signal}");
        }
        let names = [6, 29, 33, 34, 37, 49, 50, 64].map(|number| Signal(number).to_string());
        let expected = "SIGABRT SIGIO 33 SIGRTMIN SIGRTMIN+3 SIGRTMIN+15 SIGRTMAX-14 SIGRTMAX";
        assert_eq!(names.join(" "), expected);
        for text in ["", "SIG", "0", "65", "-1", "SIGRTMIN+31", "SIGRTMAX-99", "SIGFOO", "RTMIN+x"] {
            assert!(text.parse::<Signal>().is_err(), "{text}");
        }
    }

    #[test]
    fn kubernetes_has_65_names() {
        let named = NAMES.iter().map(|(name, _)| format!("SIG{name}"));
        let above = (0..=15).map(|n| if n == 0 { "SIGRTMIN".to_owned() } else { format!("SIGRTMIN+{n}") });
        let below = (0..=14).map(|n| if n == 0 { "SIGRTMAX".to_owned() } else { format!("SIGRTMAX-{n}") });
        let all: Vec<_> = named.chain(above).chain(below).collect();
        assert_eq!(all.len(), 65);
        for name in all {
            assert_eq!(Signal::from_kubernetes(&name), name.parse().ok(), "{name}");
        }
        for other in ["TERM", "sigterm", "15", "SIGRTMIN+16", "SIGRTMAX-15", "SIGRTMIN+0", "SIGRTMIN+03", ""]
        {
            assert_eq!(Signal::from_kubernetes(other), None, "{other}");
        }
    }
}
