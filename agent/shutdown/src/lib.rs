//! The machine's shutdown: what logind says of it, its lock that delays it, and which pods end when.
//!
//! [`follow`] speaks with logind and tells every [`Change`]; [`GracePeriods`] say what is to be done with the pods
//! then. Nothing here touches a pod.

mod drop_in;
mod error;
mod follow;
mod login1;
mod periods;

pub use drop_in::remove_drop_in;
pub use error::LogindError;
pub use follow::{Change, Inhibitor, follow};
pub use periods::{GracePeriod, GracePeriods, Group, InvalidPeriods};
