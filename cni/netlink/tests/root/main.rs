//! rtnetlink against the real kernel, in network namespaces made for it.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod links;
mod routes;
mod traffic;
mod transport;
