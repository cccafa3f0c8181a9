//! One worker per pod: plan, act, status, back-off.
//!
//! [`Pods`] is given the pods that are to run and those that are to go. Each has a task of its own,
//! which observes the pod, [plans](plan) what is to be done next, does it through the [`ports`], and
//! publishes the pod's [status](status). `plan` and `status` are functions of values; the task sleeps
//! until something happens: an exit, an answer of a port, a request, the end of a back-off.

mod act;
mod action;
mod admission;
mod age;
mod backoff;
mod board;
mod ephemeral;
mod inbox;
mod manager;
mod observed;
mod past;
mod plan;
pub mod ports;
mod record;
mod record_dir;
mod scene;
mod status;
#[cfg(test)]
mod tests;
mod view;
mod worker;

pub use admission::PortHold;
pub use board::{PodSnapshot, WorkerPhase};
pub use ephemeral::NotAdded;
pub use inbox::Eviction;
pub use manager::{Closed, KeyTaken, Pods};
pub use record::{Deletion, Ending, PodRecord, Progress, Shutdown, StopCause, StopOrder, Verdict};
pub use record_dir::{Found, RecordDir, RecordError};
