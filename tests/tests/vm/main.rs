//! What a host does with Coracle, seen in a VM of its own: `make test-vm`.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test whose surroundings fail has failed, and says where"
)]

mod changing;
mod harness;
mod host;
mod install;
mod power;
mod reboot;
mod root_suite;
mod service;
