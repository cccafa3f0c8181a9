//! portmap against the real kernel: traffic between network namespaces made for it.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod beside;
mod harness;
mod lifecycle;
mod masquerade;
mod reach;
mod traffic;
mod world;
