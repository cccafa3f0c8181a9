//! Plugins that make interfaces, against the real kernel, in network namespaces made for it.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod bandwidth;
mod bridge;
mod foreign;
mod harness;
mod loopback;
mod nodes;
mod ptp;
mod reference;
mod tuning;
