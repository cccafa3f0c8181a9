//! One worker per pod: plan, act, status, back-off.

mod event;
pub mod ports;
mod record;

pub use event::{Event, EventType, Events};
pub use record::{Deletion, PodRecord};
