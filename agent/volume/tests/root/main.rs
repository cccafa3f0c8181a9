//! Volumes against the real kernel: needs root. Each test has a mount namespace and a temporary directory
//! of its own.

mod empty_dir;
mod host_path;
mod sub_path;
mod support;
