//! Init against the real kernel, as root. Everything happens in namespaces and directories of its own.

// Clippy takes only what stands in a test function itself for test code.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod create;
mod exec;
mod failures;
mod harness;
mod hostile;
mod hosts;
mod seccomp;
mod shared_pid;
