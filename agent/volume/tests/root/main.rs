//! Volumes against the real kernel: needs root. Each test has a mount namespace and a temporary directory
//! of its own.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // A test that cannot go on fails.

mod empty_dir;
mod host_path;
mod image;
mod projected;
mod sub_path;
mod support;
