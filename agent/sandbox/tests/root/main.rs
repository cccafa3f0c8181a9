//! The runtime against the real kernel, as root. Everything happens in directories, namespaces and cgroups
//! of the test's own.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod edits;
mod pause;
mod takeover;
