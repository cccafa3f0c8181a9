//! The node's events: what happened to its pods and to itself, for people.
//!
//! Kubernetes' events are told by whoever acts, and are worth reading only if they stay few. An
//! [`EventLog`] therefore does with what it is told what client-go's `EventCorrelator` does before it
//! writes to the API server: what was told before is counted, what differs in its message alone is
//! combined once there is much of it, and of one object only so much is shown in a time. What is left
//! is kept as the API server keeps it: for [`TTL`] after it happened last, and beyond the life of the agent.

mod correlate;
mod error;
mod journal;
mod log;
mod similar;
mod spam;
mod write;

use std::time::Duration;

pub use correlate::Occurrence;
pub use log::EventLog;

/// An event is kept for this long after it happened last: `--event-ttl` of the API server. Nothing wakes
/// up for it: an event that is too old is no longer shown, and goes with the next that is told.
pub const TTL: Duration = Duration::from_secs(60 * 60);

/// The most events that are kept. Beyond that, the one that happened longest ago goes.
pub const MAX_EVENTS: usize = 1000;

/// The most bytes of a message: Kubernetes' limit for the `note` of an event. The rest is cut off.
pub const MAX_MESSAGE: usize = 1024;
