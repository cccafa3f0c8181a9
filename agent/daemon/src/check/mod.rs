//! What a host must have, and what it had better have. Nothing is changed but in a directory of its own,
//! which is removed again.

mod devices;
mod host;
mod images;
mod kernel;
mod network;
mod storage;

pub(crate) use self::network::dropped_by_others;

use serde::Serialize;

use crate::config::Config;

/// What was found of one thing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    /// The thing.
    pub(crate) name: String,
    pub(crate) severity: Severity,
    /// What is there.
    pub(crate) found: String,
    /// What does not work, or works less well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) effect: Option<String>,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) remedy: Option<String>,
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Severity {
    /// As it should be.
    Ok,
    /// Pods run, with less.
    Weaker,
    /// No pod can run.
    Missing,
}

/// Everything that is checked, in the order it is best read.
pub(crate) fn run(config: &Config) -> Vec<Finding> {
    [
        kernel::check(),
        host::cgroups(config),
        storage::check(config),
        network::check(config),
        images::check(config),
        devices::check(config),
        host::check(),
    ]
    .concat()
}

// === impl Finding ===

impl Finding {
    pub(crate) fn ok(name: &str, found: impl Into<String>) -> Self {
        Self {
            name: name.to_owned(),
            severity: Severity::Ok,
            found: found.into(),
            effect: None,
            remedy: None,
        }
    }

    pub(crate) fn weaker(name: &str, found: impl Into<String>, effect: &str, remedy: &str) -> Self {
        Self {
            severity: Severity::Weaker,
            effect: Some(effect.to_owned()),
            remedy: Some(remedy.to_owned()),
            ..Self::ok(name, found)
        }
    }

    pub(crate) fn missing(name: &str, found: impl Into<String>, remedy: &str) -> Self {
        Self { severity: Severity::Missing, remedy: Some(remedy.to_owned()), ..Self::ok(name, found) }
    }
}
