//! The small static program that turns itself into the container: what the agent tells it, and its steps.

pub mod hook;
pub mod protocol;
