//! What the integration tests share: a whole node, isolated from the machine it runs on, and ways to look at
//! what it did that do not trust its own word.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test whose surroundings fail has failed, and says where"
)]

pub mod cgroups;
pub mod docker_registry;
pub mod http;
pub mod images;
pub mod login1;
pub mod machine;
pub mod manifests;
pub mod namespaces;
pub mod network;
pub mod node;
pub mod processes;
pub mod random;
pub mod registry;
pub mod rust_source;
pub mod spdx;
pub mod terminal;
pub mod vm;
pub mod wait;

/// Whether the test can run at all: it needs root. Says so on standard output where it cannot.
pub fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        println!("skipped: this test makes namespaces and cgroups, which needs root");
    }
    root
}

/// Returns from a test that needs root, where there is none.
#[macro_export]
macro_rules! needs_root {
    () => {
        if !$crate::is_root() {
            return;
        }
    };
}
