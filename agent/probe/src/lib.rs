//! Probes and lifecycle hooks, as the kubelet carries them out.
//!
//! [`Prober`] runs the probes of containers: a task for each, on a beat of its own. What a series of
//! results means for a container is [`state`](ContainerState), a function of values; what one attempt
//! finds is [`attempt`]. Both reach the node through [`Node`]: to run a program in a container, to make a
//! connection from where the probe is to come from, and to tell what happened.
//!
//! The words of messages are the kubelet's (`pkg/kubelet/prober`, `pkg/probe`, `pkg/kubelet/lifecycle`) and,
//! where it passes on an error of Go's library, that one's: people search for them.

mod beat;
mod check;
mod error;
mod hook;
mod node;
mod prober;
mod state;
mod tls;
mod words;
mod worker;

pub use beat::Beat;
pub use check::{Checker, Outcome, attempt};
pub use error::Error;
pub use hook::run_hook;
pub use node::{Endpoint, ExecOutput, Node, OUTPUT_LIMIT, Target, Telling};
pub use prober::{Probed, Prober};
pub use state::{ContainerState, Failed, Findings};

/// The minor version of Kubernetes whose probes these are: what `User-Agent` names.
pub(crate) const KUBERNETES_VERSION: &str = "1.37";
