//! The store against the real kernel: needs root, for owners, devices, `trusted.*` attributes and
//! overlayfs. Everything happens in temporary directories and detached mounts.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // A test that cannot go on fails.

mod archives;
mod builders;
mod collect;
mod crash;
mod exact;
mod export;
mod file_systems;
mod incoming;
mod layers;
mod mutations;
mod rootfs;
mod support;
