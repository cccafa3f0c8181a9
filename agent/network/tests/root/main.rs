//! The driver of CNI against the real kernel, as root, in network namespaces made for it.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod debian;
mod harness;
mod host_end;
mod ours;
mod recovery;
