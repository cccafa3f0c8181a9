//! Properties of units.

use std::os::fd::{AsFd, OwnedFd};

use zbus::zvariant::{Fd, Value};

/// A property of a unit that is given to it, by the name it has on the bus.
///
/// Where a setting has another name in unit files (`CPUQuota=`), systemd.resource-control(5) and systemd.kill(5) say
/// what it means.
#[derive(Debug)]
pub enum Property {
    /// A text.
    Text(&'static str, String),
    /// Several of them: units, for instance.
    Texts(&'static str, Vec<String>),
    /// Yes or no.
    Flag(&'static str, bool),
    /// A number, `u64::MAX` for no limit. Times are in microseconds.
    Number(&'static str, u64),
    /// What only newer versions of systemd have, and older ones can be without.
    IfKnown(Box<Property>),
    /// The process a scope begins with: the process itself, and its number for a systemd that is not given processes by
    /// descriptor. That must be the host's number of it: `None` where it is not known.
    Process(OwnedFd, Option<u32>),
}

/// The properties as they are said.
pub(crate) type Said<'a> = Vec<(&'a str, Value<'a>)>;

/// The name of the processes of a scope as descriptors.
pub(crate) const PIDFDS: &str = "PIDFDs";

// === impl Property ===

impl Property {
    /// As it is said to a systemd that does not know these properties; `None` where it cannot be, and can be without.
    pub(crate) fn say(&self, unknown: &[String]) -> Option<(&str, Value<'_>)> {
        match self {
            Self::Text(name, text) => Some((*name, Value::from(text.as_str()))),
            Self::Texts(name, texts) => Some((*name, Value::from(texts))),
            Self::Flag(name, flag) => Some((*name, Value::from(*flag))),
            Self::Number(name, number) => Some((*name, Value::from(*number))),
            Self::IfKnown(property) => {
                property.say(unknown).filter(|(name, _)| !unknown.iter().any(|other| other == name))
            }
            Self::Process(_, Some(pid)) if unknown.iter().any(|name| name == PIDFDS) => {
                Some(("PIDs", Value::from(vec![*pid])))
            }
            Self::Process(process, _) => Some((PIDFDS, Value::from(vec![Fd::from(process.as_fd())]))),
        }
    }

    /// The name, if it can be left out or said otherwise.
    pub(crate) fn dispensable(&self) -> Option<&str> {
        match self {
            Self::IfKnown(property) => property.say(&[]).map(|(name, _)| name),
            Self::Process(_, Some(_)) => Some(PIDFDS),
            _ => None,
        }
    }
}
