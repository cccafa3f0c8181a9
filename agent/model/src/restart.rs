//! When a container that ended is started again.

use serde::{Deserialize, Serialize};

/// `restartPolicy` of a pod, or of one container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum RestartPolicy {
    /// Started again whatever the exit code.
    #[default]
    Always,
    /// Started again after a non-zero exit code.
    OnFailure,
    /// Never started again.
    Never,
}

/// One entry of `restartPolicyRules`: the first that matches an exit code decides.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestartRule {
    /// What is done.
    pub action: RestartAction,
    /// Whether the exit code is to be among the values, or not among them.
    pub among: bool,
    /// Exit codes.
    pub exit_codes: Vec<i32>,
}

/// `restartPolicyRules[].action`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RestartAction {
    /// The container is started again.
    Restart,
    /// Every container of the pod is ended and the pod begins with its init containers again.
    RestartAllContainers,
}

// === impl RestartPolicy ===

impl RestartPolicy {
    /// Kubernetes' word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Always => "Always",
            Self::OnFailure => "OnFailure",
            Self::Never => "Never",
        }
    }

    /// Whether a container that ended with this code is to be started again.
    pub fn restarts(self, exit_code: i32) -> bool {
        match self {
            Self::Always => true,
            Self::OnFailure => exit_code != 0,
            Self::Never => false,
        }
    }
}

// === impl RestartRule ===

impl RestartRule {
    /// Whether the rule is about a container that ended with this code.
    pub fn matches(&self, exit_code: i32) -> bool {
        self.exit_codes.contains(&exit_code) == self.among
    }
}
