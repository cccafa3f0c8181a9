//! The container runtime: one file per verb.
