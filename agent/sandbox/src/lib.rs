//! The container runtime: one file per verb.

pub mod pause;
pub mod programs;
