//! The driver of CNI with plugins of others: programs that the tests write. Namespaces are files here, which such
//! programs do not open.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a failed test panics")]

mod failure;
mod killed;
mod lifecycle;
mod recovery;
mod scripted;
